"""Learning from images without labels: what is added to the loss, runs that use it, kills, meshes, bad input."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch import train
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import read_card, read_metrics
from cvresearch.engine import augment, steps
from cvresearch.engine import state as states
from cvresearch.engine.classifiers import load
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.methods import table as methods
from cvresearch.engine.methods.consistency import fixmatch, uda
from cvresearch.engine.methods.meta_pseudo_labels import MetaPseudoLabels
from cvresearch.engine.methods.pseudo_labels import PseudoLabels
from cvresearch.objectives import losses, unlabelled
from cvresearch.objectives.tasks import SINGLE
from cvresearch.objectives.unlabelled import of_own_classes, of_own_distributions
from cvresearch.optim import optimizers
from tests.engine.curves import Small
from tests.environment import QUICK
from tests.seams import at_step

rest = functools.partial(pytest.param, marks=pytest.mark.slow)
METHODS = {
    'pseudo_labels': dict(begin_epochs=0.5, full_epochs=1.0),
    'fixmatch': dict(threshold=0.3),
    'uda': dict(threshold=0.3, warmup_steps=4),
    'meta_pseudo_labels': dict(wait_steps=2, uda_warmup_steps=4),
}


def semi(smoke, name, **overrides):
    """The smoke run with 64 labels of 128 images in batches of 8: 8 updates, with all that may be in the state."""
    method = {f'method__{key}': value for key, value in METHODS[name].items()}
    return smoke(
        **{
            'data__train': 256,
            'data__labels': 64,
            'batch_size': 8,
            'epochs': 1.0,
            'unlabelled__name': 'rest',
            'unlabelled__ratio': 2,
            'unlabelled__cutout': 6,
            'method__name': name,
            **method,
            'average__name': 'ema',
            'evaluate_every_epochs': 0.5,
            'save_every_epochs': 0.25,
            **overrides,
        }
    )


@pytest.mark.parametrize('name', ['meta_pseudo_labels', *map(rest, ('pseudo_labels', 'fixmatch', 'uda'))])
def test_a_run_that_is_killed_comes_out_the_same(smoke, tmp_path, monkeypatch, name):
    assert train.run(semi(smoke, name), tmp_path / 'alone') == 0
    with monkeypatch.context() as patch:
        at_step(patch, (3, 6))
        assert train.run(semi(smoke, name), tmp_path / 'run') == PREEMPTED
        assert train.run(semi(smoke, name), tmp_path / 'run') == PREEMPTED
    assert train.run(semi(smoke, name), tmp_path / 'run') == 0
    last = str(read_card(tmp_path / 'alone')['step'])
    digests = {
        json.loads((tmp_path / run / 'checkpoints' / last / 'record/metadata').read_text())['sha256']
        for run in ('alone', 'run')
    }
    assert len(digests) == 1 and last == '8'
    shown = [
        [row['sha256'] for row in read_metrics(tmp_path / run / 'metrics.jsonl') if row['split'] == 'data']
        for run in ('alone', 'run')
    ]
    assert shown[0] == shown[1] != []
    assert read_card(tmp_path / 'run')['dataset']['unlabelled']['examples'] == 192
    assert load(f'run:{tmp_path / "run"}').num_classes == 10


def test_pseudo_labels_by_hand():
    """Two images, two classes: log-odds 2 and -0.5. The classes are 0 and 1; the second is sure at 62 %."""
    logits = jnp.array([[2.0, 0.0], [0.0, 0.5]])
    of_first, of_second = np.log1p(np.exp(-2.0)), np.log1p(np.exp(-0.5))
    assert of_own_classes(logits, logits, 0.0) == pytest.approx((of_first + of_second) / 2)
    assert of_own_classes(logits, logits, 0.7) == pytest.approx(of_first / 2)
    # UDA: sharpened by a temperature of 1/2 the first has log-odds 4; the gradient does not flow into the guess.
    sharp = 1 / (1 + np.exp(-4.0))
    expected = (sharp * of_first + (1 - sharp) * (of_first + 2)) / 2
    assert of_own_distributions(logits, logits, 0.7, 0.5) == pytest.approx(expected)
    assert not jax.grad(of_own_distributions)(logits, logits + 1, 0.0, 0.5).any()


def test_a_ramp_is_flat_then_rises_then_is_flat():
    assert [float(unlabelled.ramp(step, 100, 300)) for step in (0, 100, 150, 300, 900)] == [0, 0, 0.25, 1, 1]
    assert [float(unlabelled.ramp(step, 5, 5)) for step in (4, 6)] == [0, 1]


def test_groups_are_interleaved_and_come_apart_again():
    groups = [jnp.arange(4), 10 + jnp.arange(8), 100 + jnp.arange(4)]
    joined = unlabelled.interleaved(4, groups)
    assert joined[:4].tolist() == [0, 10, 11, 100]  # a quarter of each in the first quarter
    apart = unlabelled.separated(4, [4, 8, 4], joined)
    assert all((a == b).all() for a, b in zip(apart, groups, strict=True))


def pixels(number):
    random = np.random.default_rng(number)

    def group(size, **more):
        known = dict(epoch=np.full(size, number, np.int32), index=np.arange(size, dtype=np.int32))
        return {'image': random.integers(0, 256, (size, 6, 6, 1)).astype(np.uint8), **known, **more}

    strong = random.integers(0, 256, (32, 6, 6, 1)).astype(np.uint8)
    label = random.integers(0, 10, 16).astype(np.int32)
    return group(16, label=label) | {'unlabelled': group(32, strong=strong, label=np.full(32, -1, np.int32))}


def after(method, devices, updates=4, dtype=np.float64, **options):
    """Returns the state after some updates of a net with batch norm."""
    model, tx = Small(dtype), optimizers.make({'name': 'sgd', 'momentum': 0.9}, lambda step: 0.05)
    loss = losses.make({'name': 'softmax_cross_entropy'})
    parts = steps.UpdateParts(
        model,
        tx,
        loss,
        augment.Augment(shift=1),
        (0.5,),
        (0.25,),
        steps.UpdateOptions(**options),
        SINGLE,
        lambda step: 0.05,
    )
    mesh = meshes.make_mesh(devices)
    whole = meshes.replicated(mesh)
    step = jax.jit(
        method.make_train_step(parts),
        in_shardings=(whole, meshes.by_example(mesh)),
        out_shardings=whole,
        compiler_options=QUICK,
    )
    shape = (6, 6, 1)
    begin = functools.partial(states.create, model, tx, shape, average='average' in options, skips='skip' in options)
    whole_state = lambda seed: begin(seed, method=method.initial(model, tx, shape, seed))  # noqa: E731
    state = jax.jit(whole_state, compiler_options=QUICK)(np.uint32(0))
    state = jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)
    for number in range(updates):
        state = step(state, pixels(number))
    return jax.device_get(state)


MADE = {
    'pseudo_labels': PseudoLabels(1.0, begin_epochs=0, full_epochs=2), 'fixmatch': fixmatch(0.1),
    'uda': uda(0.1), 'mpl': MetaPseudoLabels(wait_steps=1, uda_warmup_steps=2, uda_threshold=0.1),
    'mpl, dot': MetaPseudoLabels(feedback='dot_product', labels='argmax', wait_steps=0, uda_warmup_steps=2),
}  # fmt: skip


@pytest.mark.parametrize('name', ['mpl', *map(rest, ('pseudo_labels', 'fixmatch', 'uda', 'mpl, dot'))])
def test_1_and_8_devices_agree(float64, name):
    one, eight = after(MADE[name], 1), after(MADE[name], 8)
    for a, b in zip(*(jax.tree.leaves((x.params, x.model_state, x.method)) for x in (one, eight)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_skipped_batch_leaves_the_teacher_too(monkeypatch):
    good = pixels

    def bad(number):
        batch = good(number)
        batch['image'] = batch['image'].astype(np.float32)
        batch['unlabelled']['strong'] = (
            np.full((32, 6, 6, 1), np.nan, np.float32)
            if number == 2
            else batch['unlabelled']['strong'].astype(np.float32)
        )
        return batch

    monkeypatch.setitem(globals(), 'pixels', bad)
    method = MADE['mpl, dot']
    two, three = (after(method, 1, updates, np.float32, skip=2) for updates in (2, 3))
    assert three.skipped['total'] == 1 and int(three.bad_step) == -1 and int(three.step) == 2
    jax.tree.map(np.testing.assert_array_equal, two.method, three.method)
    jax.tree.map(np.testing.assert_array_equal, two.params, three.params)
    stopped = after(method, 1, 3, np.float32)
    assert int(stopped.bad_step) == 2


@pytest.mark.parametrize(
    ('overrides', 'words'),
    [
        (dict(unlabelled__name='none'), ('fixmatch', 'config.unlabelled.name')),
        (dict(updates__accumulate=2), ('config.updates.accumulate',)),
        (dict(mixing__mixup=0.2), ('config.mixing.mixup',)),
        (dict(updates__sam=0.1), ('config.updates.sam',)),
        (dict(method__threshold=1.5), ('threshold is 1.5', '0 to 1')),
        (dict(method__name='fixmatsch'), ('did you mean fixmatch',)),
        (dict(unlabelled__ratio=30), ('ratio is 30', '192')),
        (dict(method__name='uda', method__threshold=0.5, method__temperature=0.0), ('temperature',)),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(smoke, tmp_path, overrides, words):
    with pytest.raises(UserError) as error:
        train.run(semi(smoke, 'fixmatch', **overrides), tmp_path / 'run')
    assert all(word in str(error.value) for word in words) and '\n' not in str(error.value)
    assert not (tmp_path / 'run').exists()


def test_what_freezes_is_named_where_it_is_no_key_of_the_file(smoke):
    config = semi(smoke, 'fixmatch')
    with config.unlocked():
        config.finetune = dict(name='probe')
        config.updates.freeze = ('conv1',)  # as that method of finetuning has it
    with pytest.raises(UserError, match=r'no config.updates.freeze \(config.finetune.name=probe sets it\)'):
        methods.make(config, 8.0)


def test_images_without_labels_and_no_use_for_them_is_an_error(smoke, tmp_path):
    with pytest.raises(UserError, match='no use for images without labels'):
        train.run(smoke(data__labels=64, unlabelled__name='rest'), tmp_path / 'run')


def test_supervised_is_as_it_was(smoke):
    experiment = Experiment.from_config(smoke())
    assert experiment.abstract_state().method == {} and experiment.source.unlabelled is None
