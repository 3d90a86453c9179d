"""Norms against their formulas in NumPy, and against Flax where it has them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.engine.recipes import population
from cvresearch.models import registry
from cvresearch.nn import norms
from cvresearch.nn.norms import BatchNorm, Normalization
from cvresearch.nn.overrides import Net

X = np.random.default_rng(0).standard_normal((8, 3, 3, 6)).astype(np.float32) * 2 + 1
STATISTICS = {'mean': np.linspace(-1, 1, 6, dtype=np.float32), 'var': np.linspace(0.5, 2, 6, dtype=np.float32)}
AFFINE = {'scale': jnp.ones(6), 'bias': jnp.zeros(6)}


def normalized(how, extra=None, **arguments):
    variables = {'params': AFFINE, 'batch_stats': {**STATISTICS, **(extra or {})}}
    y, state = BatchNorm(train=True, momentum=0.9, **arguments).apply(variables, X, how, mutable=['batch_stats'])
    return np.asarray(y), state['batch_stats']


def test_groups_are_normalised_by_themselves_and_the_statistics_are_their_mean():
    y, state = normalized(Normalization(group_size=4))
    halves = X.reshape(2, 4, 3, 3, 6)
    mean, var = halves.mean((1, 2, 3)), halves.var((1, 2, 3))
    expected = (halves - mean[:, None, None, None]) / np.sqrt(var[:, None, None, None] + 1e-5)
    np.testing.assert_allclose(y, expected.reshape(X.shape), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state['mean'], 0.9 * STATISTICS['mean'] + 0.1 * mean.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state['var'], 0.9 * STATISTICS['var'] + 0.1 * var.mean(0), rtol=1e-5)
    _, unbiased = normalized(Normalization(group_size=4), unbiased=True)
    np.testing.assert_allclose(unbiased['var'], 0.9 * STATISTICS['var'] + 0.1 * 36 / 35 * var.mean(0), rtol=1e-5)


@pytest.mark.parametrize(('step', 'r_max', 'd_max'), [(0, 1, 0), (10, 1, 0), (15, 1.25, 0.5), (99, 1.5, 0.5)])
def test_batch_renormalisation_is_algorithm_1(step, r_max, d_max):
    how = norms.make(dict(name='batch_renorm', r_max=1.5, d_max=0.5, begin_steps=10, r_steps=20, d_steps=15))
    y, state = normalized(how, {'steps': np.float32(step)})
    mean, deviation = X.mean((0, 1, 2)), np.sqrt(X.var((0, 1, 2)) + 1e-5)
    running = np.sqrt(STATISTICS['var'] + 1e-5)
    r = np.clip(deviation / running, 1 / r_max, r_max)
    d = np.clip((mean - STATISTICS['mean']) / running, -d_max, d_max)
    np.testing.assert_allclose(y, (X - mean) / deviation * r + d, rtol=1e-4, atol=1e-5)
    assert state['steps'] == step + 1


def test_group_norm_is_flax_s():
    y, _ = normalized(Normalization('group_norm', channel_groups=4))  # and 6 channels: 2 groups
    expected = nn.GroupNorm(2, epsilon=1e-5).apply({'params': AFFINE}, X)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_population_of_several_batches_is_that_of_all_their_images():
    each = [{'norm': {'mean': x.mean((0, 1, 2)), 'var': x.var((0, 1, 2))}} for x in X.reshape(2, 4, 3, 3, 6)]
    found = population(each)['norm']
    np.testing.assert_allclose(found['mean'], X.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found['var'], X.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    'spec',
    [
        dict(name='batch_norn'),
        dict(name='batch_norm', group_size=-1),
        dict(name='group_norm', group_size=8),
        dict(name='batch_renorm', r_max=0.5),
    ],
)
def test_norm_mistakes(spec):
    with pytest.raises(UserError):
        norms.make(spec)


def test_a_gradient_that_is_written_is_the_same(float64, monkeypatch):
    """On TPUs the gradient that goes on to the input lies behind a barrier, and its sums are taken before that."""
    rng = np.random.default_rng(1)
    x, g, dx = rng.standard_normal((3, 4, 3, 3, 6)) + 1
    affine = {'scale': jnp.linspace(0.5, 2, 6), 'bias': jnp.linspace(-1, 1, 6)}

    def loss(writes, x, affine):
        variables = {'params': affine, 'batch_stats': STATISTICS}
        y, _ = BatchNorm(train=True, writes_gradient=writes).apply(variables, x, mutable=['batch_stats'])
        return jnp.sum(jnp.sin(y) * g)

    def derivatives(writes):
        gradient = jax.grad(functools.partial(loss, writes), (0, 1))
        traced = jax.jit(lambda x: jax.jvp(lambda x: gradient(x, affine), (x,), (dx,))).trace(x)
        alone = jax.make_jaxpr(gradient)(x, affine)
        return traced.lower().compile()(x), str(alone).count('optimization_barrier')

    monkeypatch.setattr(norms.devices, 'platform', lambda: 'tpu')
    (plain, none), (written, one) = derivatives(False), derivatives(True)
    assert (none, one) == (0, 1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), written, plain)


def test_swish_behind_squeeze_and_excitation_has_its_gradient_written_on_tpus(monkeypatch):
    model = registry.build('efficientnet_b0', num_classes=3, depth=0.1, width=0.25)
    x = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def barriers():
        rngs = {'dropout': jax.random.key(1)}
        loss = lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats'], rngs=rngs)[0].sum()  # noqa: E731
        return str(jax.make_jaxpr(jax.grad(loss, allow_int=True))(variables, x)).count('optimization_barrier')

    here = barriers()
    monkeypatch.setattr(norms.devices, 'platform', lambda: 'tpu')
    assert barriers() - here == 7  # a block of each stage


@pytest.mark.parametrize(('name', 'arguments'), [('resnet20_cifar10', dict(depth=8)), ('squeezenet1_1', {})])
def test_rematerialised_blocks_have_the_same_gradients(name, arguments):
    # A net with stages of blocks, one with modules of branches; under the same names.
    model, images = registry.build(name, num_classes=3, **arguments), X[:2, :, :, :3].repeat(11, 1).repeat(11, 2)
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def gradients(net):
        def loss(params):
            logits, state = net.apply(
                {**variables, 'params': params},
                images,
                train=True,
                mutable=['batch_stats'],
                rngs={'dropout': jax.random.key(1)},
            )
            return jnp.sum(jnp.square(logits)), state

        traced = jax.jit(jax.grad(loss, has_aux=True)).trace(variables['params'])
        return traced.lower().compile()(variables['params']), str(traced.jaxpr).count('remat')

    plain, none = gradients(model)
    again, some = gradients(Net(model, remat=True))
    assert some > none
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()), again, plain)
