"""Dense evaluation against the loop over crops, and the converted head against the original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.evaluation import dense
from cvresearch.models import registry
from cvresearch.nn import sliding


def variables_of(model, shape):
    """Returns variables of weights of a size at which logits differ between crops."""
    images = jnp.zeros((1, *shape))
    return jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))


# Nets without padding, the size of their images, and how far apart in the image two positions are.
@pytest.mark.parametrize(
    ('name', 'side', 'stride'),
    [('lenet5', 32, 4), ('lenet5_relu', 32, 4), ('lenet5_1998', 32, 4), ('cnn_flattening', 64, 8), ('cnn_gap', 64, 4)],
)
def test_dense_evaluation_equals_the_loop_over_crops(name, side, stride):
    model = registry.build(name)
    shape = (side, side, registry.variant(name).input_shape[2])
    variables = variables_of(model, shape)
    images = jax.random.normal(jax.random.key(1), (2, side + 2 * stride, side + 4 * stride, shape[2]))
    found = jax.jit(dense.logit_map(model, shape))(variables, images)
    assert found.shape[:3] == (2, 3, 5)
    crop = jax.jit(lambda x: model.apply(variables, x, train=False))
    expected = np.stack(
        [
            [crop(images[:, i : i + side, j : j + side]) for j in range(0, 5 * stride, stride)]
            for i in range(0, 3 * stride, stride)
        ]
    )
    expected = expected.transpose(2, 0, 1, 3)
    tolerance = 1e-5 * max(1, np.abs(expected).max())
    assert np.ptp(expected, axis=(1, 2)).max() > 10 * tolerance  # the positions do differ
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


# Padded nets: logits at two positions of an image that is larger by one stride of 32 in width.
@pytest.mark.parametrize(
    ('name', 'positions'),
    [
        ('zfnet', (1, 2)),
        ('vgg16', (1, 2)),
        ('resnet50', (1, 2)),
        ('squeezenet1_1', (1, 3)),
        ('googlenet', (1, 2)),
        ('efficientnet_b0', (1, 2)),
    ],
)
def test_all_ways_to_end_a_net_can_slide(name, positions):
    model, (height, width, channels) = registry.build(name), registry.variant(name).input_shape
    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, height, width, channels))))
    larger = jax.ShapeDtypeStruct((1, height, width + 32, channels), jnp.float32)
    found = jax.eval_shape(dense.logit_map(model, (height, width, channels)), abstract, larger)
    assert found.shape == (1, *positions, 1000)


@pytest.mark.parametrize(
    ('name', 'arguments', 'side'),
    [
        ('alexnet', dict(widths=(4, 8, 8, 8, 4)), 224),
        ('toy_inception', {}, 32),
        ('nin_cifar10', {}, 32),
    ],
)
def test_at_its_own_size_the_convolution_is_the_net(name, arguments, side):
    model = registry.build(name, num_classes=4, kernel_init='he_normal', **arguments)
    shape = (side, side, registry.variant(name).input_shape[2])
    variables = variables_of(model, shape)
    images = jax.random.normal(jax.random.key(1), (2, *shape))
    found = jax.jit(dense.logit_map(model, shape))(variables, images)
    expected = jax.jit(lambda x: model.apply(variables, x, train=False))(images)
    assert found.shape == (2, 1, 1, 4)
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_the_converted_head_is_the_original_on_each_window_of_a_padded_nets_map():
    model = registry.build('alexnet_2012', num_classes=4, widths=(4, 8, 8, 8, 4), kernel_init='he_normal')
    variables = variables_of(model, (227, 227, 3))
    images = jax.random.normal(jax.random.key(1), (1, 259, 291, 3))
    with sliding.sliding((6, 6)):
        _, kept = model.apply(variables, images, capture_intermediates=True)
    found = kept['intermediates']['__call__'][0]
    last = np.maximum(kept['intermediates']['conv5']['__call__'][0][0], 0)
    last = np.lib.stride_tricks.sliding_window_view(last, (3, 3), (0, 1))[::2, ::2].max((-2, -1))  # pool5
    assert found.shape == (1, 2, 3, 4) and last.shape == (7, 8, 4)
    for i, j in np.ndindex(2, 3):
        x = last[i : i + 6, j : j + 6].reshape(-1)
        for name in ('fc6', 'fc7', 'head'):
            layer = variables['params'][name]
            x = np.asarray(layer['kernel'], np.float64).T @ (x if name == 'fc6' else np.maximum(x, 0)) + layer['bias']
        np.testing.assert_allclose(found[0, i, j], x, rtol=0, atol=1e-5 * max(1, np.abs(x).max()))


@pytest.mark.parametrize('name', ['softmax_regression', 'lenet_1989'])
def test_a_net_without_a_dense_form_says_so(name):
    with pytest.raises(UserError, match='no dense form'):
        dense.window(registry.build(name), registry.variant(name).input_shape)
