"""A classifier from Python: its functions within JAX's transformations, and nets by the names of other libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvresearch
from cvresearch.base.errors import UserError
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.interop.classifier import Classifier, Provenance

SIDE = 16


@pytest.fixture(scope='module')
def net():
    module = cvresearch.create_model('resnet18', num_classes=3, stage_sizes=(1,))
    variables = module.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    prepare = Preprocessing(SIDE, SIDE, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), channels='BGR')
    return Classifier(module, variables, prepare, ('a', 'b', 'c'), Provenance('file', 'net', 'resnet18', '0'))


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_logits_are_of_pixels_in_rgb_of_one_image_or_many(net, images):
    by_hand = (images[..., ::-1] / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7])
    expected = net.module.apply(net.variables, by_hand.astype(np.float32), train=False)
    close(net.logits(images), expected)
    close(net.logits(images[1]), expected[1])
    close(net.logits(images[None]), expected[None])


def test_logits_and_features_work_within_jit_vmap_and_grad(net, images):
    logits = net.logits(images)
    close(jax.jit(net.logits)(images), logits)
    close(jax.vmap(net.logits)(images), logits)
    features = jax.jit(lambda x: net.features(x, ['stage1']))(images)
    assert features['stage1'].shape == (2, *net.feature_names()['stage1'])
    # Along its own gradient a logit grows by the square of the gradient's length.
    x = images.astype(np.float32)
    slope = jax.grad(lambda x: net.logits(x)[0, 1])(x)
    step = 0.1 / np.linalg.norm(slope)
    grown = net.logits(x + step * slope)[0, 1] - net.logits(x - step * slope)[0, 1]
    assert grown == pytest.approx(2 * step * np.linalg.norm(slope) ** 2, rel=0.02)


def test_nets_go_by_the_names_of_other_libraries():
    ours, torchvision = (cvresearch.create_model(name, num_classes=10) for name in ('mobilenetv2_100', 'mobilenet_v2'))
    assert ours == torchvision and ours.num_classes == 10
    assert {'resnet18', 'resnet50'} <= set(cvresearch.list_models('res*'))
    with pytest.raises(UserError, match='mobilenet_v2'):
        cvresearch.create_model('mobilnet_v2')
