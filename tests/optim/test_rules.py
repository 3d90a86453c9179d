"""Rules of the recipes against sequences worked by hand, and against PyTorch where it has the rule."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.optim import averages, optimizers, param_filters, plateau, schedules
from cvresearch.optim.updates import PLAIN, OptimizerOptions

# By hand, in 64 bits: the last bits of 32 are another processor's own.
pytestmark = pytest.mark.usefixtures('float64')
PYTORCH = json.loads(Path(__file__).with_name('pytorch.json').read_text())  # pytorch_sequences.py


def values(spec, steps, per_epoch):
    schedule = schedules.make(spec, steps, per_epoch)
    return [float(schedule(step)) for step in range(steps)]


def run(spec, gradients, params=None, options=PLAIN, **extra):
    """Returns the parameters after each update, at a learning rate of 0.1."""
    tx = optimizers.make(spec, lambda step: 0.1, options)
    params = {'kernel': jnp.ones((1, 1))} if params is None else params
    state, path = tx.init(params), []
    for gradient in gradients:
        if not isinstance(gradient, dict):
            gradient = jax.tree.map(lambda p, g=gradient: jnp.broadcast_to(jnp.asarray(g, p.dtype), p.shape), params)
        updates, state = tx.update(gradient, state, params, **extra)
        params = jax.tree.map(jnp.add, params, updates)
        path.append(params)
    return path


def test_rmsprop_is_tensorflows():
    # ms: 1 -> 0.9 + 0.1 * 4 = 1.3 -> 0.9 * 1.3 + 0.1 * 1 = 1.27; epsilon 0.5 in the root, the rate in the momentum.
    first = 0.1 * 2 / math.sqrt(1.3 + 0.5)
    second = 0.9 * first + 0.1 * -1 / math.sqrt(1.27 + 0.5)
    path = run({'name': 'rmsprop_tf', 'eps': 0.5}, [2.0, -1.0])
    np.testing.assert_allclose([p['kernel'].item() for p in path], [1 - first, 1 - first - second], rtol=1e-9)


@pytest.mark.parametrize(
    'spec',
    [
        {'name': 'sgd', 'nesterov': True, 'weight_decay': 0.3},
        {'name': 'adam', 'weight_decay': 0.3},
        {'name': 'adamw', 'weight_decay': 0.3},
        {'name': 'adagrad', 'eps': 0.0},
    ],
    ids=lambda spec: spec['name'],
)
def test_optimizers_equal_pytorchs(spec):
    path = run(spec, PYTORCH['gradients'])
    np.testing.assert_allclose([p['kernel'].item() for p in path], PYTORCH[spec['name']], rtol=1e-9)


def test_lars_by_hand():
    # |w| = 5, |g| = 1: rate 0.1 * 0.5 * 5 / (1 + 0.2 * 5) = 0.125 of g + 0.2 w. The bias has the global rate.
    params = {'kernel': jnp.array([[3.0], [4.0]]), 'bias': jnp.array([2.0])}
    tx = optimizers.make({'name': 'lars', 'trust': 0.5, 'weight_decay': 0.2, 'momentum': 0.0}, lambda step: 0.1)
    gradients = {'kernel': jnp.array([[1.0], [0.0]]), 'bias': jnp.array([1.0])}
    updates, _ = tx.update(gradients, tx.init(params), params)
    np.testing.assert_allclose(updates['kernel'][:, 0], [-0.125 * 1.6, -0.125 * 0.8], rtol=1e-9)
    np.testing.assert_allclose(updates['bias'], [-0.1], rtol=1e-9)


def test_lamb_and_lion_by_hand():
    # Adam's first step is the sign: (1, 1), plus 0.5 * (3, 4), made as long as the weights.
    params = {'kernel': jnp.array([[3.0], [4.0]])}
    direction = np.array([1 + 1.5, 1 + 2.0])
    expected = [3, 4] - 0.1 * 5 * direction / np.linalg.norm(direction)
    (lamb,) = run({'name': 'lamb', 'weight_decay': 0.5, 'eps': 0.0}, [7.0], params)
    np.testing.assert_allclose(lamb['kernel'][:, 0], expected, rtol=1e-9)
    # sign(0.9 * m + 0.1 * g): m is 0.02 after the first step, 0.018 - 0.1 < 0; then 0.0098, and 0.00882 - 0.001 > 0.
    lion = run({'name': 'lion', 'weight_decay': 0.0}, [2.0, -1.0, -0.01], params)
    assert [round(p['kernel'][0, 0].item(), 4) for p in lion] == [2.9, 3.0, 2.9]


@pytest.mark.parametrize('name', ['muon', 'muon_published'])
def test_muons_step_is_nearly_orthogonal(name):
    gradients = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 4, 8)), jnp.float32)
    params = {'conv': {'kernel': jnp.zeros((3, 3, 4, 8))}, 'head': {'kernel': jnp.zeros((4, 8))}}
    tx = optimizers.make({'name': name, 'weight_decay': 0.0}, lambda step: 1.0)
    gradients = {'conv': {'kernel': gradients}, 'head': {'kernel': gradients[0, 0]}}
    updates, _ = jax.jit(tx.update)(gradients, tx.init(params), params)
    singular = np.linalg.svd(np.asarray(updates['conv']['kernel']).reshape(36, 8), compute_uv=False)
    assert singular.min() > 0.6 and singular.max() < 1.3
    np.testing.assert_allclose(np.abs(updates['head']['kernel']), 1, rtol=1e-4)  # Adam's first step


def published_muon(gradients, rate=0.1, beta=0.95, decay=0.2):
    """The published rule, of KellerJordan/Muon, line by line, in float64 on (outputs, inputs); weights begin at 1."""
    p = np.ones_like(gradients[0])
    momentum = np.zeros_like(p)
    for g in gradients:
        momentum = momentum + (g - momentum) * (1 - beta)  # momentum.lerp_(grad, 1 - beta)
        update = g + (momentum - g) * beta  # grad.lerp_(momentum, beta)
        x = update.T if update.shape[0] > update.shape[1] else update
        x = x / (np.linalg.norm(x) + 1e-7)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        x = x.T if update.shape[0] > update.shape[1] else x
        p = p * (1 - rate * decay) - rate * max(1, x.shape[0] / x.shape[1]) ** 0.5 * x
    return p


@pytest.mark.parametrize('shape', [(3, 5), (6, 2)])
def test_muon_published_is_the_published_rule(shape):
    gradients = np.random.default_rng(0).standard_normal((4, *shape))
    expected = published_muon(gradients)
    steps = {}
    for name in ('muon', 'muon_published'):
        start = {'kernel': jnp.ones(shape[::-1])}  # (inputs, outputs)
        path = run({'name': name, 'weight_decay': 0.2}, [{'kernel': g.T} for g in gradients], start)
        steps[name] = path[-1]['kernel'].T
    np.testing.assert_allclose(steps['muon_published'], expected, rtol=1e-7)
    assert np.abs(steps['muon'] - expected).max() > 1e-3  # Optax corrects the bias


def test_adaptive_gradient_clipping_by_hand():
    # Units are columns: norms of weights 5 and 0 (counted as 0.001 at least), of gradients 1 and 0.5. The head is left.
    params = {'conv': {'kernel': jnp.array([[3.0, 0], [4, 0]])}, 'head': {'kernel': jnp.array([[3.0, 0], [4, 0]])}}
    gradient = jnp.array([[1.0, 0.0], [0.0, 0.5]])
    tx = optimizers.make({'name': 'sgd', 'momentum': 0.0}, lambda step: 1.0, OptimizerOptions(agc=0.1))
    updates, _ = tx.update({name: {'kernel': gradient} for name in params}, tx.init(params), params)
    np.testing.assert_allclose(updates['conv']['kernel'], [[-0.5, 0], [0, -0.0001]], rtol=1e-9)
    np.testing.assert_allclose(updates['head']['kernel'], -gradient)


NAMES = {
    'stem': {'kernel': (2, 2)}, 'stage1_block1-3': {'kernel': (3, 2, 2), 'bias': (3, 2)}, 'head': {'kernel': (2, 2)},
}  # fmt: skip


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(freeze=('stem', 'stage1_block[12]')), {'stem': 0, 'stage1_block1-3': (0, 0, 1), 'head': 1}),
        (dict(freeze=(('stem', 2.0),)), {'stem': (0, 0, 1), 'stage1_block1-3': (1, 1, 1), 'head': 1}),
        (dict(lr_scale=(('stage1_block2', 3.0),)), {'stem': 1, 'stage1_block1-3': (1, 3, 1), 'head': 1}),
        (
            dict(layer_decay=0.5, layers=('stem', 'stage1_block1', 'stage1_block2', 'stage1_block3', 'head')),
            {'stem': 1 / 16, 'stage1_block1-3': (1 / 8, 1 / 4, 1 / 2), 'head': 1},
        ),
    ],
)
def test_rates_by_path_reach_into_stacked_blocks(options, expected):
    params = jax.tree.map(jnp.ones, NAMES, is_leaf=lambda node: isinstance(node, tuple))
    path = run({'name': 'sgd', 'momentum': 0.0, 'weight_decay': 0.0}, [1.0] * 3, params, OptimizerOptions(**options))
    before = [params, *path[:-1]]
    for number, (old, new) in enumerate(zip(before, path, strict=True)):
        for name, factor in expected.items():
            thawed = factor[number] if name == 'stem' and isinstance(factor, tuple) else factor
            for leaf in old[name]:
                step = np.asarray(old[name][leaf] - new[name][leaf])
                each = np.reshape(thawed, (-1, *[1] * (step.ndim - 1))) if name.startswith('stage') else thawed
                np.testing.assert_allclose(step, 0.1 * np.broadcast_to(each, step.shape), atol=1e-12)


def test_a_pattern_that_matches_nothing_shows_the_nearest_paths():
    params = jax.tree.map(jnp.ones, NAMES, is_leaf=lambda node: isinstance(node, tuple))
    with pytest.raises(UserError, match=r"freeze: 'stage1_blok2' matches no parameter.*stage1_block2"):
        optimizers.make({'name': 'sgd'}, lambda step: 0.1, OptimizerOptions(freeze=('stage1_blok2',))).init(params)
    assert param_filters.matches('stage1_block1', 'stage1_block1/kernel')
    assert not param_filters.matches('stage1_block1', 'stage1_block10/kernel')


@pytest.mark.parametrize('t_mult', [1, 2])
def test_sgdr_around_each_restart(t_mult):
    # Equation 5, in exact steps: T_0 = 2 epochs of 5 steps, T_i = T_0 * T_mult ** i.
    spec = {'name': 'sgdr', 'peak': 0.5, 't_0_epochs': 2.0, 't_mult': float(t_mult), 'end': 0.1}
    expected, ends, length = [], [], 10
    while len(expected) < 40:
        expected += [0.1 + 0.5 * 0.4 * (1 + math.cos(math.pi * t / length)) for t in range(length)]
        ends.append(len(expected))
        length *= t_mult
    assert values(spec, 40, 5.0) == pytest.approx(expected[:40], rel=1e-9)
    assert schedules.cycle_ends(spec, 40, 5.0) == tuple(end for end in ends if end <= 40)
    for end in schedules.cycle_ends(spec, 40, 5.0)[:-1]:
        assert values(spec, 40, 5.0)[end] == pytest.approx(0.5)


def test_exponential_staircase_begins_with_the_run_and_not_after_the_warm_up():
    # EfficientNet's: every 2.4 epochs of 5 steps is every 12 steps; of the first 12 a warm-up replaces 10.
    spec = {'name': 'exponential', 'peak': 1.0, 'every_epochs': 2.4, 'rate': 0.97, 'warmup_epochs': 2.0}
    rates = values(spec, 30, 5.0)
    expected = [(t + 1) / 10 for t in range(10)] + [0.97 ** (t // 12) for t in range(10, 30)]
    assert rates == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('shape', ['cos', 'linear'])
@pytest.mark.parametrize(('steps', 'rise'), [(40, 0.3), (7, 0.25), (3, 0.2)])  # the peak at a step, and between two
def test_one_cycle_equals_pytorchs_from_the_first_step_to_the_last(shape, steps, rise):
    spec = {'name': 'one_cycle', 'peak': 0.4, 'rise': rise, 'shape': {'cos': 'cosine'}.get(shape, shape)}
    # A float32 cosine near its end is exact to 1e-7 of the peak, not of the last rate, a 250,000th of it.
    assert values(spec, steps, 5.0) == pytest.approx(PYTORCH[f'one_cycle {shape} {steps} {rise}'], rel=1e-5, abs=4e-8)


@pytest.mark.parametrize('warmup', [{'warmup_epochs': 1.0}, {'warmup_steps': 3}], ids=str)
def test_one_cycle_takes_no_warm_up_beside_its_own_rise(warmup):
    with pytest.raises(UserError, match=r'rise of its own .* set schedule.warmup_epochs and .* to 0'):
        schedules.make({'name': 'one_cycle', 'peak': 0.4, **warmup}, 40, 5.0)


def test_trapezoid_polynomial_and_batch_scaling_by_hand():
    spec = {'name': 'trapezoid', 'peak': 1.0, 'decay_epochs': 2.0, 'warmup_steps': 2}
    assert values(spec, 10, 2.0) == pytest.approx([0.5] + [1.0] * 6 + [0.75, 0.5, 0.25])
    spec = {'name': 'polynomial', 'peak': 1.0, 'power': 2.0, 'end': 0.2}
    assert values(spec, 4, 2.0) == pytest.approx([0.2 + 0.8 * (1 - t / 4) ** 2 for t in range(4)])
    for scaling, factor in (('linear', 4), ('sqrt', 2)):
        spec = {'name': 'step', 'peak': 0.1, 'every_epochs': 1.0, 'batch_scaling': scaling}
        assert [float(schedules.make(spec, 4, 2.0, 1024)(t)) for t in range(4)] == pytest.approx(
            [0.1 * factor] * 2 + [0.01 * factor] * 2
        )


@pytest.mark.parametrize(
    'spec',
    [
        dict(name='sgdr', t_0_epochs=6.0),
        dict(name='step', every_epochs=6.0),
        dict(name='multistep', epochs=(2, 6)),
        dict(name='trapezoid', decay_epochs=6.0),
        dict(name='trapezoid', decay_epochs=4.0, warmup_epochs=2.0),
    ],
)
def test_a_schedule_longer_than_the_run_is_refused(spec):
    with pytest.raises(UserError, match=r'(expected no more than|longer than) the run'):
        schedules.make({'peak': 1.0, **spec}, 10, 2.0)


@pytest.mark.parametrize(('patience', 'cooldown', 'least_gain'), [(0, 0, 0.0), (2, 0, 0.0), (1, 2, 0.5)])
def test_plateau_equals_pytorchs(patience, cooldown, least_gain):
    rule = plateau.Plateau(patience=patience, cooldown=cooldown, least_gain=least_gain)
    rows = [{'top1': accuracy} for accuracy in PYTORCH['accuracies']]
    scales = [rule.after(rows[: n + 1])['scale'] for n in range(len(rows))]
    assert scales == pytest.approx(PYTORCH[f'plateau {patience} {cooldown} {least_gain}'])
    assert scales[-1] < 1


def test_plateau_scales_the_rate_inside_the_momentum():
    path = run({'name': 'rmsprop_tf', 'eps': 0.5}, [2.0], rate_scale=0.5)
    np.testing.assert_allclose(path[0]['kernel'].item(), 1 - 0.5 * 0.1 * 2 / math.sqrt(1.8), rtol=1e-9)


@pytest.mark.parametrize(
    ('spec', 'expected'),
    [
        # tf.train.ExponentialMovingAverage: decays 1/10, 2/11, 3/12, then 0.3.
        (dict(name='ema', decay=0.3), [0.9 * 1, 1 / 11 * 2 * 0.9 + 9 / 11 * 2, None, None]),
        (dict(name='ema', decay=0.3, warmup=False), [0.7, 0.3 * 0.7 + 0.7 * 2, None, None]),
        # Steps of which two make an epoch; from epoch 1 on, every epoch: after the updates 2 and 4.
        (dict(name='swa', start_epochs=1.0), [1, 2, 2, (2 + 4) / 2]),
        (dict(name='polyak', start_epochs=0.5), [1, 1.5, 2, 2.5]),
    ],
)
def test_averages_by_hand(spec, expected):
    part, average, found = averages.make(spec, 8, 2.0), 0.0, []
    for n, weight in enumerate([1.0, 2.0, 3.0, 4.0]):
        average += float(part(n)) * (weight - average)
        found.append(average)
    if spec.get('warmup', True) and spec['name'] == 'ema':
        third = 0.25 * expected[1] + 0.75 * 3
        expected = [*expected[:2], third, 0.3 * third + 0.7 * 4]
    elif spec['name'] == 'ema':
        expected = [*expected[:2], 0.3 * expected[1] + 0.7 * 3, 0.09 * expected[1] + 0.3 * 0.7 * 3 + 0.7 * 4]
    assert found == pytest.approx(expected)
