"""Convolutions with groups on TPUs, as dense ones with zeros between the groups.

A TPU's matrix unit multiplies 128 channels by 128 features, however many of them are zeros. XLA's own form has a
dimension more, (..., groups, depth), and so is neither fused with the norm before it nor with the one after. What both
take is in docs/speed.md.
"""

import math
from collections.abc import Callable

import jax

from cvresearch.nn import conv_groups as grouped

SIDE = 128  # of the matrix unit: channels up to which groups are joined
WHOLE = 256  # channels up to which all groups are joined
SMALL = 64  # pixels of a map up to which XLA's own form is as fast


def convolution(function: Callable, x: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns a convolution, or its input gradient.

    Args:
      function: (x, kernel, window) -> the same as XLA has it.
      x: images, or the gradients of their maps.
      kernel: HWIO, its depth is channels / groups.
      window: a `conv_primitives.Window`.
    """
    joined = channels_joined(kernel.shape[2], window)
    if joined:
        return grouped.convolution(function, x, kernel, window, joined, window.groups)
    return function(x, kernel, window)


def kernel_gradient(function: Callable, x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the kernel gradient of a convolution, HWIO.

    Args:
      function: (x, g, window) -> the same as XLA has it.
      x: images.
      g: the gradient of their maps.
      window: a `conv_primitives.Window`.
    """
    joined = channels_joined(x.shape[-1] // window.groups, window)
    if joined:
        return grouped.kernel_gradient(function, x, g, window, joined, window.groups)
    return function(x, g, window)


def channels_joined(depth: int, window) -> int:
    """Returns up to how many channels are joined to one dense convolution; 0 if it is all left to XLA.

    Args:
      depth: channels of a group. Depthwise ones, and groups that fill the matrix unit by themselves, are left to XLA.
      window: a `conv_primitives.Window`.
    """
    if window.groups == 1 or not 1 < depth < SIDE or math.prod(window.output) <= SMALL:
        return 0
    if window.groups * depth <= WHOLE:
        return WHOLE
    return SIDE if SIDE % depth == 0 else 0  # parts of other widths would not begin where the chip's registers do
