"""Features that go: the narrow net against the net with zeros."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.compress.narrow import narrow
from cvresearch.models import registry
from cvresearch.nn.conv import Conv
from cvresearch.nn.norms import BatchNorm

SIZE = (12, 12, 3)


class Chain(nn.Module):
    """Convolutions with norms, pooling, flattening, dense layers: as LeNet and VGG are built."""

    num_classes: int = 4
    past: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        y = nn.relu(BatchNorm(name='bn1')(Conv(8, 3, use_bias=False, name='conv1')(x)))
        x = nn.relu(Conv(8, 3, 2, name='conv2')(y))
        x = x + y[:, ::2, ::2] if self.past else x
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return nn.Dense(self.num_classes, name='head')(nn.relu(nn.Dense(10, name='fc')(x)))


def variables_of(module, size=SIZE):
    """Returns variables with every array random, statistics too."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *size), np.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32) - 0.5 * (leaf.ndim > 1), shapes)


def test_the_narrow_net_has_the_filters_with_the_largest_sums():
    variables = variables_of(Chain())
    _, small = narrow(Chain(), variables, SIZE, 0.25)
    sums = np.abs(variables['params']['conv1']['kernel']).sum((0, 1, 2))
    kept = np.sort(np.argsort(sums)[2:])
    assert np.array_equal(small['batch_stats']['bn1']['var'], variables['batch_stats']['bn1']['var'][kept])
    shapes = {path: leaf.shape for path, leaf in trees.named_leaves(small['params']) if path.endswith('kernel')}
    assert shapes == {
        'conv1/kernel': (3, 3, 3, 6), 'conv2/kernel': (3, 3, 6, 6), 'fc/kernel': (9 * 6, 8), 'head/kernel': (8, 4),
    }  # fmt: skip


def test_the_narrow_net_gives_the_logits_of_the_net_with_zeros():
    variables = variables_of(Chain())
    module, small = narrow(Chain(), variables, SIZE, 0.5, ['conv2'])
    zeroed = jax.tree.map(np.copy, variables)
    lost = np.argsort(np.abs(zeroed['params']['conv2']['kernel']).sum((0, 1, 2)))[:4]
    zeroed['params']['conv2']['kernel'][..., lost] = 0
    zeroed['params']['conv2']['bias'][lost] = 0
    images = np.random.default_rng(1).normal(size=(2, *SIZE)).astype(np.float32)
    np.testing.assert_allclose(module.apply(small, images), Chain().apply(zeroed, images), rtol=1e-4, atol=1e-4)


def test_lenet_becomes_narrower():
    module = registry.build('lenet5', 10)
    variables = variables_of(module, (28, 28, 1))
    _, small = narrow(module, variables, (28, 28, 1), 0.5)
    assert small['params']['C3']['kernel'].shape == (5, 5, 3, 8)
    assert trees.count(small) < trees.count(variables) / 3.5


@pytest.mark.parametrize('module', [Chain(past=True), registry.build('resnet20_cifar10', 4)])
def test_a_net_that_is_no_chain_is_an_error(module):
    with pytest.raises(UserError, match='cannot be pruned'):
        narrow(module, variables_of(module), SIZE, 0.5)


def test_the_whole_of_a_layer_does_not_go():
    _, small = narrow(Chain(), variables_of(Chain()), SIZE, 1.0)
    assert small['params']['conv1']['kernel'].shape == (3, 3, 3, 1)
    assert small['params']['head']['kernel'].shape == (1, 4)
