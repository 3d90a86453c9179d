"""A run in a bucket of a real server on this machine, and a second process that wants it too."""

import importlib.util
import json
import subprocess
import sys

import pytest

from cvresearch.base import at_hand, lease
from cvresearch.base.buckets import Bucket
from cvresearch.base.records import read_card
from tests import bucket_run, bucket_servers, test_hosts

COMMAND = (sys.executable, '-m', 'tests.bucket_run', 'null', '--config', 'tests/kill_config.py:plain', '--workdir')


def needs(scheme):
    missing = [name for name in bucket_servers.PACKAGES[scheme] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f'{", ".join(missing)} not installed: runs in {scheme}:// are not tested against a server')


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['gs', 's3'])
def test_a_run_lies_in_its_bucket_and_a_second_process_is_refused(scheme, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, 'BEAT_SECONDS', bucket_run.BEAT)
    needs(scheme)
    address = f'{scheme}://lab/runs/a'
    with bucket_servers.server(scheme) as (_, environment):
        for name, value in {**environment, 'CVRESEARCH_STAGING': str(tmp_path / 'staging')}.items():
            monkeypatch.setenv(name, value)
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
        for name, value in {**environment, 'CVRESEARCH_STAGING': str(tmp_path / 'staging')}.items():
            monkeypatch.setenv(name, value)
        for place in ('s3://lab/runs/hosts', tmp_path / 'disk'):
            found = test_hosts.ends(test_hosts.run_on(2, place, '--config.mesh.data=2'))
            assert [code for code, _ in found] == [0, 0], found
        card, alone = (read_card(place) for place in (at_hand.read('s3://lab/runs/hosts'), tmp_path / 'disk'))
    assert card['hosts'] == 2 and card['params_sha256'] == alone['params_sha256']
