"""A member of a population ends as the run made alone: same records to 1e-4 in the loss, and the same files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvresearch import evaluate, population, train
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card, read_metrics
from cvresearch.base.traced import Traced
from tests.launch.test_sweep import SPEC, processes, until

TOLERANCE = 1e-4  # of losses, relative; float32 over a few dozen steps


def members(*changes, **common):
    base = {'model.name': 'lenet5', 'data.image_size': '28', 'epochs': '0.5', **common}
    return [configs.load(SPEC, base | {k: str(v) for k, v in change.items()}) for change in changes]


def same(a, b):
    """Compares two workdirs: the records row by row, and what a run leaves."""
    rows = [read_metrics(Path(path) / 'metrics.jsonl') for path in (a, b)]
    places = [[(row['step'], row['split'], row['n_seen']) for row in run] for run in rows]
    assert places[0] == places[1]
    losses, shown = ([[row[key] for row in run if key in row] for run in rows] for key in ('loss', 'sha256'))
    np.testing.assert_allclose(*losses, rtol=TOLERANCE)
    assert losses[0] and shown[0] == shown[1]  # the same images in the same epochs, where one has ended
    files = [{p.relative_to(path).parts[0] for p in Path(path).rglob('*') if 'events' not in p.name} for path in (a, b)]
    assert files[0] == files[1] >= {'config.json', 'run.json', 'metrics.jsonl', 'checkpoints'}


@pytest.mark.parametrize(
    'changes',
    [
        [{'seed': 0}, {'seed': 1}],
        [{'schedule.peak': 1e-3}, {'schedule.peak': 5e-3, 'seed': 3}],
        [{'optimizer.weight_decay': 0.01}, {'optimizer.weight_decay': 3.0}],
        [{'loss.label_smoothing': 0.1}, {'loss.label_smoothing': 0.4}],
        [{'mixing.mixup': 0.2}, {'mixing.mixup': 2.0}],
        [{'optimizer.b1': 0.5, 'optimizer.b2': 0.9}, {'optimizer.b1': 0.9, 'optimizer.b2': 0.99}],
        [{'optimizer.name': 'sgd', 'optimizer.momentum': m} for m in (0.5, 0.95)],
    ],
    ids=lambda changes: ','.join(changes[1]),
)
def test_members_end_as_the_runs_made_alone(changes, tmp_path):
    configurations = members(*changes, **{'model.name': 'mlp_300_100', 'data.image_size': '8'})
    together, alone = ([tmp_path / f'{kind}{i}' for i in range(len(changes))] for kind in 'pa')
    assert population.run(configurations, together) == 0
    for config, one, other in zip(configurations, together, alone, strict=True):
        train.run(config, other)
        same(one, other)
        assert read_card(one)['status'] == 'finished' and read_card(one)['params'] == read_card(other)['params']
    # And the members differ from each other, by far more than the tolerance.
    losses = [read_card(path)['final']['test']['loss'] for path in together]
    assert abs(losses[0] - losses[1]) > 10 * TOLERANCE * losses[0]


def test_a_member_s_workdir_is_an_ordinary_one(tmp_path):
    configurations = members({'seed': 0}, {'seed': 1})
    assert population.run(configurations, [tmp_path / '0', tmp_path / '1']) == 0
    final = read_card(tmp_path / '1')['final']['test']
    assert evaluate.run(tmp_path / '1')['loss'] == pytest.approx(final['loss'], rel=1e-5)
    assert population.run(configurations, [tmp_path / '0', tmp_path / '1']) == 0  # finished: nothing to do


@pytest.mark.slow
def test_a_population_that_is_killed_goes_on(tmp_path):
    command = [
        sys.executable,
        '-m',
        'launch.sweep',
        '--config',
        f'{SPEC}:few',
        '--workdir',
        str(tmp_path / 'p'),
        '--on',
        'population',
        '--config.epochs=8',
    ]
    launcher = subprocess.Popen(command)
    until(lambda: len(list((tmp_path / 'p').glob('*/checkpoints/[0-9]*'))) >= 5)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    assert not processes(tmp_path / 'p') and subprocess.run(command).returncode == 0
    cards = list((tmp_path / 'p').glob('*/run.json'))
    assert len(cards) == 4
    for path in cards:
        assert json.loads(path.read_text())['status'] == 'finished'
        config = json.loads((path.parent / 'config.json').read_text())
        alone = {'epochs': '8', 'augment.shift': '0'}
        alone |= {'schedule.peak': str(config['schedule']['peak']), 'seed': str(config['seed'])}
        train.run(configs.load(SPEC, alone), tmp_path / path.parent.name)
        same(path.parent, tmp_path / path.parent.name)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ([{'epochs': 1.0}, {'epochs': 2.0}], 'differ in epochs'),
        ([{'mixing.mixup': 0.0}, {'mixing.mixup': 0.2}], 'is left out'),
        ([{'optimizer.name': 'sgd'}, {'optimizer.name': 'adamw'}], 'differ in optimizer.name'),
    ],
)
def test_members_that_differ_in_more_than_numbers_are_refused(changes, message, tmp_path):
    configurations = members(*changes)
    with pytest.raises(UserError, match=message):
        population.run(configurations, [tmp_path / '0', tmp_path / '1'])
    assert not list(tmp_path.iterdir())
    assert population.groups(configurations) == [[0], [1]]


def test_traced_numbers_compute_like_floats():
    def value(array):
        rate = optax.cosine_decay_schedule(Traced(0.5, array), 10, alpha=0.1 / Traced(0.5, array))
        return rate(3) + (1 - Traced(0.5, array)) / 2 + Traced(0.5, array) ** 2

    for number in (0.25, 0.5):
        expected = optax.cosine_decay_schedule(number, 10, alpha=0.1 / number)(3) + (1 - number) / 2 + number**2
        assert jax.jit(value)(jnp.float32(number)) == pytest.approx(float(expected), rel=1e-5)
    assert Traced(0.0, jnp.float32(1.0)) == 0.0 and isinstance(Traced(2.0, jnp.float32(2.0)) * 3, Traced)
