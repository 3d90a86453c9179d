"""Kinds of numbers in files of weights that NumPy does not know: bfloat16 and the kinds of float8."""

import ml_dtypes  # noqa: F401  (teaches NumPy their names)
import numpy as np


def widened(array: np.ndarray) -> np.ndarray:
    """Returns numbers of a kind that NumPy does not know as float32, exactly; others as they are.

    Scales that a program keeps beside float8 weights are tensors of their own, and are not applied.
    """
    # NumPy counts the types of ml_dtypes as its users' own.
    return array.astype(np.float32) if array.dtype.isbuiltin == 2 else array


def named(array: np.ndarray, name: str) -> np.ndarray:
    """Returns raw bytes (a dtype of kind V) as numbers of the kind `name`, widened to float32.

    Raises:
      ValueError: no kind of that name, or of another size.
    """
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(f'numbers of type {name} are not known here') from error
    if dtype.itemsize != array.dtype.itemsize:
        raise ValueError(f'numbers of type {name} have {dtype.itemsize} bytes, and not {array.dtype.itemsize}')
    return widened(np.ascontiguousarray(array).view(dtype).reshape(array.shape))
