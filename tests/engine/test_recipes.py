"""What recipes add to an update: groups of batch norm, parts of a batch, SAM; and runs that use them."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import read_card, read_metrics
from cvresearch.data.stream import Stream
from cvresearch.engine import recipes, steps, teacher
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from tests.engine.curves import curve
from tests.seams import at_step

rest = functools.partial(pytest.param, marks=pytest.mark.slow)


def averaging(smoke):
    return smoke(
        minival=64,
        average__name='ema',
        updates__accumulate=2,
        updates__sam=0.05,
        mixing__mixup=0.2,
        mixing__per_example=True,
        schedule__name='plateau',
        schedule__patience=0,
        schedule__least_gain=200.0,
        schedule__warmup_epochs=0.0,
    )


def test_a_run_with_all_of_it_is_resumed_bit_for_bit(smoke, tmp_path, monkeypatch):
    assert train.run(averaging(smoke), tmp_path / 'alone') == 0
    with monkeypatch.context() as patch:
        at_step(patch, (4, 6))
        assert train.run(averaging(smoke), tmp_path / 'run') == PREEMPTED
        assert train.run(averaging(smoke), tmp_path / 'run') == PREEMPTED
    assert train.run(averaging(smoke), tmp_path / 'run') == 0
    last = str(read_card(tmp_path / 'alone')['step'])
    digests = {
        json.loads((tmp_path / name / 'checkpoints' / last / 'record/metadata').read_text())['sha256']
        for name in ('alone', 'run')
    }
    assert len(digests) == 1

    rows = read_metrics(tmp_path / 'run' / 'metrics.jsonl')
    assert [(r['step'], r['weights']) for r in rows if r['split'] == 'test'] == [
        (step, weights) for step in (4, 8) for weights in ('raw', 'ema')
    ]
    # No accuracy is 200 % better than the one before: the first evaluation is the best, the second a drop.
    rates = {r['step']: r['learning_rate'] for r in rows if r['split'] == 'train'}
    assert rates == pytest.approx({5: 2e-3, 8: 2e-3})
    final = read_card(tmp_path / 'run')['final']
    assert final['test_ema']['loss'] != final['test']['loss']
    experiment = Experiment.from_config(averaging(smoke))
    rows = [r for r in rows if r['split'] == 'minival' and r['weights'] == 'raw']
    assert experiment.plateau.after(rows)['scale'] == pytest.approx(0.1)


def test_distillation_from_a_workdir_draws_the_net_to_its_teacher(smoke, tmp_path):
    # The student's images are normalized otherwise than the teacher's, who is shown what it was trained on.
    assert train.run(smoke(epochs=2.0), tmp_path / 'teacher') == 0
    teach = dict(distillation__teacher=tmp_path / 'teacher', distillation__weight=1.0, normalize__mean=(0.1,))
    assert train.run(smoke(**teach), tmp_path / 'student') == 0
    experiment = Experiment.from_config(smoke(**teach))
    batch = np.random.default_rng(0).integers(0, 256, (4, *experiment.source.facts.image_shape)).astype(np.uint8)
    of_teacher = Experiment.from_config(smoke(epochs=2.0))
    state = Checkpoints(tmp_path / 'teacher/checkpoints', read_only=True).restore(of_teacher.abstract_state())
    shown = steps.normalize(batch, of_teacher.mean, of_teacher.std)
    expected = of_teacher.model.apply({'params': state.params}, shown)
    logits_of = teacher.load(str(tmp_path / 'teacher'), experiment)
    found = logits_of(steps.normalize(batch, experiment.mean, experiment.std))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert read_card(tmp_path / 'student')['final']['test']['top1'] > 50  # and it saw no label


def test_precise_statistics_are_those_of_the_last_batches_and_survive_a_restart(tmp_path):
    values = {
        'model.name': 'resnet20_cifar10',
        'model.depth': '8',
        'mesh.data': '1',
        'data.image_size': '8',
        'data.channels': '3',
        'precise_batches': '3',
        'batch_norm.group_size': '32',
        'average.name': 'ema',
    }
    config = configs.load('configs/lenet5_fake.py:smoke', values)
    assert train.run(config, tmp_path / 'run') == 0
    experiment = Experiment.from_config(config)
    state = Checkpoints(tmp_path / 'run/checkpoints', read_only=True).restore(experiment.abstract_state())
    stream = Stream(experiment.source.splits['train'], experiment.seed, config.batch_size)
    batches = [meshes.place(stream.batch(step), experiment.mesh) for step in (5, 6, 7)]
    again = experiment.with_precise_statistics(state, batches)
    jax.tree.map(np.testing.assert_array_equal, again.model_state, state.model_state)
    jax.tree.map(np.testing.assert_array_equal, again.average, state.average)
    other = experiment.with_precise_statistics(state, batches[:2])
    means = [s.model_state['batch_stats']['stem_norm']['mean'] for s in (again, other)]
    assert np.abs(means[0] - means[1]).max() > 0


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (dict(updates__accumulate=3), 'accumulate is 3: a batch of 64'),
        (dict(updates__accumulate=4, mesh__data=8, batch_norm__group_size=32), 'group_size is 32, which does not'),
        (dict(batch_norm__group_size=48), 'group_size is 48, which does not divide a batch of 64'),
        (dict(updates__accumulate=16, mesh__data=8), 'does not divide over 8 devices'),
        (dict(updates__freeze="('haed',)"), "'haed' matches no parameter; the nearest paths are head"),
        (dict(schedule__name='plateau'), 'config.minival holds training images out'),
        (dict(average__name='swa', average__start_epochs=9.0), 'start within the run'),
        (dict(mixing__per_example=True), 'neither mixup nor cutmix'),
        (dict(precise_batches=2, batch_norm__name='group_norm'), "precise_batches is 2, but 'group_norm' keeps no"),
        (dict(updates__sma=0.1), "takes no argument 'sma'; did you mean sam"),
    ],
)
def test_recipe_mistakes(smoke, overrides, message):
    with pytest.raises(UserError) as error:
        Experiment.from_config(smoke(**overrides))
    assert message in str(error.value)


def test_mixing_needs_one_class_an_image(smoke):
    source = Experiment.from_config(smoke()).source

    class Attributes:
        labels = np.zeros((5, 3), np.float32)

    wrong = dataclasses.replace(source, splits={**source.splits, 'train': Attributes()})
    with pytest.raises(UserError, match='each needs one class'):
        recipes.check_labels(smoke(mixing__mixup=0.2), wrong)
    recipes.check_labels(smoke(), wrong)


def test_a_missing_teacher_is_one_line(smoke, tmp_path):
    with pytest.raises(UserError, match='holds no run'):
        teacher.of(Experiment.from_config(smoke(distillation__teacher=tmp_path)))


@functools.cache
def alone(**options):
    """The curve on one device, in one part."""
    return curve(jnp.float64, **options)


@pytest.mark.parametrize(
    ('group_size', 'devices', 'accumulate'),
    [
        (16, 8, 1),
        (64, 1, 4),
        rest(64, 8, 1),
        rest(16, 1, 4),
        rest(16, 2, 1),
        rest(64, 2, 1),
        rest(16, 1, 2),
        rest(64, 1, 2),
        rest(16, 8, 2),
        rest(16, 2, 4),
        rest(0, 2, 1),
        rest(0, 8, 1),
    ],
)
def test_groups_of_batch_norm_give_one_curve_on_any_number_of_devices_and_in_any_number_of_parts(
    group_size, devices, accumulate
):
    with jax.enable_x64(True):
        expected, _ = alone(group_size=group_size)
        found, _ = curve(jnp.float64, group_size, devices, accumulate)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert expected[-1] < expected[0]


def test_the_groups_size_is_another_curve():
    with jax.enable_x64(True):
        assert np.abs(alone(group_size=16)[0] / alone(group_size=64)[0] - 1).max() > 1e-3


def test_accumulation_without_batch_norm_equals_the_large_batch():
    with jax.enable_x64(True):
        expected, _ = curve(jnp.float64, normalized=False, length=5)
        found, _ = curve(jnp.float64, normalized=False, length=5, accumulate=4)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sam_takes_the_gradient_uphill_and_the_statistics_of_where_it_stood():
    # One step of plain descent tells the gradient g1; from w + r * g1 / |g1| another tells g2; SAM goes by g2.
    with jax.enable_x64(True):
        options = dict(length=1, optimizer={'name': 'sgd', 'momentum': 0.0})
        start = curve(jnp.float64, **{**options, 'length': 0})[1]
        plain = curve(jnp.float64, **options)[1]
        sam = curve(jnp.float64, sam=0.5, **options)[1]
        g1 = jax.tree.map(lambda a, b: (a - b) / 0.05, start.params, plain.params)
        norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(g1)))
        up = jax.tree.map(lambda w, g: w + 0.5 * g / norm, start.params, g1)
        uphill = curve(jnp.float64, begin=up, **options)[1]
        g2 = jax.tree.map(lambda a, b: (a - b) / 0.05, up, uphill.params)
    jax.tree.map(
        lambda w, g, found: np.testing.assert_allclose(found, w - 0.05 * g, rtol=1e-9, atol=1e-12),
        start.params,
        g2,
        sam.params,
    )
    jax.tree.map(np.testing.assert_array_equal, sam.model_state, plain.model_state)
    above, here = (s.model_state['batch_stats']['norm1']['mean'] for s in (uphill, sam))
    assert np.abs(above - here).max() > 1e-4
