"""Buckets of real servers on this machine: a run, a second process that wants it too, hosts, data, what is refused."""

import importlib.util
import json
import logging
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from cvresearch.base import at_hand, buckets, lease
from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.data import identity, mirror, sources
from tests import bucket_run, bucket_servers, test_hosts
from tests.data.photographs import ilsvrc

COMMAND = (sys.executable, '-m', 'tests.bucket_run', 'null', '--config', 'tests/kill_config.py:plain', '--workdir')


def needs(scheme):
    missing = [name for name in bucket_servers.PACKAGES[scheme] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f'{", ".join(missing)} not installed: runs in {scheme}:// are not tested against a server')


def reach(scheme, environment, monkeypatch):
    """Lets this process, and those that it starts, take a server for the cloud."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    type(buckets.filesystem(scheme)).clear_instance_cache()  # its instance leads to the server before


@pytest.fixture(params=['gs', 's3'])
def served(request, monkeypatch, tmp_path):
    """Returns a function that starts a server, and gives the scheme and the line to it."""
    needs(request.param)
    logging.getLogger('werkzeug').setLevel(logging.ERROR)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(buckets, 'PAUSE_SECONDS', 0.01)

    def start(**faults):
        server = bucket_servers.server(request.param, **faults)
        line, environment = server.__enter__()
        request.addfinalizer(lambda: server.__exit__(None, None, None))
        reach(request.param, environment, monkeypatch)
        return request.param, line

    return start


def test_data_are_read_in_place_and_copied_through_a_line_that_fails(served, tmp_path):
    scheme, line = served(seed=3, kinds=('drop', 'truncate', '503'))
    address, disk, knobs = f'{scheme}://lab/data', tmp_path / 'disk', {'crop': {'name': 'resize', 'size': 8}}
    ilsvrc(disk)
    for file in disk.iterdir():
        Bucket.of(address).send(file.name, file)
    line.share = 0.2
    transform = {'train': knobs, 'eval': knobs}
    there, here = (sources.load({'name': 'imagenet', 'root': r}, transform=transform) for r in (address, str(disk)))
    assert identity.of(there) == identity.of(here)
    for name, split in here.splits.items():
        index = np.arange(len(split))
        images = [parts[name].take(index, index.astype(np.uint64))[0] for parts in (there.splits, here.splits)]
        assert np.array_equal(*images)
    copy = mirror.mirrored(address, str(tmp_path / 'copies'))
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {f.name: f.read_bytes() for f in disk.iterdir()}
    assert sum(line.counts.values()) > 0


def test_an_object_has_the_bytes_that_were_written_whatever_its_last_ones_are(served):
    bucket = Bucket.of(f'{served()[0]}://lab/bytes')
    for end in (b'\r', b'\n', b'\r\n', b' ', b'\0', b'-'):
        bucket.write('x', b'ab' + end)
        assert bucket.read('x') == b'ab' + end and bucket.files()['x']['size'] == 2 + len(end)


def test_a_bucket_that_is_not_there_or_not_ours_is_one_line(served):
    scheme, line = served(kinds=('403',))
    with pytest.raises(UserError, match=f'{scheme}://none/x cannot be listed [(]FileNotFoundError'):
        Bucket.of(f'{scheme}://none/x').listing()
    line.share = 1.0
    with pytest.raises(UserError, match=f'{scheme}://lab/x cannot be listed .*Forbidden'):
        Bucket.of(f'{scheme}://lab/x').listing()


def test_a_process_that_dies_in_a_request_holds_up_no_other(served):
    scheme, line = served()
    with socket.create_connection(('127.0.0.1', line.port)) as dying:
        target = '/upload/storage/v1/b/lab/o?uploadType=media&name=x' if scheme == 'gs' else '/lab/x'
        dying.sendall(f'PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nhalf'.encode())
    urllib.request.urlopen(f'http://127.0.0.1:{line.port}/{"storage/v1/b/lab/o" if scheme == "gs" else ""}', timeout=10)


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['gs', 's3'])
def test_a_run_lies_in_its_bucket_and_a_second_process_is_refused(scheme, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, 'BEAT_SECONDS', bucket_run.BEAT)
    needs(scheme)
    address = f'{scheme}://lab/runs/a'
    with bucket_servers.server(scheme) as (_, environment):
        reach(scheme, environment | {at_hand.VARIABLE: str(tmp_path / 'staging')}, monkeypatch)
        bucket = Bucket.of(address)
        (tmp_path / 'lock').touch()
        held = lease.Lease.take(bucket, tmp_path / 'lock')
        refused = subprocess.run([*COMMAND, address], capture_output=True, text=True)
        held.drop()
        assert refused.returncode == 2 and f'workdir {address} is in use by another process (process ' in refused.stderr
        done = subprocess.run([*COMMAND, address], capture_output=True, text=True)
        assert done.returncode == 0 and f'{address} has all of it' in done.stdout, done.stderr
        files = bucket.files()
        assert json.loads(bucket.read('run.json'))['status'] == 'finished'
        assert bucket.read('metrics.jsonl').count(b'"split": "test"') == 4
        assert {'config.json', 'predictions/test.npz', 'checkpoints/16/whole.txt'} <= files.keys()
        assert [name for name in files if 'tfevents' in name] and not list((tmp_path / 'staging').rglob('checkpoints'))


@pytest.mark.slow
def test_two_hosts_on_one_bucket_leave_what_they_leave_on_a_disk(tmp_path, monkeypatch):
    needs('s3')
    with bucket_servers.server('s3') as (_, environment):
        reach('s3', environment | {at_hand.VARIABLE: str(tmp_path / 'staging')}, monkeypatch)
        for place in ('s3://lab/runs/hosts', tmp_path / 'disk'):
            found = test_hosts.ends(test_hosts.run_on(2, place, '--config.mesh.data=2'))
            assert [code for code, _ in found] == [0, 0], found
        card, alone = (read_card(place) for place in (at_hand.read('s3://lab/runs/hosts'), tmp_path / 'disk'))
    assert card['hosts'] == 2 and card['params_sha256'] == alone['params_sha256']
