"""Schedules and optimizers against hand-worked sequences."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.nn.stacked import unstack
from cvresearch.optim import optimizers, schedules
from cvresearch.optim.updates import OptimizerOptions

# By hand, in 64 bits: the last bits of 32 are another processor's own.
pytestmark = pytest.mark.usefixtures('float64')


def values(spec, steps=10, per_epoch=2.0):
    schedule = schedules.make(spec, steps, per_epoch)
    return [float(schedule(step)) for step in range(steps)]


def test_cosine_by_hand():
    expected = [0.4 * 0.5 * (1 + math.cos(math.pi * t / 10)) for t in range(10)]
    assert values({'name': 'cosine', 'peak': 0.4}) == pytest.approx(expected, rel=1e-9)


def test_warm_up_rises_to_the_peak_and_the_rest_fills_the_run():
    rates = values({'name': 'cosine', 'peak': 0.4, 'warmup_epochs': 2.0})
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates[4:] == pytest.approx([0.4 * 0.5 * (1 + math.cos(math.pi * t / 6)) for t in range(6)], rel=1e-9)


def test_multistep_and_exponential_by_hand():
    drops = values({'name': 'multistep', 'peak': 1.0, 'epochs': (2, 4)})
    assert drops == pytest.approx([1] * 4 + [0.1] * 4 + [0.01] * 2)
    assert values({'name': 'exponential', 'peak': 1.0, 'every_epochs': 1.5, 'rate': 0.5}) == pytest.approx(
        [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    )


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'name': 'cosin', 'peak': 1.0}, 'did you mean cosine'),
        ({'name': 'cosine', 'peak': 1.0, 'warmup': 1}, "takes no argument 'warmup'; did you mean warmup_"),
        ({'name': 'cosine'}, "missing 1 required positional argument: 'peak'"),
        ({'name': 'cosine', 'peak': -1.0}, 'schedule.peak is -1.0'),
        ({'name': 'cosine', 'peak': 1.0, 'warmup_epochs': 5.0}, 'expected less than the run'),
        ({'name': 'multistep', 'peak': 1.0, 'epochs': (9,)}, 'expected no more than the run'),
    ],
)
def test_schedule_mistakes(spec, message):
    with pytest.raises(UserError) as error:
        values(spec)
    assert message in str(error.value)


def run(spec, gradients, rate=0.1, **options):
    tx = optimizers.make(spec, lambda step: rate, OptimizerOptions(**options))
    params = {'kernel': jnp.ones((1, 1)), 'bias': jnp.ones(1)}
    state, path = tx.init(params), []
    for g in gradients:
        updates, state = tx.update({'kernel': jnp.full((1, 1), g), 'bias': jnp.full(1, g)}, state, params)
        params = {name: params[name] + updates[name] for name in params}
        path.append((float(params['kernel'][0, 0]), float(params['bias'][0])))
    return np.array(path)


@pytest.mark.parametrize(
    ('arguments', 'mean_square', 'denominator'),
    [
        ({}, 1.0, lambda ms: math.sqrt(ms + 0.25)),  # TensorFlow's
        ({'eps_inside': False, 'initial': 0.0}, 0.0, lambda ms: math.sqrt(ms) + 0.25),  # PyTorch's
    ],
)
def test_rmsprop_with_epsilon_inside_and_outside_the_root_by_hand(arguments, mean_square, denominator):
    path = run({'name': 'rmsprop_tf', 'decay': 0.9, 'momentum': 0.5, 'eps': 0.25, **arguments}, [2.0, -1.0])
    w, velocity, expected = 1.0, 0.0, []
    for g in (2.0, -1.0):
        mean_square = 0.9 * mean_square + 0.1 * g**2
        velocity = 0.5 * velocity + 0.1 * g / denominator(mean_square)
        w -= velocity
        expected.append(w)
    assert path[:, 0] == pytest.approx(expected, rel=1e-9)


def test_sgd_with_momentum_and_l2_by_hand():
    # v = 0.9 v + g + 0.5 w; w -= 0.1 v. The bias is not decayed.
    path = run({'name': 'sgd', 'momentum': 0.9, 'weight_decay': 0.5}, [1.0, 2.0])
    v1 = 1 + 0.5
    w1 = 1 - 0.1 * v1
    v2 = 0.9 * v1 + 2 + 0.5 * w1
    np.testing.assert_allclose(path[:, 0], [w1, w1 - 0.1 * v2], rtol=1e-9)
    np.testing.assert_allclose(path[:, 1], [0.9, 0.9 - 0.1 * 2.9], rtol=1e-9)


def test_adamw_by_hand():
    # The first step of Adam is the sign of the gradient; the decay is apart from it.
    path = run({'name': 'adamw', 'weight_decay': 0.5}, [3.0])
    np.testing.assert_allclose(path, [[1 - 0.1 * (1 + 0.5), 0.9]], rtol=1e-9)


def test_clipping_by_the_global_norm():
    path = run({'name': 'sgd', 'momentum': 0.0}, [3.0], clip_norm=1.0)  # norm 3 * sqrt(2)
    np.testing.assert_allclose(path, 1 - 0.1 / math.sqrt(2), rtol=1e-9)


@pytest.mark.parametrize('name', optimizers.OPTIMIZERS)
def test_stacked_blocks_are_updated_like_single_ones(name):
    # Stacked, the scale and the bias have two axes, and the gain has one.
    shapes = {'block1-3': {'kernel': (3, 2, 2), 'scale': (3, 2), 'bias': (3, 2), 'gain': (3,)}, 'head': {'bias': (2,)}}
    random = np.random.default_rng(0)

    def values():
        return jax.tree.map(random.standard_normal, shapes, is_leaf=lambda node: isinstance(node, tuple))

    params, gradients = values(), values()
    tx = optimizers.make({'name': name, 'weight_decay': 0.5}, lambda step: 0.1)

    def update(params, gradients):
        return tx.update(gradients, tx.init(params), params)[0]

    stacked = unstack(jax.device_get(update(params, gradients)))
    # Norms of layers are summed in another order.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    jax.tree.map(close, stacked, update(unstack(params), unstack(gradients)))
