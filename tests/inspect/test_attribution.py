"""Attributions: laws that hold for any net, and rules by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.inspect import attribution
from cvresearch.models import registry


class Rectified(nn.Module):
    """Sums act(x) times weights 1, -1, 1, ... over the pixels of one channel, under one class."""

    act: str
    num_classes: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        x = getattr(nn, self.act)(x).reshape(len(x), -1)
        return (x * jnp.where(jnp.arange(x.shape[1]) % 2, -1.0, 1.0)).sum(1, keepdims=True)


PIXELS = np.float32([-2, -1, 1, 2, 7, 8]).reshape(1, 1, 6, 1)  # each is passed back 1, -1, 1, -1, 1, -1


# Springenberg et al. 2014, figure 1; ReLU6 has no gradient above 6; swish: f' = s + x s (1 - s).
@pytest.mark.parametrize(
    ('act', 'guided', 'deconv'),
    [
        ('relu', [0, 0, 1, 0, 1, 0], [1, 0, 1, 0, 1, 0]),
        ('relu6', [0, 0, 1, 0, 0, 0], [1, 0, 1, 0, 1, 0]),
        ('silu', [0, 0, 0.92767, 0, 1.00547, 0], [1, 0, 1, 0, 1, 0]),
    ],
)
def test_rules_of_rectifiers(act, guided, deconv):
    module = Rectified(act)
    np.testing.assert_allclose(attribution.guided_backpropagation(module, {}, PIXELS).ravel(), guided, atol=1e-4)
    np.testing.assert_allclose(attribution.deconvolution(module, {}, PIXELS).ravel(), deconv, atol=1e-6)


def test_rules_find_activations_that_an_argument_named():
    # From the table of nn/activations.py: replacing `nn.relu` would miss it.
    module = registry.build('mlp', act='relu')
    images = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(lambda key: module.init(key, images))(jax.random.key(0))
    plain = attribution.gradient(module, variables, images)
    guided = attribution.guided_backpropagation(module, variables, images)
    assert np.abs(plain - guided).max() > 0.1 * np.abs(plain).max()


def test_a_net_without_rectifier_has_no_guided_backpropagation():
    module = registry.build('lenet5')
    images = np.zeros((1, 32, 32, 1), np.float32)
    variables = jax.jit(lambda key: module.init(key, images))(jax.random.key(0))
    with pytest.raises(UserError, match=r'LeNet5 has no relu, relu6, silu.*use saliency'):
        attribution.guided_backpropagation(module, variables, images)


@pytest.fixture(scope='module')
def lenet():
    module = registry.build('lenet5_relu' if 'lenet5_relu' in registry.catalogue() else 'lenet5')
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 1)).astype(np.float32)
    return module, jax.jit(lambda key: module.init(key, images))(jax.random.key(0)), images


def test_integrated_gradients_add_up_to_the_difference_of_logits(lenet):
    module, variables, images = lenet
    found = attribution.integrated_gradients(module, variables, images, 3, steps=100, baseline=0.5)
    ends = [module.apply(variables, x)[:, 3] for x in (images, np.full_like(images, 0.5))]
    np.testing.assert_allclose(found.sum((1, 2, 3)), ends[0] - ends[1], rtol=0.01)


def test_gradient_is_that_of_the_logit(lenet):
    module, variables, images = lenet
    found = attribution.gradient(module, variables, images, 3)
    step = np.random.default_rng(1).standard_normal(images.shape).astype(np.float32) * 1e-3
    ends = [module.apply(variables, images + sign * step)[:, 3] for sign in (1, -1)]
    np.testing.assert_allclose((found * step).sum((1, 2, 3)), (ends[0] - ends[1]) / 2, rtol=0.05, atol=1e-5)


def test_smooth_gradient_without_noise_is_the_gradient(lenet):
    found = attribution.smooth_gradient(*lenet, samples=2, noise=0.0)
    np.testing.assert_allclose(found, np.abs(attribution.gradient(*lenet)), rtol=1e-4, atol=1e-6)


def test_smooth_gradient_of_an_image_is_the_same_in_any_batch(lenet):
    module, variables, images = lenet
    both = attribution.smooth_gradient(module, variables, images, 3, samples=2)
    alone = attribution.smooth_gradient(module, variables, images[1:], 3, samples=2)
    np.testing.assert_allclose(both[1:], alone, rtol=1e-4, atol=1e-6)


def test_occlusion_of_a_linear_net_by_hand():
    # softmax regression: a square's fall is the sum of weight times pixel under it; a pixel has the mean over squares.
    module = registry.build('softmax_regression')
    images = np.random.default_rng(0).random((1, 4, 4, 1)).astype(np.float32)
    variables = module.init(jax.random.key(0), images)
    part = np.asarray(variables['params']['head']['kernel'])[:, 2].reshape(4, 4) * images[0, ..., 0]
    total, count = np.zeros((4, 4)), np.zeros((4, 4))
    for top, left in np.ndindex(2, 2):
        square = np.s_[2 * top : 2 * top + 3, 2 * left : 2 * left + 3]
        total[square] += part[square].sum()
        count[square] += 1
    found = attribution.occlusion(module, variables, images, 2, window=3, stride=2)
    np.testing.assert_allclose(found[0], total / count, atol=1e-5)


@pytest.mark.parametrize(('window', 'stride'), [(40, 1), (8, 9), (0, 1), (8, 0)])
def test_squares_that_do_not_fit(lenet, window, stride):
    with pytest.raises(UserError, match='expected a window of at most 32 and a stride'):
        attribution.occlusion(*lenet, window=window, stride=stride)
