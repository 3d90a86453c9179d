"""The convolution layer: nn.Conv's contract, and clear words where channels do not fit."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.nn.conv import Conv


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
