"""Runs killed at random instants end bit for bit as the run left alone. And disks that are full.

A sample of the kill matrix (tests/kill_matrix.py), each feature once; the whole is in docs/survival.md.
"""

import os
import subprocess
import sys

import pytest

from cvresearch.base.errors import FAILED, PREEMPTED
from tests import kill_matrix
from tests.environment import xla_flags
from tests.kill_at import Kill
from tests.kill_config import FEATURES
from tests.kill_runs import Left

FLAGS = [
    '--config',
    'configs/lenet5_fake.py:smoke',
    '--config.epochs=1',
    '--config.save_every_epochs=0.125',
    '--config.mesh.data=1',
]
KILLS = dict(
    plain=[Kill('save', 7, 0.02), Kill('compile', -1, 0.3)], mixing=[Kill('step', 9, 0.01)],
    ema=[Kill('evaluate', 8, 0.02, 'SIGTERM')], sam=[Kill('compile', -1, 0.2, 'SIGTERM')],
    stochastic_depth=[Kill('step', 6, 0.03)], resizing=[Kill('resize', 6, 0.02)],
    accumulation=[Kill('save', 5, 0.0, 'SIGTERM')], snapshots=[Kill('restart', 4, 0.03), Kill('restart', 8, 0.0)],
    freezing=[Kill('evaluate', 8, 0.05)], warm_start=[Kill('compile', -1, 0.0), Kill('step', 5, 0.01)],
    probe=[Kill('step', 7, 0.01, 'SIGTERM')], gradual=[Kill('step', 4, 0.0), Kill('save', 8, 0.01, 'SIGTERM')],
    lpft=[Kill('step', 7, 0.01)], pseudo_labels=[Kill('step', 5, 0.01)], fixmatch=[Kill('save', 6, 0.01)],
    uda=[Kill('evaluate', 8, 0.02)], meta_pseudo_labels=[Kill('step', 5, 0.01), Kill('save', 8, 0.02, 'SIGTERM')],
    soft_labels=[Kill('step', 9, 0.01)], balanced=[Kill('save', 6, 0.0)], early_stopping=[Kill('evaluate', 8, 0.02)],
    multi_label=[Kill('evaluate', 4, 0.02), Kill('step', 9, 0.01, 'SIGTERM')],
    pruning=[Kill('step', 5, 0.0), Kill('save', 8, 0.0)], sharing=[Kill('save', 2, 0.0), Kill('step', 9, 0.01)],
)  # fmt: skip
# Features that share their code with another one here.
ALIKE = ('lpft', 'pseudo_labels', 'fixmatch', 'uda', 'soft_labels', 'balanced')
EACH = [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in FEATURES]
# Compiled in half the time; killed as any other.
QUICKLY = dict(XLA_FLAGS=xla_flags('--xla_backend_optimization_level=0'))


def start(*command):
    """Runs a program of the project to its end, whatever that is."""
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=540, env=os.environ)


def train(workdir, *more):
    return start('-m', 'cvresearch.main', *FLAGS, '--workdir', str(workdir), *more)


@pytest.mark.parametrize('feature', EACH)
def test_killed_run_ends_bit_for_bit_as_the_run_left_alone(feature, tmp_path):
    alone = kill_matrix.left_alone(feature, tmp_path / 'alone', forked=True, **QUICKLY)
    assert [step for step, _ in alone.snapshots] == ([4, 8, 12, 16] if feature == 'snapshots' else [])
    (tmp_path / 'killed').mkdir()
    for row in kill_matrix.case(feature, 0, KILLS[feature], alone, tmp_path / 'killed', **QUICKLY):
        assert row['found'] and row['outcome'] == 'identical', row
        if row['signal'] == 'SIGTERM':  # not a step is lost
            assert row['exit'] == PREEMPTED and row['kept'] >= row['found']['step'], row


def test_another_run_is_not_taken_for_the_same(tmp_path):
    left = Left('a', 'b', 'c', 'd', ((4, 'e'),))
    other = Left('a', 'x', 'c', 'd', ((4, 'y'),))
    assert left.differences(left) == [] and left.differences(other) == ['state', 'snapshots']
    kill = dict(feature='ema', found={'step': 3, 'inside': []}, met='step', signal='SIGKILL')
    table = kill_matrix.table({'kills': [kill | {'outcome': 'identical'}, kill | {'outcome': 'other state'}]})
    row = next(line for line in table.splitlines() if line.startswith('| EMA'))
    assert '2 (1 differ)' in row and '1 of 2 (50 %)' in row


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
