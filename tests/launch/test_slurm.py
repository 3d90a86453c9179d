"""A sweep as an array on a real SLURM, one task of which is put back into the queue while it trains."""

import subprocess

import pytest

from cvresearch import train
from cvresearch.base import config as configs
from launch import plan, slurm
from launch.sweep import main
from tests.launch import slurm_cluster
from tests.launch.test_sweep import SPEC, cards, until

REASON = slurm_cluster.missing()
# So long that a task is still training when it is asked to leave.
LONG = '--config.epochs=40'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    if REASON:
        pytest.skip(f'SLURM NOT CHECKED: {REASON}')
    folder = tmp_path / 'slurm'
    folder.mkdir()
    with slurm_cluster.cluster(folder) as environment:
        monkeypatch.setenv('SLURM_CONF', environment['SLURM_CONF'])
        yield


def test_a_preempted_array_ends_as_the_sweep_left_alone(cluster, tmp_path, capsys):
    spec, folder = f'{SPEC}:two', tmp_path / 'sweep'
    command = ['--config', spec, '--workdir', str(folder), '--on', 'slurm', '--jobs', '2', LONG]
    runs = plan.runs_of(spec, {'epochs': '40'}, configs.sweep_of(spec), folder)
    assert main(command) == 0
    job = capsys.readouterr().out.partition('as job ')[2].partition(';')[0]
    victim = runs[0]
    until(lambda: any(row['step'] >= 50 for row in victim.rows()))
    subprocess.run(['scontrol', 'requeue', f'{job}_0'], check=True)
    # A second submission while all is in the queue starts nothing.
    assert main(command) == 0 and 'in the queue already' in capsys.readouterr().out
    until(lambda: all(run.state() == 'finished' for run in runs))
    ended = [session['ended'] for session in victim.card()['sessions']]
    assert ended == ['preempted', 'finished'], ended
    assert len(runs[1].card()['sessions']) == 1
    until(lambda: not slurm.in_queue(folder))

    alone = plan.runs_of(spec, {'epochs': '40'}, configs.sweep_of(spec), tmp_path / 'alone')
    for run in alone:
        assert train.run(run.config, run.workdir) == 0
    digests = [{name: card['params_sha256'] for name, card in cards(f).items()} for f in (folder, tmp_path / 'alone')]
    assert digests[0] == digests[1] and len(digests[0]) == 2


def test_the_script_is_what_a_dry_run_prints(tmp_path, capsys):
    arguments = ['--config', f'{SPEC}:two', '--workdir', str(tmp_path / 'x'), '--on', 'slurm', '--dry-run']
    assert main([*arguments, '--with', 'partition=gpu gpus=1']) == 0
    text = capsys.readouterr().out
    assert '#SBATCH --array=0-1%1' in text and '#SBATCH --partition=gpu' in text and '#SBATCH --requeue' in text
    assert subprocess.run(['bash', '-n'], input=text, text=True).returncode == 0
    assert not (tmp_path / 'x').exists()
