"""Weights as a function of (tensor name, shape), so that golden files need not hold any.

NumPy only, and used by both sides: the generator puts these into the reference implementation,
the tests put them into ours.
"""

import zlib

import numpy as np


def tensor(name: str, shape: tuple[int, ...], variance: float = 1.0) -> np.ndarray:
    """Returns the float32 values of one tensor of a reference implementation.

    Kernels are normal with deviation sqrt(2 / fan-in), so that activations keep their size;
    scales and variances are 0.5 to 1.5, so that no batch norm is the identity; the rest is small.
    `variance` multiplies the variances: in deep nets with squeeze and excitation activations grow with
    1.0, until gates saturate and float32 rounding alone is larger than what the tests allow; with
    2.0 they shrink, until all images give the same logits.
    """
    random = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    last = name.replace('/', '.').rpartition('.')[2]
    if last.endswith(('running_var', 'moving_variance')):
        return np.asarray(variance * random.uniform(0.5, 1.5, shape), np.float32)
    if last.endswith(('gamma', 'gain')) or (last == 'weight' and len(shape) == 1):
        return np.asarray(random.uniform(0.5, 1.5, shape), np.float32)
    if len(shape) < 2:
        return np.asarray(0.1 * random.standard_normal(shape), np.float32)
    # Keras kernels are HWIO and (in, out), those of PyTorch OIHW and (out, in).
    fan_in = np.prod(shape[:-1]) if '/' in name else np.prod(shape[1:])
    if last == 'depthwise_kernel' or ('/' in name and len(shape) == 4 and shape[3] == 1):  # depthwise in Keras
        fan_in = shape[0] * shape[1]
    return (np.sqrt(2 / fan_in) * random.standard_normal(shape)).astype(np.float32)


def image(shape: tuple[int, ...], name: str = 'image') -> np.ndarray:
    """Returns standard normal images, float32 of the given shape."""
    random = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    return random.standard_normal(shape).astype(np.float32)
