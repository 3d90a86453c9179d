"""Factorisation against NumPy, and the factored net against the net with the product."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.nn.conv import Conv
from cvresearch.nn.stored import Stored
from cvresearch.optim import factorise
from cvresearch.optim.kernels import kernels, with_kernels

RNG = np.random.default_rng(0)
CASES = [((30, 20), 'output'), ((1, 1, 12, 8), 'output'), ((3, 5, 4, 7), 'output'), ((3, 5, 4, 7), 'separable')]


@pytest.mark.parametrize(('shape', 'method'), CASES)
def test_the_error_is_that_of_the_dropped_singular_values(shape, method):
    kernel = RNG.normal(size=shape).astype(np.float32)
    factors = factorise.factorise(kernel, 4, method)
    values = np.linalg.svd(factorise.matrix(kernel, method), compute_uv=False)
    missing = np.linalg.norm(kernel.astype(np.float64) - factorise.product(factors))
    assert missing == pytest.approx(np.sqrt((values[4:] ** 2).sum()), rel=1e-5)
    assert factors.error == pytest.approx(missing, rel=1e-5)


@pytest.mark.parametrize(('shape', 'method'), CASES)
def test_the_full_rank_loses_nothing(shape, method):
    kernel = RNG.normal(size=shape).astype(np.float32)
    full = min(factorise.matrix(kernel, method).shape)
    np.testing.assert_allclose(factorise.product(factorise.factorise(kernel, full, method)), kernel, atol=1e-5)
    with pytest.raises(UserError, match=f'expected 1 to {full}'):
        factorise.factorise(kernel, full + 1, method)


class Net(nn.Module):
    num_classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(Conv(6, (3, 5), (2, 1), ((1, 2), (0, 3)), name='conv1')(x))
        x = nn.relu(Conv(8, 3, 2, 'SAME', name='conv2')(x))
        x = nn.relu(Conv(8, 1, use_bias=False, name='conv3')(x))
        return nn.Dense(self.num_classes, name='head')(x.mean((1, 2)))


@pytest.mark.parametrize('method', ['output', 'separable'])
def test_a_factored_net_gives_the_logits_of_the_products(method):
    images = RNG.normal(size=(2, 13, 14, 3)).astype(np.float32)
    params = Net().init(jax.random.key(0), images)['params']
    layers = {'conv1': 3, 'conv2': 4, 'conv3': 2, 'head': 3}
    if method == 'separable':
        layers = {'conv1': 3, 'conv2': 4}
    factors = factorise.by_layer(kernels(params), layers, method)
    products = with_kernels(params, {layer: factorise.product(pair) for layer, pair in factors.items()})
    expected = Net().apply({'params': products}, images)
    assert set(kernels(factorise.with_factors(params, factors))) >= {'conv1/first', 'conv1/second'}
    found = Stored(Net()).apply({'params': factorise.with_factors(params, factors)}, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_published_size_of_alexnet_by_svd():
    """47.6 MB in Deep Compression's table 7: fc6, fc7 and fc8 at these ranks, by the size of their factors."""
    dense = {'fc6': (9216, 4096), 'fc7': (4096, 4096), 'fc8': (4096, 1000)}
    ranks = {name: factorise.rank_by_size(np.zeros(shape), 1 / 6.1) for name, shape in dense.items()}
    assert ranks == {'fc6': 464, 'fc7': 335, 'fc8': 131}
    left = 60_965_224 - sum(np.prod(shape) for shape in dense.values())
    size = 4 * (left + sum(ranks[name] * sum(shape) for name, shape in dense.items()))
    assert size == pytest.approx(47.6e6, rel=0.01)


def test_ranks_by_energy_and_by_multiply_adds():
    kernel = (np.diag([3.0, 2.0, 1.0]) @ np.eye(3)).astype(np.float32)
    assert [factorise.rank_by_energy(kernel, share) for share in (0.5, 9 / 14, 0.7, 13 / 14, 1)] == [1, 1, 2, 2, 3]
    # 3x3, 16 to 16, stride 2 from 8x8: a rank costs 3*16 at 4x8 places and 3*16 at 4x4; the layer 9*16*16*16.
    assert factorise.rank_by_macs(np.zeros((3, 3, 16, 16)), 0.5, (32, 16), 'separable') == 8


@pytest.mark.parametrize('choose', [factorise.rank_by_energy, factorise.rank_by_size, factorise.rank_by_macs])
def test_a_share_outside_0_to_1_is_an_error(choose):
    with pytest.raises(UserError, match='from 0 to 1'):
        choose(np.ones((3, 3)), 1.5)


@pytest.mark.parametrize(('shape', 'method'), CASES)
def test_sides_are_of_the_matrix_that_a_kernel_is_read_as(shape, method):
    assert factorise.sides(shape, method) == factorise.matrix(np.zeros(shape), method).shape


def test_within_is_the_truncated_svd_at_first_and_changes_nothing_twice():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 20)).astype(np.float32)
    once = factorise.within(kernel, factorise.basis(kernel, 5))
    np.testing.assert_allclose(once, factorise.product(factorise.factorise(kernel, 5)), atol=1e-5)
    np.testing.assert_allclose(factorise.within(once, factorise.basis(kernel, 5)), once, atol=1e-5)


def test_a_dense_layer_is_not_separable():
    with pytest.raises(UserError, match='dense'):
        factorise.factorise(np.ones((3, 3)), 1, 'separable')
