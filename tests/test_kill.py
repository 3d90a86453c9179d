"""Runs killed at random instants end bit for bit as the run left alone. And disks that are full.

Each case is a process of its own, killed by `kill_at.py` and then started again with the same
command, as a scheduler would.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cvresearch.base import trees
from cvresearch.base.errors import FAILED, PREEMPTED
from cvresearch.base.records import read_card, read_metrics
from cvresearch.engine.runs import Run

CASES = 20
# 16 steps, evaluations at 4, 8, 12, 16, saves at 2, 4, ..., 16.
FLAGS = [
    '--config', 'configs/lenet5_fake.py:smoke', '--config.epochs=1', '--config.save_every_epochs=0.125',
    '--config.mesh.data=1',
]  # fmt: skip
# Of each phase: on which visits, and within how many seconds after its beginning.
PHASES = {'compile': ((1, 1), 1.0), 'step': ((1, 15), 0.03), 'evaluate': ((1, 3), 0.05), 'save': ((1, 7), 0.1)}


def start(*command, signal_name='SIGKILL', **environment):
    """Runs a program of the project to its end, whatever that is."""
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=540,
        env=os.environ | {'KILL_SIGNAL': signal_name} | environment,
    )  # fmt: skip


def train(workdir, *more):
    return start('-m', 'cvresearch.main', *FLAGS, '--workdir', str(workdir), *more)


def rows(workdir):
    drop = ('steps_per_second',)
    return [{k: v for k, v in row.items() if k not in drop} for row in read_metrics(Path(workdir) / 'metrics.jsonl')]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """The run that is never killed, compiled without the cache that the others share."""
    workdir = tmp_path_factory.mktemp('alone') / 'run'
    done = start('-m', 'cvresearch.main', *FLAGS, '--workdir', str(workdir), JAX_COMPILATION_CACHE_DIR='')
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.parametrize('case', range(CASES))
def test_killed_run_ends_bit_for_bit_as_the_run_left_alone(case, alone, tmp_path):
    rng = np.random.default_rng(case)
    phase = list(PHASES)[case % len(PHASES)]
    (first, last), within = PHASES[phase]
    visit, delay = rng.integers(first, last + 1), rng.uniform(0, within)
    workdir = tmp_path / 'run'
    killed = start('tests/kill_at.py', phase, str(visit), f'{delay:.4f}', *FLAGS, '--workdir', str(workdir))
    assert killed.returncode == -signal.SIGKILL, (phase, visit, delay, killed.stderr)
    again = train(workdir)
    assert again.returncode == 0, again.stderr
    assert 'warning' not in again.stderr, again.stderr
    assert read_card(workdir)['params_sha256'] == read_card(alone)['params_sha256'], (phase, visit, delay)
    assert rows(workdir) == rows(alone)


def snapshots(workdir):
    """Returns the digest of each snapshot, as its record has it, after reading it back whole."""
    states = Run.of(workdir).snapshots()
    return {int(state.step): trees.sha256(jax.device_get(state)) for state in states}


@pytest.mark.parametrize(('visit', 'delay', 'name'), [(1, 0, 'SIGKILL'), (2, 0.03, 'SIGKILL'), (2, 0, 'SIGTERM')])
def test_run_killed_at_the_end_of_a_cycle_has_the_same_snapshots(visit, delay, name, tmp_path):
    cycles = ['--config.schedule.name=sgdr', '--config.schedule.t_0_epochs=0.25', '--config.schedule.warmup_epochs=0.0']
    assert train(tmp_path / 'alone', *cycles).returncode == 0
    command = ['tests/kill_at.py', 'snapshot', str(visit), str(delay), *FLAGS, '--workdir', str(tmp_path / 'run')]
    killed = start(*command, *cycles, signal_name=name)
    assert killed.returncode == (PREEMPTED if name == 'SIGTERM' else -signal.SIGKILL), killed.stderr
    assert train(tmp_path / 'run', *cycles).returncode == 0
    assert list(snapshots(tmp_path / 'alone')) == [4, 8, 12, 16]
    assert snapshots(tmp_path / 'run') == snapshots(tmp_path / 'alone')
    assert rows(tmp_path / 'run') == rows(tmp_path / 'alone')


@pytest.mark.parametrize('phase', ['compile', 'evaluate', 'save'])
def test_sigterm_exits_with_the_code_for_requeueing(phase, alone, tmp_path):
    workdir = tmp_path / 'run'
    stopped = start('tests/kill_at.py', phase, '1', '0', *FLAGS, '--workdir', str(workdir), signal_name='SIGTERM')
    assert stopped.returncode == PREEMPTED, stopped.stderr
    assert train(workdir).returncode == 0
    assert read_card(workdir)['params_sha256'] == read_card(alone)['params_sha256']
    assert rows(workdir) == rows(alone)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MiB."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip('mounting a small disk needs root')
    yield disk
    subprocess.run(['umount', '-l', str(disk)], check=True)


def test_disk_that_stays_full_is_a_warning_each_and_then_one_line_and_keeps_what_is_there(small_disk):
    # 669,706 parameters and AdamW's two moments: 8 MB a checkpoint.
    done = train(small_disk / 'run', '--config.model.name=mlp')
    assert done.returncode == FAILED
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and 'cannot save the checkpoint of step 6' in errors[0], done.stderr
    assert done.stderr.count('\nwarning: cannot save the checkpoint') == 2, done.stderr  # of steps 2 and 4
    assert 'Traceback' not in done.stderr
    assert (small_disk / 'run' / 'config.json').exists()


def test_disk_that_is_full_from_the_start_is_one_line(small_disk):
    with open(small_disk / 'filling', 'wb') as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    done = train(small_disk / 'run')
    assert done.returncode != 0
    assert done.stderr.startswith('error: cannot write') and len(done.stderr.splitlines()) == 1, done.stderr
