"""Pooling on CPU against the operations that JAX derives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.mesh import make_mesh
from cvresearch.nn import devices, pool
from cvresearch.nn.conv import pair
from cvresearch.nn.pool import avg_pool, max_pool


@pytest.fixture(params=['all at once', 'image by image'])
def large(request, monkeypatch):
    monkeypatch.setattr(pool, 'LARGE', 0 if request.param == 'image by image' else pool.LARGE)


@pytest.mark.parametrize('equal', [False, True])  # the first of equal maxima takes the gradient
@pytest.mark.parametrize(
    ('window', 'strides', 'padding'),
    [(2, 2, 'VALID'), (3, 2, 'SAME'), ((3, 2), (1, 3), ((0, 1), (1, 0))), (2, 3, 'VALID'), (3, 1, ((1, 1), (1, 1)))],
)
def test_max_pool_and_its_gradient(window, strides, padding, equal, float64, large):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 10, 3))
    x = np.round(x) if equal else x

    def derived(x):
        return nn.max_pool(x, pair(window), pair(strides), padding)

    weight = rng.standard_normal(derived(x).shape)
    results = [
        jax.jit(jax.value_and_grad(lambda x, f=f: jnp.vdot(f(x), weight)))(x)
        for f in (lambda x: max_pool(x, window, strides, padding), derived)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), *results)


@pytest.mark.parametrize(
    ('window', 'strides', 'padding'),
    [
        (2, 2, 'VALID'),
        ((2, 5), (2, 5), 'VALID'),
        (4, 4, 'VALID'),
        (3, 3, 'SAME'),
        (3, 2, 'SAME'),
        (3, 1, ((1, 1), (1, 1))),
    ],
)
def test_avg_pool_and_its_derivatives(window, strides, padding, large):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, dx = rng.standard_normal((2, 2, 9, 10, 3))

        def derived(x):
            return nn.avg_pool(x, pair(window), pair(strides), padding, count_include_pad=False)

        weight = rng.standard_normal(derived(x).shape)
        results = []
        for f in (lambda x: avg_pool(x, window, strides, padding), derived):
            value, pullback = jax.vjp(f, x)
            second = jax.jvp(lambda x, f=f: jax.grad(lambda x: jnp.vdot(f(x) ** 2, weight))(x), (x,), (dx,))
            results.append((value, *pullback(weight), *second))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), *results)


def test_images_on_several_devices_are_not_pooled_one_by_one(monkeypatch):
    monkeypatch.setattr(pool, 'LARGE', 0)
    for mesh, loops in ((None, True), (make_mesh(), False)):
        with devices.traced_for(mesh):
            program = jax.jit(jax.grad(lambda x: jnp.sum(max_pool(avg_pool(x, 2), 2) ** 2)))
            assert ('while' in program.lower(jnp.ones((8, 8, 8, 3))).as_text()) == loops
