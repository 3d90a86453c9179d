"""The convolution layer: nn.Conv's contract, and clear words where channels do not fit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.nn.conv import Conv, conv2d


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        (dict(kernel_size=3), dict(kernel_size=(3, 3))),
        (dict(kernel_size=(5, 3), strides=2), dict(kernel_size=(5, 3), strides=(2, 2))),
        (dict(kernel_size=3, padding=1, dilation=2), dict(kernel_size=(3, 3), padding=1, kernel_dilation=(2, 2))),
        (dict(kernel_size=3, padding=((0, 2), (1, 0))), dict(kernel_size=(3, 3), padding=((0, 2), (1, 0)))),
        (dict(kernel_size=3, groups=4, padding='VALID'),
         dict(kernel_size=(3, 3), feature_group_count=4, padding='VALID')),
    ],
)  # fmt: skip
def test_equals_flax(ours, theirs):
    x = np.random.default_rng(0).standard_normal((2, 9, 10, 8)).astype(np.float32)
    variables = nn.Conv(12, **theirs).init(jax.random.key(0), x)
    expected = nn.Conv(12, **theirs).apply(variables, x)
    np.testing.assert_allclose(Conv(12, **ours).apply(variables, x), expected, rtol=1e-5, atol=1e-5)


def test_another_number_of_channels_is_said_in_one_line():
    layer = Conv(4, 3)
    variables = layer.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(UserError, match='got 1 channels, expected 3, as its kernel has them'):
        layer.apply(variables, np.zeros((1, 8, 8, 1), np.float32))
    with pytest.raises(UserError, match='got 3 channels, expected a multiple of its 2 groups'):
        Conv(4, 3, groups=2).init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))


GROUPS = [(3, 24, 12), (12, 96, 12), (2, 6, 4), (6, 18, 6), (8, 64, 32), (4, 96, 8), (32, 128, 256)]


@pytest.mark.parametrize(('groups', 'channels', 'features'), GROUPS)
@pytest.mark.parametrize('strides', [1, 2])
def test_groups_on_cpu_equal_the_plain_convolution_and_its_gradients(groups, channels, features, strides):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 7, 8, channels)).astype(np.float32)
    kernel = 0.1 * rng.standard_normal((3, 3, channels // groups, features)).astype(np.float32)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (strides, strides), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=groups,
        )  # fmt: skip

    def ours(x, kernel):
        return conv2d(x, kernel, strides=strides, groups=groups)

    for got, expected in zip(
        jax.jit(jax.value_and_grad(lambda *a: (ours(*a) ** 3).sum(), (0, 1)))(x, kernel),
        jax.jit(jax.value_and_grad(lambda *a: (plain(*a) ** 3).sum(), (0, 1)))(x, kernel),
        strict=True,
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), got, expected)


def test_on_other_platforms_the_program_is_the_plain_grouped_convolution():
    x, kernel = jnp.zeros((2, 8, 8, 64)), jnp.zeros((3, 3, 8, 64))
    lowered = jax.jit(lambda x, k: conv2d(x, k, groups=8)).trace(x, kernel).lower(lowering_platforms=('cuda',))
    text = lowered.as_text()
    assert text.count('stablehlo.convolution') == 1 and 'feature_group_count = 8' in text
