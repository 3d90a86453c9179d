"""A run in a bucket of a real server on this machine, and a second process that wants it too."""

import importlib.util
import json
import subprocess
import sys

import pytest

from cvresearch.base import lease
from cvresearch.base.buckets import Bucket
from tests import bucket_run, bucket_servers

COMMAND = (sys.executable, '-m', 'tests.bucket_run', 'null', '--config', 'tests/kill_config.py:plain', '--workdir')


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['gs', 's3'])
def test_a_run_lies_in_its_bucket_and_a_second_process_is_refused(scheme, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, 'BEAT_SECONDS', bucket_run.BEAT)
    missing = [name for name in bucket_servers.PACKAGES[scheme] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f'{", ".join(missing)} not installed: runs in {scheme}:// are not tested against a server')
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
        assert {'config.json', 'predictions/test.npz', 'checkpoints/16/commit_success.txt'} <= files.keys()
        assert [name for name in files if 'tfevents' in name] and not list((tmp_path / 'staging').rglob('checkpoints'))
