"""A run in a bucket of a real server on this machine, and a second process that wants it too."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import pytest

from cvresearch.base.buckets import Bucket
from tests import bucket_servers

COMMAND = (sys.executable, '-m', 'tests.bucket_run', 'null', '--config', 'tests/kill_config.py:plain', '--workdir')


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['gs', 's3'])
def test_a_run_lies_in_its_bucket_and_a_second_process_is_refused(scheme, tmp_path, monkeypatch):
    missing = [name for name in bucket_servers.PACKAGES[scheme] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f'{", ".join(missing)} not installed: runs in {scheme}:// are not tested against a server')
    address = f'{scheme}://lab/runs/a'
    with bucket_servers.server(scheme) as (_, environment):
        processes = []
        for machine in ('first', 'second'):
            own = os.environ | environment | {'CVRESEARCH_STAGING': str(tmp_path / machine)}
            processes.append(
                subprocess.Popen(
                    [*COMMAND, address], env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            bucket = Bucket.of(address)
            while not bucket.files('lock') and processes[0].poll() is None:
                time.sleep(0.05)
        (_, refused), (out, wrong) = processes[1].communicate(), processes[0].communicate()
        assert processes[0].returncode == 0, wrong
        assert f'{address} has all of it' in out
        assert processes[1].returncode == 2 and f'workdir {address} is in use by another process (process ' in refused
        files = bucket.files()
        assert json.loads(bucket.read('run.json'))['status'] == 'finished'
        assert bucket.read('metrics.jsonl').count(b'"split": "test"') == 4
        assert {'config.json', 'predictions/test.npz', 'checkpoints/16/commit_success.txt'} <= files.keys()
        assert [name for name in files if 'tfevents' in name] and not list((tmp_path / 'first').rglob('checkpoints'))
