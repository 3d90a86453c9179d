"""Runs on meshes: the same results wherever the batch and the state lie, and less memory where they are divided."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from cvresearch import evaluate as evaluation
from cvresearch import population, train
from cvresearch.base import trees
from cvresearch.base.errors import PREEMPTED
from cvresearch.base.records import read_card, read_metrics
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.nn.stacked import unstack
from tests.seams import at_step

# Parameters of runs on other meshes are so close, relative to the largest of each array: 8 steps in float32.
TOLERANCE = 1e-5
rest = functools.partial(pytest.param, marks=pytest.mark.slow)


def on(smoke, data, shard, **more):
    """Returns a short training whose state has moments and an average; nets of convolutions are in test_curves.py."""
    return smoke(
        mesh__data=data,
        mesh__shard=shard,
        mesh__least=64,
        average__name='ema',
        updates__clip_norm=1.0,
        keep_predictions=False,
        **more,
    )


@pytest.fixture(scope='module')
def made():
    return {}


def run(smoke, tmp_path_factory, made, data, shard):
    """Returns the workdir of an undisturbed run on a mesh."""
    if (data, shard) not in made:
        made[data, shard] = tmp_path_factory.mktemp('mesh') / 'run'
        assert train.run(on(smoke, data, shard), made[data, shard]) == 0
    return made[data, shard]


def rows(workdir, *splits):
    return [row for row in read_metrics(workdir / 'metrics.jsonl') if row['split'] in splits]


def last_state(config, workdir):
    return Checkpoints(workdir / 'checkpoints', read_only=True).restore(Experiment.from_config(config).abstract_state())


def assert_close(ours, theirs):
    ours, theirs = (trees.named_leaves(unstack(jax.device_get(tree))) for tree in (ours, theirs))
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * max(np.abs(b).max(), 1e-3), err_msg=name)


@pytest.mark.parametrize(
    'layouts', [((8, 1), (2, 2), (1, 1)), rest(((1, 8), (1, 4), (1, 1))), rest(((1, 1), (2, 1), (2, 4)))]
)
def test_a_run_goes_on_on_other_meshes(smoke, tmp_path, tmp_path_factory, made, monkeypatch, layouts):
    alone = run(smoke, tmp_path_factory, made, 1, 1)
    with monkeypatch.context() as patch:
        at_step(patch, (3, 6))
        for layout in layouts[:2]:
            assert train.run(on(smoke, *layout), tmp_path / 'run') == PREEMPTED
    assert train.run(on(smoke, *layouts[2]), tmp_path / 'run') == 0
    assert [row['sha256'] for row in rows(tmp_path / 'run', 'data')] == [row['sha256'] for row in rows(alone, 'data')]
    assert [row['n_seen'] for row in rows(tmp_path / 'run', 'test')] == [256] * len(rows(alone, 'test'))
    ours, theirs = (last_state(on(smoke, 1, 1), workdir) for workdir in (tmp_path / 'run', alone))
    assert_close((ours.params, ours.average), (theirs.params, theirs.average))
    assert json.loads((tmp_path / 'run/config.json').read_text())['mesh']['shard'] == layouts[2][1]


def test_a_layout_begins_alike_to_the_bit_and_repeats_itself(smoke, tmp_path, tmp_path_factory, made):
    first = trees.sha256(jax.device_get(Experiment.from_config(on(smoke, 1, 1)).initial_state()))
    assert trees.sha256(jax.device_get(Experiment.from_config(on(smoke, 2, 4)).initial_state())) == first
    workdir = run(smoke, tmp_path_factory, made, 2, 4)
    assert train.run(on(smoke, 2, 4), tmp_path / 'again') == 0
    assert read_card(tmp_path / 'again')['params_sha256'] == read_card(workdir)['params_sha256']


def test_a_divided_run_is_an_ordinary_workdir(smoke, tmp_path, tmp_path_factory, made):
    alone, divided = (run(smoke, tmp_path_factory, made, *layout) for layout in ((1, 1), (2, 4)))
    records = [json.loads((path / 'checkpoints/8/record/metadata').read_text())['leaves'] for path in (alone, divided)]
    assert records[0] == records[1]
    found = evaluation.run(divided, batch_size=64)
    assert found['n_seen'] == 256
    assert found['top1'] == rows(divided, 'test')[-1]['top1'] == rows(alone, 'test')[-1]['top1']
    shutil.copytree(divided, tmp_path / 'elsewhere')
    config = (divided / 'config.json').read_text().replace('"shard": 4', '"shard": 64')  # more than there are here
    (tmp_path / 'elsewhere' / 'config.json').write_text(config)
    assert evaluation.run(tmp_path / 'elsewhere', batch_size=64)['top1'] == found['top1']


@pytest.mark.parametrize('shard', [rest(2), rest(4), 8])
def test_bytes_fall_with_the_devices(smoke, shard):
    state = Experiment.from_config(on(smoke, 1, shard)).initial_state()
    for tree in (state.params, state.average, state.opt_state):
        # All but the 10 biases: 1 of 785.
        whole = sum(x.nbytes for x in jax.tree.leaves(tree))
        held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
        assert whole / shard <= held <= whole / shard + whole / 500


def test_members_of_a_population_lie_on_one_mesh(smoke, tmp_path):
    members = [on(smoke, 1, 4, seed=seed) for seed in (0, 1)]
    assert population.run(members, [tmp_path / '0', tmp_path / '1']) == 0
    assert train.run(members[1], tmp_path / 'alone') == 0
    ours, theirs = (last_state(members[1], tmp_path / name) for name in ('1', 'alone'))
    assert_close(ours.params, theirs.params)
