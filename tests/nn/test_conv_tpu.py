"""Convolutions with groups as TPUs have them, against XLA's one operation; and what a net's program for TPUs holds."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.mesh import make_mesh
from cvresearch.nn import conv_tpu, devices
from cvresearch.nn.conv import conv2d
from cvresearch.nn.conv_primitives import Window, plain, plain_input_gradient, plain_kernel_gradient

# Images, kernel, groups, strides, and channels up to which groups are joined: all, all with strides, parts of 128, 1x1.
JOINED = [
    ((2, 9, 9, 64), (3, 3, 4, 32), 16, 1, 256),
    ((2, 17, 18, 96), (5, 5, 48, 12), 2, 2, 256),
    ((2, 9, 9, 512), (3, 3, 8, 512), 64, 1, 128),
    ((2, 9, 9, 384), (1, 1, 32, 24), 12, 1, 128),
]


def window_of(image, size, groups, strides):
    half = [(k // 2, k // 2) for k in size[:2]]
    return Window(image[1:3], size[:2], (strides, strides), tuple(half), (1, 1), groups)


@pytest.mark.parametrize(('image', 'size', 'groups', 'strides', 'joined'), JOINED)
def test_value_and_both_gradients_in_float64(float64, image, size, groups, strides, joined):
    window = window_of(image, size, groups, strides)
    assert conv_tpu.channels_joined(size[2], window) == joined
    rng = np.random.default_rng(0)
    shapes = image, size, (image[0], *window.output, size[3])
    x, kernel, g = (jnp.asarray(rng.standard_normal(shape)) for shape in shapes)
    for joined_by, function, left, right in (
        (conv_tpu.convolution, plain, x, kernel),
        (conv_tpu.convolution, plain_input_gradient, g, kernel),
        (conv_tpu.kernel_gradient, plain_kernel_gradient, x, g),
    ):
        ours, theirs = joined_by(function, left, right, window), function(left, right, window)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ('image', 'size', 'groups'),
    [
        ((2, 9, 9, 64), (3, 3, 1, 64), 64),  # depthwise
        ((2, 9, 9, 256), (3, 3, 128, 256), 2),  # groups as wide as the matrix unit
        ((2, 8, 8, 64), (3, 3, 4, 64), 16),  # a small map
        ((2, 9, 9, 480), (1, 1, 160, 240), 3),
        ((2, 9, 9, 320), (3, 3, 20, 320), 16),  # parts of 120 channels
        ((2, 9, 9, 64), (3, 3, 64, 64), 1),
    ],
)
def test_what_is_left_to_xla(image, size, groups):
    assert not conv_tpu.channels_joined(size[2], window_of(image, size, groups, 1))


def test_a_program_for_tpus_has_dense_convolutions():
    image, size, groups, _, _ = JOINED[0]
    loss = lambda x, kernel: jnp.sum(conv2d(x, kernel, groups=groups) ** 2)  # noqa: E731
    traced = jax.jit(jax.grad(loss, (0, 1))).trace(jnp.zeros(image), jnp.zeros(size))
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ('tpu', 'cuda')}
    of = {name: set(re.findall(r'(?:feature|batch)_group_count = (\d+)', text)) for name, text in texts.items()}
    assert of['tpu'] == {'1'} and str(groups) in of['cuda']


def test_over_a_tpu_s_mesh_gradients_of_kernels_are_summed_without_the_zeros(monkeypatch):
    """What the devices send each other is in the program: a sum of the kernel's own size within shard_map."""
    monkeypatch.setattr(devices, 'platform', lambda: 'tpu')
    image, size, groups, _, _ = JOINED[0]
    image = (8, *image[1:])
    with devices.traced_for(make_mesh(8)):
        loss = lambda kernel, x: jnp.sum(conv2d(x, kernel, groups=groups) ** 2)  # noqa: E731
        jaxpr = str(jax.make_jaxpr(jax.grad(loss))(jnp.zeros(size), jnp.zeros(image)))
        depthwise = functools.partial(conv2d, groups=64)
        left_alone = str(jax.make_jaxpr(depthwise)(jnp.zeros(image), jnp.zeros((3, 3, 1, 64))))
    sums = re.findall(r':f32\[([\d,]+)\][^\n]*= psum', jaxpr)
    assert sums == [','.join(map(str, size))] and 'shard_map' not in left_alone
