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


class Inverted(nn.Module):
    """A block as MobileNetV2's, with or without squeeze and excitation, between a stem and the classifier."""

    num_classes: int = 4
    gate: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = BatchNorm(name='bn')(Conv(6, 3, 2, use_bias=False, name='stem')(x))
        y = nn.relu6(BatchNorm(name='bn1')(Conv(12, 1, use_bias=False, name='expand')(x)))
        y = nn.relu6(BatchNorm(name='bn2')(Conv(12, 3, groups=12, use_bias=False, name='depthwise')(y)))
        if self.gate:
            y = y * nn.sigmoid(Conv(12, 1, name='gate')(y.mean((1, 2), keepdims=True)))
        x = x + BatchNorm(name='bn3')(Conv(6, 1, use_bias=False, name='project')(y))
        return nn.Dense(self.num_classes, name='head')(x.mean((1, 2)))


def kernel_shapes(variables):
    return {path[:-7]: leaf.shape for path, leaf in trees.named_leaves(variables['params']) if path.endswith('/kernel')}


def test_of_an_inverted_residual_the_inner_channels_go_and_the_depthwise_ones_with_them():
    module = Inverted()
    variables = variables_of(module)
    narrower, small = narrow(module, variables, SIZE, 0.25)
    assert kernel_shapes(small) == kernel_shapes(variables) | {
        'expand': (1, 1, 6, 9), 'depthwise': (3, 3, 1, 9), 'project': (1, 1, 9, 6),
    }  # fmt: skip
    zeroed = jax.tree.map(np.copy, variables)
    lost = np.argsort(np.abs(zeroed['params']['expand']['kernel']).sum((0, 1, 2)))[:3]
    zeroed['params']['project']['kernel'][:, :, lost] = 0  # what comes of the lost channels then counts for nothing
    images = np.random.default_rng(1).normal(size=(2, *SIZE)).astype(np.float32)
    np.testing.assert_allclose(narrower.apply(small, images), module.apply(zeroed, images), rtol=1e-4, atol=1e-4)


def test_what_a_gate_mixes_or_a_sum_ties_stays():
    with pytest.raises(UserError, match='channels of this net cannot be pruned'):
        narrow(Inverted(gate=True), variables_of(Inverted(gate=True)), SIZE, 0.5)
    for module, layer in ((Inverted(), 'stem'), (Inverted(), 'project'), (Chain(past=True), 'conv1')):
        with pytest.raises(UserError, match=f"'{layer}' cannot be pruned"):
            narrow(module, variables_of(module), SIZE, 0.5, [layer])
    _, small = narrow(Chain(past=True), variables_of(Chain(past=True)), SIZE, 0.5)
    assert small['params']['fc']['kernel'].shape == (72, 5)  # the only one that is inside


def test_of_a_resnet_the_first_convolution_of_each_block_is_narrower():
    """Li et al., section 3.3: the second one's features are tied by the sum."""
    module = registry.build('resnet20_cifar10', 4, depth=8)
    variables = variables_of(module, (8, 8, 3))
    _, small = narrow(module, variables, (8, 8, 3), 0.5)
    before, after = kernel_shapes(variables), kernel_shapes(small)
    changed = sorted(layer for layer in before if before[layer] != after[layer])
    assert changed == [f'stage{n}_block0/conv{m}' for n in (1, 2, 3) for m in (1, 2)]
    assert all(after[f'stage{n}_block0/conv1'][-1] == 8 * 2 ** (n - 1) for n in (1, 2, 3))


def test_a_net_of_one_layer_is_an_error():
    module = registry.build('softmax_regression', 4)
    with pytest.raises(UserError, match='cannot be pruned'):
        narrow(module, variables_of(module), SIZE, 0.5)


def test_the_whole_of_a_layer_does_not_go():
    _, small = narrow(Chain(), variables_of(Chain()), SIZE, 1.0)
    assert small['params']['conv1']['kernel'].shape == (3, 3, 3, 1)
    assert small['params']['head']['kernel'].shape == (1, 4)
