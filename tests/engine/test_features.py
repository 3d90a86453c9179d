"""Features by name, for every architecture through one mechanism."""

import jax
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.engine import features, trace
from cvresearch.models import registry
from cvresearch.nn.repeat import unstack, with_stacked


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


def test_layout_of_the_variables_changes_no_feature():
    model = registry.build('preact_resnet110_cifar10', stage_sizes=(3,))
    stacked, random = with_stacked(model), np.random.default_rng(0)
    images = random.standard_normal((2, 8, 8, 3)).astype(np.float32)
    variables = jax.tree.map(
        lambda leaf: random.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), trace.shapes(stacked, (8, 8, 3))
    )
    wanted = features.names(stacked, (8, 8, 3))
    assert wanted == features.names(model, (8, 8, 3)) and 'stage1_block2' in wanted
    ours = features.features(stacked, variables, images, wanted)
    theirs = features.features(model, unstack(variables), images, wanted)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_unknown_name():
    model = registry.build('lenet5')
    with pytest.raises(UserError, match="LeNet5 has no feature 'C4'; did you mean C5 or C3 or C1"):
        features.features(model, {}, np.zeros((1, 32, 32, 1), np.float32), ['C4'])
