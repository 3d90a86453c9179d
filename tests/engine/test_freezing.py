"""Frozen parts: their bits and statistics stay, they have neither gradients nor moments, and when they learn again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cvresearch
from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base import trees
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import read_card
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.models import registry
from cvresearch.nn.overrides import frozen_in
from cvresearch.nn.stacked import unstack
from tests.seams import at_step

FROZEN = "('stem_conv', 'stage1_block0')"


def tiny(feature='plain', **overrides):
    """Returns the configuration of the kill matrix' net: stem_conv, stage1_block0, last_norm, head."""
    more = {key.replace('__', '.'): str(value) for key, value in overrides.items()}
    return configs.load(f'tests/kill_config.py:{feature}', more)


def leaves(state):
    tree = unstack(jax.device_get({'params': state.params, **state.model_state}))
    return dict(trees.named_leaves(tree))


def ended(config, workdir):
    """Trains; returns the leaves at the start, and the state at the end."""
    experiment = Experiment.from_config(config)
    before = leaves(experiment.initial_state())
    assert train.run(config, workdir) == 0
    return before, Checkpoints(workdir / 'checkpoints', read_only=True).restore(experiment.abstract_state())


@pytest.mark.parametrize(
    'more',
    [{}, dict(updates__accumulate=4), dict(precise_batches=3), dict(updates__sam=0.05)],
    ids=['plain', 'parts', 'precise', 'sam'],
)
def test_bits_of_frozen_parameters_statistics_and_averages_stay(tmp_path, more):
    config = tiny('ema', updates__freeze=FROZEN, max_steps=4, **more)
    before, state = ended(config, tmp_path / 'run')
    frozen = [path for path in before if any(f'/{name}/' in path for name in ('stem_conv', 'stage1_block0'))]
    for after in (leaves(state), leaves(state.averaged())):
        changed = {path for path in before if not np.array_equal(before[path], after[path])}
        assert changed == set(before) - set(frozen)
    assert any('batch_stats/stage1_block0' in path for path in frozen)


def test_frozen_mode_train_lets_statistics_go_on_as_before(tmp_path):
    before, state = ended(tiny(updates__freeze=FROZEN, max_steps=2, updates__frozen='train'), tmp_path / 'run')
    after = leaves(state)
    changed = [path for path in before if 'stage1_block0' in path and not np.array_equal(before[path], after[path])]
    assert changed and all(path.startswith('batch_stats') for path in changed)


def test_what_is_frozen_for_good_has_no_moments_and_no_gradients():
    whole, part = (Experiment.from_config(tiny(updates__freeze=freeze)) for freeze in ('()', FROZEN))
    moments = [dict(trees.named_leaves(each.abstract_state().opt_state)) for each in (whole, part)]
    assert not any('stem_conv' in path or 'stage1_block0' in path for path in moments[1])
    assert any('stem_conv' in path for path in moments[0]) and any('head' in path for path in moments[1])
    assert [_convolutions(each) for each in (whole, part)] == [5, 2]  # 2 forward, 2 for their kernels, 1 for an input


def _convolutions(experiment):
    """Returns the convolutions of an update."""
    batch = dict(
        image=jnp.zeros((8, 8, 8, 1), jnp.uint8),
        label=jnp.zeros(8, jnp.int32),
        epoch=jnp.zeros(8, jnp.int32),
        index=jnp.zeros(8, jnp.int32),
    )
    text = str(jax.make_jaxpr(experiment.train_step().__wrapped__)(experiment.abstract_state(), batch))
    return text.count('= conv2d')


@pytest.mark.parametrize('first', [3, 6])
def test_thawed_part_learns_from_its_epoch_on_and_not_one_update_before(tmp_path, first):
    # 16 updates in an epoch: the schedule of allennlp#4443 was off by one.
    freeze = f"(('stage1_block0', {first / 16}), 'stem_conv')"
    config = tiny(updates__freeze=freeze, save_every_epochs=1 / 16, keep=20)
    before, _ = ended(config, tmp_path / 'run')
    checkpoints = Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True)
    like = Experiment.from_config(config).abstract_state()
    changed, of_block = [], [path for path in before if 'stage1_block0' in path]
    for step in range(1, first + 2):
        after = leaves(checkpoints.restore(like, step))
        changed.append([path for path in of_block if not np.array_equal(before[path], after[path])])
    assert changed == [[]] * first + [of_block]


