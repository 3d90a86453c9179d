"""How a net trains: sizes by layer against their expectation, the loss surface against a quadratic."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.inspect import cost, program, training
from cvresearch.models import registry

LAYERS = [f'hidden{i + 1}+relu' for i in range(6)]


def deep(kernel_init):
    """Returns six ReLU layers of 256 units, new, and standard normal inputs."""
    module = registry.build('mlp', widths=(256,) * 6, kernel_init=kernel_init)
    images = np.random.default_rng(0).standard_normal((64, 16, 16, 1)).astype(np.float32)
    return module, module.init(jax.random.key(0), images), images


def test_activations_keep_their_size_from_he_initialization_and_halve_from_glorot():
    # He et al. 2015, section 2.2: with variance 2/n the mean square after ReLU is 1 in every layer; with 1/n, 2^-L.
    for kernel_init, factor in (('he_normal', 1.0), ('lecun_normal', 0.5)):
        found = training.activations(*deep(kernel_init), LAYERS)
        squares = [found[name].mean ** 2 + found[name].std ** 2 for name in LAYERS]
        np.testing.assert_allclose(squares, [factor ** (i + 1) for i in range(6)], rtol=0.35)


def test_dead_units():
    module, variables, images = deep('he_normal')
    variables['params']['hidden2']['bias'] = jnp.where(jnp.arange(256) < 64, -1e3, 0.0)
    assert training.activations(module, variables, images, LAYERS)['hidden2+relu'].dead == 0.25


def test_the_gradient_of_the_logits_is_that_of_the_loss():
    module, variables, images = deep('he_normal')
    found = training.gradients(module, variables, images, ['head', 'hidden6+relu'], lambda x: (3 * x).sum() / 640)
    assert found['head'].mean == pytest.approx(3 / 640) and found['head'].std == pytest.approx(0, abs=1e-8)
    kernel = np.asarray(variables['params']['head']['kernel'])
    assert found['hidden6+relu'].mean == pytest.approx(3 / 640 * kernel.sum(1).mean(), rel=1e-4)


def test_update_ratio():
    before, after = ({'a': np.array([3.0, last]), 'b': np.zeros(2)} for last in (4.0, 4.5))
    ratios = training.update_ratios(before, after)
    assert list(ratios.values()) == [0.1, 0.0]


def test_filters_of_a_direction_have_the_norms_of_the_net():
    params = {'kernel': np.random.default_rng(0).standard_normal((3, 3, 2, 5)).astype(np.float32), 'bias': np.ones(5)}
    found = training.direction(params, 1)
    norms = [np.linalg.norm(x['kernel'].reshape(-1, 5), axis=0) for x in (params, found)]
    np.testing.assert_allclose(*norms, rtol=1e-6)
    assert not found['bias'].any()


def test_surface_of_a_quadratic():
    params = {'kernel': np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)}
    places, losses = training.loss_surface(lambda p: (p['kernel'] ** 2).sum(), params, number=5)
    first, second = (training.direction(params, seed)['kernel'] for seed in (0, 1))
    expected = [[((params['kernel'] + a * first + b * second) ** 2).sum() for b in places] for a in places]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses[2, 2] == pytest.approx((params['kernel'] ** 2).sum(), rel=1e-6)


class Normed(nn.Module):
    """A convolution with biases far from zero, batch norm, and a head beside the main one in training."""

    num_classes: int = 3
    aux_weight: float = 0.5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name='conv', bias_init=nn.initializers.constant(7.0))(x)
        x = nn.BatchNorm(use_running_average=not train, name='bn')(x)
        beside = nn.Dense(3, name='aux')(x.mean((1, 2)))
        x = nn.Dense(3, name='head')(nn.relu(x).mean((1, 2)))
        return (x, [beside]) if train else x


def test_in_training_norms_go_by_the_batch_and_heads_beside_add_to_the_gradient():
    module = Normed()
    images = np.random.default_rng(0).standard_normal((8, 6, 6, 2)).astype(np.float32)
    variables = module.init(jax.random.key(0), images)
    as_trained, evaluated = (training.activations(module, variables, images, ['bn'], t)['bn'] for t in (True, False))
    assert abs(as_trained.mean) < 1e-5 and as_trained.std == pytest.approx(1, rel=1e-3)
    assert evaluated.mean > 5  # a new net's running statistics are nobody's
    # The logits of the head beside are added with half the weight of a sum over all logits.
    found = training.gradients(module, variables, images, ['bn'], lambda x: x.sum(), train=True)['bn']
    kernels = [np.asarray(variables['params'][name]['kernel'], np.float64).sum(1) for name in ('head', 'aux')]
    _, state = module.apply(variables, images, train=True, mutable=['batch_stats'], capture_intermediates=True)
    positive = np.asarray(state['intermediates']['bn']['__call__'][0]) > 0
    assert found.mean == pytest.approx(((positive * kernels[0]).mean() + 0.5 * kernels[1].mean()) / 36, rel=1e-4)


def test_values_that_are_not_finite_are_counted():
    found = training.Distribution.of(np.array([[1.0, np.nan], [3.0, np.inf]], np.float32))
    assert (found.mean, found.std, found.finite) == (2.0, 1.0, 0.5) and found.counts.sum() == 2
    nothing = training.Distribution.of(np.full((2, 2), np.nan, np.float32))
    assert nothing.finite == 0 and nothing.record['mean'] is None
    again = training.Distribution.from_record(json.loads(json.dumps(found.record)))
    np.testing.assert_allclose(again.edges, found.edges)


def test_main_layers_are_the_net_s_own_after_their_activation():
    for name, expected in (
        ('lenet5_relu', ['C1+relu', 'C3+relu', 'C5+relu', 'F6+relu', 'head']),
        ('mlp', ['hidden1+relu', 'hidden2+relu', 'head']),  # whose dropout is a child too
    ):
        module = registry.build(name)
        variables = cost.shapes(module, (32, 32, 1))
        made = program.trace(module, variables, jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32))
        assert training.main_layers(made, variables['params']) == expected
