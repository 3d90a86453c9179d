"""The same losses on every mesh, to rounding in float64: batch norm, moments, averages and all."""

import functools

import jax
import jax.numpy as jnp
import pytest

from cvresearch.base import trees
from tests.engine.mesh_curves import LAYOUTS, LENGTH, NETS, apart, curve

rest = functools.partial(pytest.param, marks=pytest.mark.slow)
SAMPLE = ('resnet20_cifar10', (2, 4), 10)
ALL = [(net, layout, LENGTH) for net in NETS for layouts in LAYOUTS.values() for layout in layouts if layout != (1, 1)]


@functools.cache
def on_one_device(net, length):
    return curve(net, 1, 1, jnp.float64, length)


@pytest.mark.parametrize(('net', 'layout', 'length'), [SAMPLE, *(rest(*each) for each in ALL)])
def test_losses_are_those_of_one_device(net, layout, length):
    with jax.enable_x64(True):
        expected, _, there = on_one_device(net, length)
        found, _, here = curve(net, *layout, jnp.float64, length)
    assert found.dtype == jnp.float64 and apart(found, expected) < 1e-9
    assert here['n_seen'] == there['n_seen'] == 96
    assert (here['top1'], here['top5']) == (there['top1'], there['top5'])


@pytest.mark.slow
@pytest.mark.parametrize('layout', [(8, 1), (1, 8), (2, 4)])
def test_a_layout_repeats_itself_to_the_bit(layout):
    states = [curve('efficientnet_b0', *layout, jnp.float32)[1] for _ in range(2)]
    assert len({trees.sha256(jax.device_get(state)) for state in states}) == 1
