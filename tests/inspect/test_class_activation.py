"""CAM and Grad-CAM: they agree where both are defined, and say so where nothing speaks for a class."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.inspect import class_activation, cost, placing, program
from cvresearch.models import registry
from cvresearch.nn.pool import global_avg_pool

FAST = {'nin_cifar10': 32, 'mobilenetv1_025_128': 64, 'toy_inception': 32}
# The smallest net of every other family that ends in global average pooling.
REST = {
    'bn_inception': 96, 'densenet100_k12_cifar10': 16, 'dm_nfnet_f0': 64, 'efficientnet_b0': 64, 'googlenet': 96,
    'inception_resnet_v2': 107, 'inception_v3': 107, 'inception_v4': 107, 'legacy_seresnet50': 64, 'mnasnet0_5': 64,
    'mobilenetv2_035': 64, 'nasnetamobile': 64, 'preact_resnet110_a_cifar10': 16, 'resnet18': 64,
    'resnet20_cifar10': 32, 'shufflenet_g1_x1_0': 64, 'shufflenet_v2_x0_5': 64, 'squeezenet1_0': 96,
    'wide_resnet16_8_cifar10': 16, 'xception': 96,
}  # fmt: skip


def made(name, side, classes=10):
    """Returns (module, variables, two images); biases and statistics are not those of a new net, nor is any logit."""
    module = registry.build(name, classes)
    images = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    variables = jax.jit(lambda key: module.init(key, images))(jax.random.key(0))
    return module, variables, images


@pytest.mark.parametrize(
    ('name', 'side'),
    [*FAST.items(), *(pytest.param(*item, marks=pytest.mark.all_variants) for item in REST.items())],
)
def test_grad_cam_is_cam_divided_by_the_number_of_positions(name, side):
    module, variables, images = made(name, side)
    exact = class_activation.cam(module, variables, images)
    found = class_activation.grad_cam(module, variables, images)
    assert found.layer == exact.layer and exact.map.max() > 0
    np.testing.assert_array_equal(found.classes, exact.classes)
    positions = np.prod(exact.map.shape[1:])
    np.testing.assert_allclose(found.map * positions, exact.map, atol=1e-5 * exact.map.max())


def test_every_family_with_global_average_pooling_is_among_them():
    files = Path(registry.__file__).parent.glob('*.py')
    families = {f'cvresearch.models.{file.stem}' for file in files if 'global_avg_pool' in file.read_text()}
    tested = {registry.variant(name).module.__module__ for name in FAST | REST}
    assert families == tested


class Spots(nn.Module):
    """Its map is the image itself; the logit of class k is the mean of channel k, minus that of the next."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        kernel = lambda *_: jnp.eye(3) - jnp.roll(jnp.eye(3), 1, axis=0)  # noqa: E731
        x = global_avg_pool(nn.relu(nn.Conv(3, (1, 1), name='maps')(x)))
        return nn.Dense(3, kernel_init=kernel, name='head')(x)


@pytest.fixture
def spots():
    """Returns (module, variables, image): red in the upper left, green in the lower right, no blue."""
    module = Spots()
    image = np.zeros((1, 4, 4, 3), np.float32)
    image[0, 0, 0, 0], image[0, 3, 3, 1] = 2, 1
    variables = module.init(jax.random.key(0), image)
    variables['params']['maps'] = {'kernel': jnp.eye(3)[None, None], 'bias': jnp.zeros(3)}
    return module, variables, image


def test_maps_by_hand(spots):
    # Class 0: red minus green. So its map is red, 2/16 at the one spot.
    found = class_activation.grad_cam(*spots, classes=0)
    expected = np.zeros((1, 4, 4))
    expected[0, 0, 0] = 2 / 16
    np.testing.assert_allclose(found.map, expected, atol=1e-7)
    np.testing.assert_allclose(class_activation.cam(*spots, classes=0).map, expected * 16, atol=1e-6)
    assert found.layer == 'maps+relu' and found.has_evidence.tolist() == [True]


