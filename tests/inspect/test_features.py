"""Features by name, for every architecture through one mechanism."""

import jax
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.inspect import features
from cvresearch.models import registry


def test_names_and_shapes_of_lenet5():
    assert features.names(registry.build('lenet5'), (32, 32, 1)) == {
        'C1': (28, 28, 6), 'C3': (10, 10, 16), 'C5': (1, 1, 120), 'F6': (84,), 'head': (10,),
    }  # fmt: skip


def test_head_feature_is_the_logits():
    model = registry.build('lenet5')
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    found = features.features(model, variables, images, ['C3', 'head'])
    np.testing.assert_array_equal(found['head'], model.apply(variables, images))
    assert found['C3'].shape == (2, 10, 10, 16)


def test_stages_of_resnet50():
    # He et al. 2015, table 1: the output of conv2_x to conv5_x at 224 pixels.
    shapes = features.names(registry.build('resnet50'), (224, 224, 3))
    sizes = [shapes[f'stage{i}'] for i in (1, 2, 3, 4)]
    assert sizes == [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]


@pytest.mark.parametrize('stacked', [False, True])
def test_blocks_that_are_compiled_once_can_be_looked_at_one_by_one(stacked):
    model = registry.build('resnet32_cifar10', stacked=stacked)
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(lambda key: model.init(key, images))(jax.random.key(0))
    found = jax.jit(lambda v: features.features(model, v, images, ['stage2_block1', 'stage2', 'head']))(variables)
    assert found['stage2_block1'].shape == found['stage2'].shape == (2, 4, 4, 32)
    assert np.abs(found['stage2_block1'] - found['stage2']).max() > 0.01
    np.testing.assert_allclose(found['head'], model.apply(variables, images), rtol=1e-5, atol=1e-5)


def test_unknown_name():
    model = registry.build('lenet5')
    with pytest.raises(UserError, match="LeNet5 has no feature 'C4'; did you mean C5 or C3 or C1"):
        features.features(model, {}, np.zeros((1, 32, 32, 1), np.float32), ['C4'])
