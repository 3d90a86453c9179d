"""Convolutions with groups on TPUs, as dense ones with zeros between the groups.

A TPU's matrix unit multiplies 128 channels by 128 features, however many of them are zeros. XLA's own form has a
dimension more, (..., groups, depth), and so is neither fused with the norm before it nor with the one after. What both
take is in docs/speed.md.
"""

import math

from jaxtyping import Array, Float

from cvresearch.base.arrays import Images, Kernel, Maps
from cvresearch.nn import conv_groups as grouped
from cvresearch.nn.conv_primitives import Window, plain, plain_input_gradient, plain_kernel_gradient

SIDE = 128  # of the matrix unit: channels up to which groups are joined
WHOLE = 256  # channels up to which all groups are joined
SMALL = 64  # pixels of a map up to which XLA's own form is as fast


def forward(x: Images, kernel: Kernel, window: Window) -> Maps:
    """Returns the convolution of images with a kernel (HWIO, depth is channels / groups)."""
    if joined := channels_joined(kernel.shape[2], window):
        return grouped.convolution(plain, x, kernel, window, joined, window.groups)
    return plain(x, kernel, window)


def input_gradient(g: Maps, kernel: Kernel, window: Window) -> Images:
    """Returns the gradient of <g, forward(x, kernel)> for x, (batch, height, width, channels)."""
    if joined := channels_joined(kernel.shape[2], window):
        return grouped.convolution(plain_input_gradient, g, kernel, window, joined, window.groups)
    return plain_input_gradient(g, kernel, window)


def kernel_gradient(x: Images, g: Maps, window: Window) -> Float[Array, 'kernel_height kernel_width depth features']:
    """Returns the gradient of <g, forward(x, kernel)> for the kernel, HWIO."""
    if joined := channels_joined(x.shape[-1] // window.groups, window):
        return grouped.kernel_gradient(plain_kernel_gradient, x, g, window, joined, window.groups)
    return plain_kernel_gradient(x, g, window)


def channels_joined(depth: int, window: Window) -> int:
    """Returns up to how many channels are joined to one dense convolution; 0 if it is all left to XLA.

    Args:
      depth: channels of a group. Depthwise ones, and groups that fill the matrix unit by themselves, are left to XLA.
      window: of the convolution.
    """
    if window.groups == 1 or not 1 < depth < SIDE or math.prod(window.output) <= SMALL:
        return 0
    if window.groups * depth <= WHOLE:
        return WHOLE
    return SIDE if SIDE % depth == 0 else 0  # parts of other widths would not begin where the chip's registers do