def test_nothing_speaks_for_a_class(spots):
    module, variables, image = spots
    only_red = image * np.float32([1, 0, 0])
    found = class_activation.grad_cam(module, variables, only_red, classes=2)  # blue minus red
    assert found.map.max() == 0 and found.has_evidence.tolist() == [False]


def test_the_class_with_the_largest_logit_is_the_default(spots):
    found = class_activation.grad_cam(*spots)
    assert found.classes.tolist() == found.logits.argmax(1).tolist() == [0]


def test_a_saturated_net_still_has_a_map(spots):
    module, variables, image = spots
    found = class_activation.grad_cam(module, variables, 1e4 * image, classes=0)  # its probability is 1 exactly
    assert found.map[0, 0, 0] == pytest.approx(1e4 * 2 / 16)


@pytest.mark.parametrize(
    ('classes', 'message'),
    [(3, 'class 3 is out of range; expected 0 to 2'), (-1, 'class -1'), ([0, 1], 'got 2 classes for 1 images')],
)
def test_classes_out_of_range(spots, classes, message):
    for method in (class_activation.grad_cam, class_activation.cam):
        with pytest.raises(UserError, match=message):
            method(*spots, classes=classes)


def test_cam_needs_pooling_and_one_dense_layer():
    module = registry.build('lenet5')
    images = np.zeros((1, 32, 32, 1), np.float32)
    variables = jax.jit(lambda key: module.init(key, images))(jax.random.key(0))
    with pytest.raises(UserError, match=r'does not end in global average pooling and one dense layer.*use gradcam'):
        class_activation.cam(module, variables, images)


def test_plus_plus_with_exponential_is_that_of_tf_keras_vis():
    # Transcribed from tf_keras_vis 0.8.7, gradcam_plus_plus.py, in float64; the whole has the factor exp(score) there.
    random = np.random.default_rng(0)
    maps, gradients = random.random((2, 3, 3, 4)), random.standard_normal((2, 3, 3, 4))
    gradients[0, 0, 0], score = 0, np.array([1.5, -0.5])
    first = np.exp(score)[:, None, None, None] * gradients
    second = first * gradients
    below = second * 2 + second * gradients * maps.sum((1, 2), keepdims=True) + (second == 0)
    alpha = second / below
    total = alpha.sum((1, 2), keepdims=True)
    expected = (np.maximum(first, 0) * alpha / (total + (total == 0))).sum((1, 2))
    found = class_activation.plus_plus_exponential(maps, gradients, score)
    np.testing.assert_allclose(found * np.exp(score)[:, None], expected, rtol=1e-4)


def test_the_gradient_stops_at_the_layer():
    # Cost: the forward pass, and backward through nothing but the pooling and the dense layer.
    module, variables, images = made('resnet20_cifar10', 32)

    def gradient(variables, images):
        module_program = program.trace(module, variables, images)
        place = program.last_map(module_program)
        run = lambda zeros: module_program.run(variables, images, add={place: zeros})[0]  # noqa: E731
        return jax.vjp(run, jnp.zeros(module_program.shapes[place]))[1](jnp.ones((2, 10)))

    forward = cost.count_macs(lambda v, x: module.apply(v, x, train=False), variables, images)
    assert cost.count_macs(gradient, variables, images) == forward + 2 * 64 * 10


def test_placed_without_a_crop_is_opencv_resizing():
    import cv2

    maps = np.random.default_rng(0).random((1, 7, 7)).astype(np.float32)
    expected = cv2.resize(maps[0], (50, 30))
    np.testing.assert_allclose(placing.placed(maps, (0, 0, 30, 50), (30, 50))[0], expected, atol=1e-6)


def test_placed_with_a_crop_leaves_what_was_not_seen_at_zero():
    found = placing.placed(np.ones((1, 2, 2)), (10, 25, 20, 20), (40, 60))[0]
    assert found[10:30, 25:45].min() == 1 and found.sum() == 20 * 20
