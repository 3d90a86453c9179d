"""Tensors that the files in `data/` hold, and what tests of weight files share."""

from pathlib import Path

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.interop import weight_files

DATA = Path(__file__).parent / 'data'


def eighths(*shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) / 8


CHECKPOINT = {
    'conv.weight': eighths(2, 3, 1, 2),
    'every_other.weight': eighths(4, 6)[:, ::2],
    'turned.weight': eighths(4, 6).T,
    'half.weight': eighths(3).astype(np.float16),
    'brain.weight': eighths(3),
    'double.weight': eighths(2).astype(np.float64),
    'bn.num_batches_tracked': np.array(7),
    'empty.weight': eighths(0, 3),
}
KERAS = {
    'conv1/kernel': eighths(1, 1, 2, 3),
    'conv1/bias': eighths(3),
    'batch_normalization/beta': eighths(3),
    'batch_normalization/moving_mean': eighths(3),
    'batch_normalization/moving_variance': eighths(3),
    'depthwise_conv2d/kernel': eighths(2, 2, 3, 1),
    'sep/depthwise_kernel': eighths(2, 2, 3, 1),
    'sep/pointwise_kernel': eighths(1, 1, 3, 1),
    'sep/bias': eighths(1),
}


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def refused(path):
    """Returns the error of reading a file: one line that names it."""
    with pytest.raises(UserError) as caught:
        weight_files.read(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)
    return str(caught.value)