def test_thaw_after_the_end_and_a_run_that_learns_nothing_are_refused(tmp_path):
    with pytest.raises(UserError, match=r'learn from epoch 3 on, step 48, and the run has 16 steps'):
        train.run(tiny(updates__freeze="(('stem_conv', 3.0),)"), tmp_path / 'run')
    with pytest.raises(UserError, match='freezes every parameter'):
        train.run(tiny(updates__freeze="('.*',)"), tmp_path / 'run')
    with pytest.raises(UserError, match=r'unknown updates\.frozen'):
        Experiment.from_config(tiny(updates__frozen='eval'))
    assert not (tmp_path / 'run').exists()


def test_run_killed_at_a_thaw_continues_bit_for_bit(tmp_path, monkeypatch):
    config = tiny(updates__freeze="(('stage1_block0', 0.25), ('stem_conv', 0.5))")
    assert train.run(config, tmp_path / 'alone') == 0
    for step in (4, 8):
        with monkeypatch.context() as patch:
            at_step(patch, step)
            assert train.run(config, tmp_path / 'killed') == PREEMPTED
    assert train.run(config, tmp_path / 'killed') == 0
    assert len({read_card(tmp_path / name)['params_sha256'] for name in ('alone', 'killed')}) == 1


@pytest.mark.parametrize(
    ('name', 'arguments', 'frozen', 'random'),
    [
        ('efficientnet_b0', dict(width=0.1, depth=0.1, stochastic_depth=0.5, dropout=0.5), 'all', False),
        ('efficientnet_b0', dict(width=0.1, depth=0.1, stochastic_depth=0.5, dropout=0.5), 'stages', True),
        ('dm_nfnet_f0', dict(depths=(2, 0, 0, 0), widths=(8,) * 4, stem_width=8, stochastic_depth=0.5), 'all', False),
        ('alexnet_2012', dict(), 'all', False),
    ],
)
def test_dropout_and_stochastic_depth_are_off_in_what_is_frozen(name, arguments, frozen, random):
    model = registry.build(name, 3, **arguments)
    side = 224 if 'alexnet' in name else 32
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    modules = {path.rpartition('/')[0].partition('/')[0] for path, _ in trees.named_leaves(variables['params'])}
    modules -= {'head'} if frozen == 'all' else {'head', 'last_conv', 'last_bn'}
    net = frozen_in(model, frozenset(modules))
    state = [key for key in variables if key != 'params']
    outputs = [
        net.apply(variables, images, train=True, mutable=state, rngs={'dropout': jax.random.key(seed)})[0]
        for seed in (1, 2)
    ]
    assert np.array_equal(*outputs) != random
    if not random:
        assert np.allclose(outputs[0], model.apply(variables, images), atol=1e-5)


def test_loop_of_ones_own_with_frozen_parts_keeps_their_bits_and_statistics():
    module = registry.build('resnet18', 3, stage_sizes=(1,))
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    variables = module.init(jax.random.key(0), images)
    net, labels = cvresearch.freeze(module, variables['params'], ['stem_.*', 'stage1_.*'])
    assert {path.split('/')[0] for path, label in trees.named_leaves(labels) if label == 'learns'} == {'head'}
    tx = optax.partition({'learns': optax.sgd(0.1), 'frozen': optax.set_to_zero()}, labels)

    def loss(params):
        rest = {'batch_stats': variables['batch_stats']}
        logits, state = net.apply({'params': params, **rest}, images, train=True, mutable=['batch_stats'])
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4) % 3).mean(), state

    gradients, state = jax.grad(loss, has_aux=True)(variables['params'])
    updates, _ = tx.update(gradients, tx.init(variables['params']), variables['params'])
    before, after = (
        {'params': x, **y}
        for x, y in (
            (variables['params'], variables),
            (optax.apply_updates(variables['params'], updates), state),
        )
    )
    pairs = zip(trees.named_leaves(before), trees.named_leaves(after), strict=True)
    changed = {path for (path, old), (_, new) in pairs if not np.array_equal(old, new)}
    assert changed == {'params/head/bias', 'params/head/kernel'}


def test_freeze_refuses_a_pattern_that_matches_nothing_and_a_net_that_learns_nothing():
    module = registry.build('lenet5', 3)
    params = module.init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))['params']
    with pytest.raises(UserError, match=r"updates\.freeze.*'steam.*' matches no parameter"):
        cvresearch.freeze(module, params, ['steam'])
    with pytest.raises(UserError, match='freezes every parameter'):
        cvresearch.freeze(module, params, ['.*'])
