"""Mean and variance in one pass and in two, against float64; and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.nn import devices, norms
from cvresearch.nn.moments import moments as of
from cvresearch.nn.norms import BatchNorm, Normalization

AXES = (0, 1, 2)
NORMAL = np.random.default_rng(0).standard_normal((32, 14, 14, 8))
# By |mean| / deviation: the relative error of the variance, in the first steps (the centre is 0), when the centre is a
# tenth of the mean off, and when it is within 0.1 %.
PRECISION = {0: (1e-6, 1e-6, 1e-6), 1: (1e-6, 1e-6, 1e-6), 10: (3e-5, 2e-6, 1e-6), 100: (1e-6, 3e-5, 1e-6),
             1000: (1e-5, 1e-5, 2e-6)}  # fmt: skip


@pytest.fixture
def elsewhere(monkeypatch):
    """Nets are traced as for a device that is not a CPU."""
    monkeypatch.setattr(devices, 'platform', lambda: 'gpu')


@pytest.mark.parametrize('ratio', PRECISION)
@pytest.mark.parametrize('grouped', [False, True])
def test_the_variance_is_float64_s_at_any_mean(elsewhere, ratio, grouped):
    x = np.float32(3 * (NORMAL + ratio))
    wide = x.astype(np.float64)
    if grouped:
        x, wide = x.reshape(4, 8, *x.shape[1:]), wide.reshape(4, 8, *x.shape[1:])
    axes = tuple(axis + grouped for axis in AXES)
    mean, var = wide.mean(axes, keepdims=grouped), wide.var(axes, keepdims=grouped)
    for centre, bound in zip((0, 0.9 * 3 * ratio, 0.999 * 3 * ratio), PRECISION[ratio], strict=True):
        found = jax.jit(of, static_argnums=(2, 3, 4))(x, jnp.full(8, centre, jnp.float32), axes, grouped, False)
        np.testing.assert_allclose(found[0], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found[1], var, rtol=bound)


@pytest.mark.parametrize('ratio', [0, 1, 10, 100])
def test_of_16_bits_one_pass_loses_less_than_their_rounding(elsewhere, ratio):
    exact = NORMAL + ratio
    x = np.asarray(jnp.asarray(exact, jnp.bfloat16)).astype(np.float32)
    _, var = of(x, jnp.zeros(8), AXES, False, True)
    rounding = np.abs(x.astype(np.float64).var(AXES) / exact.var(AXES) - 1).max()
    assert np.abs(var / x.astype(np.float64).var(AXES) - 1).max() < max(rounding, 1e-6)


def test_a_constant_has_no_variance_and_finite_gradients(elsewhere):
    value, gradient = jax.value_and_grad(lambda x: of(x, jnp.zeros(8), AXES, False, False)[1].sum())(
        jnp.full((4, 2, 2, 8), 300.0)
    )
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize('how', [Normalization(), Normalization(group_size=4), Normalization('batch_renorm')])
@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
def test_norms_and_their_gradients_are_those_of_two_passes(monkeypatch, platform, how):
    monkeypatch.setattr(devices, 'platform', lambda: platform)
    x = jnp.asarray(NORMAL[:8, :3, :3] + 2, jnp.float32)
    variables = BatchNorm(train=True).init(jax.random.key(0), x, how)
    weights = jnp.cos(jnp.arange(x.size)).reshape(x.shape)

    def loss(x):
        y, state = BatchNorm(train=True, unbiased=True).apply(variables, x, how, mutable=['batch_stats'])
        return jnp.sum(y * weights), state

    found = jax.value_and_grad(loss, has_aux=True)(x)
    two = lambda x, centre, axes, keepdims, rounded: [f(x, axes, keepdims=keepdims) for f in (jnp.mean, jnp.var)]  # noqa: E731
    monkeypatch.setattr(norms, 'moments', two)
    expected = jax.value_and_grad(loss, has_aux=True)(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, expected)


@pytest.mark.parametrize('ratio, bound', [(0, 1e-6), (1, 1e-6), (7, 3e-5), (9, 1e-6), (1000, 1e-5)])
def test_on_a_cpu_a_mean_far_from_zero_has_a_second_pass(ratio, bound):
    x = np.float32(3 * (NORMAL + ratio))
    _, var = jax.jit(lambda x: of(x, jnp.full(8, 3.0 * ratio), AXES, False, True))(x)
    np.testing.assert_allclose(var, x.astype(np.float64).var(AXES), rtol=bound)
