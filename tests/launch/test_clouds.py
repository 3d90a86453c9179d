"""TPU VMs and Kubernetes, checked without either: against a `gcloud` that records, and against the API's schema."""

import json
import os
import sys

import pytest
import yaml

from cvresearch.base.errors import UserError
from launch import tpu
from launch.sweep import main
from tests.launch.test_sweep import SPEC

# Takes every call; the first training of the second run finds its TPU preempted.
GCLOUD = """#!{python}
import json, pathlib, sys
calls = pathlib.Path({folder!r}) / 'calls.jsonl'
words = sys.argv[1:]
before = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
with calls.open('a') as file:
    file.write(json.dumps(words) + '\\n')
text = ' '.join(words)
trained = [call for call in before if 'peak=0.004' in ' '.join(call)]
if 'cvresearch.main' in text and 'peak=0.004' in text and not trained:
    sys.exit(255)
if 'describe' in words:
    print('PREEMPTED' if 'cvresearch.main' in ' '.join(before[-1]) else 'READY')
"""
TPU = 'zone=us-west4-a type=v5litepod-8 version=v2-alpha-tpuv5-lite bucket=b spot=true'


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
    path = tmp_path / 'bin' / 'gcloud'
    path.parent.mkdir()
    path.write_text(GCLOUD.format(python=sys.executable, folder=str(tmp_path)))
    path.chmod(0o755)
    monkeypatch.setenv('PATH', f'{path.parent}:{os.environ["PATH"]}')
    monkeypatch.setattr(tpu.subprocess, 'run', _without_git(tpu.subprocess.run))
    return lambda: [json.loads(line) for line in (tmp_path / 'calls.jsonl').read_text().splitlines()]


def _without_git(run):
    return lambda command, **options: None if command[0] == 'git' else run(command, **options)


def test_tpus_are_created_preempted_created_anew_and_deleted(gcloud, tmp_path):
    command = ['--config', f'{SPEC}:two', '--workdir', str(tmp_path / 'sweep'), '--on', 'tpu', '--with', TPU]
    assert main(command) == 0
    calls = gcloud()
    kinds = [' '.join(call[2:4]) if call[0] == 'compute' else call[0] for call in calls]
    setup = ['tpu-vm scp', 'tpu-vm ssh', 'tpu-vm ssh']
    assert kinds == [
        'tpu-vm create',
        *setup,
        'tpu-vm ssh',  # the first run
        'tpu-vm ssh',
        'tpu-vm describe',
        'tpu-vm delete',
        'tpu-vm create',
        *setup,
        'tpu-vm ssh',  # the second, twice
        'tpu-vm delete',
        'storage',
    ]
    assert calls[0] == [
        'compute',
        'tpus',
        'tpu-vm',
        'create',
        'sweep-0',
        '--version=v2-alpha-tpuv5-lite',
        '--accelerator-type=v5litepod-8',
        '--zone=us-west4-a',
        '--spot',
    ]
    training = [call for call in calls if any('cvresearch.main' in word for word in call)]
    assert len(training) == 3 and all('--worker=all' in call for call in training)
    assert all('--workdir ../sweep/sweep/peak=' in ' '.join(call) for call in training)


def test_a_tpu_is_deleted_whatever_happens(gcloud, tmp_path, monkeypatch):
    monkeypatch.setattr(tpu.Tpu, 'train', lambda *_: 1 / 0)
    command = ['--config', f'{SPEC}:two', '--workdir', str(tmp_path / 'sweep'), '--on', 'tpu', '--with', TPU]
    with pytest.raises(ZeroDivisionError):
        main(command)
    assert gcloud()[-1][2:4] == ['tpu-vm', 'delete']


def test_a_dry_run_prints_the_commands_in_order(tmp_path, capsys):
    arguments = ['--config', f'{SPEC}:two', '--workdir', str(tmp_path / 'x'), '--on', 'tpu', '--dry-run', '--jobs', '2']
    assert main([*arguments, '--with', f'{TPU} queued=true']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('git archive') and lines[-1].startswith('gcloud storage rsync')
    assert sum('queued-resources create' in line for line in lines) == 2
    assert sum('queued-resources delete' in line for line in lines) == 2
    assert sum('cvresearch.main' in line for line in lines) == 2


def test_the_kubernetes_manifest_is_valid(tmp_path, capsys):
    kubernetes_validate = pytest.importorskip('kubernetes_validate')
    command = ['--config', SPEC, '--workdir', str(tmp_path / 'My_Sweep'), '--on', 'kubernetes', '--dry-run']
    assert main([*command, '--jobs', '4', '--with', 'image=trainer:1 claim=runs']) == 0
    job = yaml.safe_load(capsys.readouterr().out)
    kubernetes_validate.validate(job, '1.31', strict=True)
    spec = job['spec']
    assert (spec['completions'], spec['parallelism'], job['metadata']['name']) == (12, 4, 'my-sweep')
    script = spec['template']['spec']['containers'][0]['command'][2]
    assert '11) exec python -m cvresearch.main' in script and '--workdir /sweep/peak=0.004,shift=1,seed=2' in script
    spec['completionModes'] = 'Indexed'
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, '1.31', strict=True)


@pytest.mark.parametrize(
    ('backend', 'settings', 'message'),
    [
        ('tpu', 'zone=a', 'needs type'),
        ('tpu', 'zon=a', 'did you mean zone'),
        ('tpu', TPU, 'gcloud is not there.*google-cloud-cli'),
        ('kubernetes', '', 'needs image'),
        ('kubernetes', 'image=i claim=c', 'kubectl is not there.*kubernetes-client'),
        ('slurm', '', 'sbatch is not there.*slurm-wlm'),
        ('slurms', '', 'did you mean slurm'),
        ('slurm', 'partition', 'expected KEY=VALUE'),
    ],
)
def test_what_is_missing_is_one_line(backend, settings, message, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(tpu.subprocess, 'run', _without_git(tpu.subprocess.run))
    with pytest.raises(UserError, match=message):
        main(['--config', f'{SPEC}:two', '--workdir', str(tmp_path / 's'), '--on', backend, '--with', settings])
