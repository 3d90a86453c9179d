"""Large convolutions on CPU, and their gradients, by the two functions of oneDNN that XLA has.

Each function returns NotImplemented for what the other forms are to do: small and depthwise ones, few images, float64,
batches over several devices.

The input gradient is a convolution with the kernel turned, and the kernel gradient one of the images with the gradient
of the maps. Those of 1x1 are products.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from cvresearch.nn import conv_groups as grouped
from cvresearch.nn import conv_shifted as shifted
from cvresearch.nn import onednn

WORTHWHILE = 1 << 24  # multiply-adds below which a program that is read from the cache on disk is worth more
FEW_IMAGES = 8  # below which little is gained, or lost, and a program that is read from the cache is worth more
AT_ONCE = 16  # images whose kernel gradients are computed at once: they fill a vector and stay in the cache
SUMMED = 1 << 16  # products that one sum has at most: it is rounded after each
JOINED = 16  # channels up to which groups are joined for their kernel gradient: as many features fill a vector
UNROLLED = 32  # parts of so many channels without a loop, which would write each part anew


def forward(x: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns the convolution of images with a kernel (HWIO, depth is channels / groups), or NotImplemented.

    Args:
      window: a `conv_primitives.Window`.
    """
    if _is_depthwise(kernel, window) or not _suits(x, kernel.size, window):
        return NotImplemented
    return onednn.convolution(x, kernel, window.padding, window.strides, window.dilation, window.groups)


def input_gradient(g: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns the gradient of <g, forward(x, kernel)> for x, or NotImplemented."""
    if _is_depthwise(kernel, window) or not _suits(g, kernel.size, window):
        return NotImplemented
    return shifted.phases(functools.partial(_full, groups=window.groups), g, kernel, window)


def kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the gradient of <g, forward(x, kernel)> for the kernel, HWIO, or NotImplemented."""
    depth = x.shape[-1] // window.groups
    if (window.groups > 1 and depth == 1) or not _suits(x, math.prod(window.size) * depth * g.shape[-1], window):
        return NotImplemented
    if window.groups > 1:
        return grouped.kernel_gradient(_dense_kernel_gradient, x, g, window, JOINED, UNROLLED)
    return _dense_kernel_gradient(x, g, window)


def _suits(maps: jax.Array, kernel_size: int, window) -> bool:
    if not onednn.available() or maps.dtype != jnp.float32 or shifted.over_devices():
        return False
    cropped = any(n < 0 for pair in window.padding for n in pair)
    work = len(maps) * math.prod(window.output) * kernel_size
    return not cropped and len(maps) >= FEW_IMAGES and work >= max(WORTHWHILE, 1)


def _is_depthwise(kernel: jax.Array, window) -> bool:
    """Whether each channel is by itself, for which `conv_cpu` is as fast."""
    return window.groups > 1 and kernel.shape[2] == 1


def _full(g: jax.Array, kernel: jax.Array, padding, groups: int) -> jax.Array:
    """Convolves with the kernel turned by 180 degrees and its channels and features exchanged."""
    rows, columns, depth, features = kernel.shape
    turned = kernel if rows == columns == 1 else lax.rev(kernel, (0, 1))
    if groups > 1:
        turned = turned.reshape(rows, columns, depth, groups, features // groups).transpose(0, 1, 4, 3, 2)
        turned = turned.reshape(rows, columns, features // groups, groups * depth)
    g = shifted.pad(g, [[min(n, 0) for n in pair] for pair in padding])
    zeros = [[max(n, 0) for n in pair] for pair in padding]
    return onednn.convolution(g, turned, zeros, groups=groups, axes='HWIO' if groups > 1 else 'HWOI')


def _dense_kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    if window.size == (1, 1) and not any(map(any, window.padding)):
        return onednn.turned_product(shifted.flat(shifted.strided(x, window.strides)), shifted.flat(g))[None, None]
    return shifted.summed(functools.partial(_by_the_gradient, window=window), x, g, AT_ONCE)


def _by_the_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the kernel gradient as the convolution of the images with the gradient of their maps.

    Images are its channels and add up. The pixels of a row and their channels are one axis, along which the gradient's
    pixels, the taps of this convolution, lie a stride apart: so its result has, for every row of the kernel, the
    columns and channels of the kernel side by side.
    """
    rows, channels, features = window.size[0], x.shape[-1], g.shape[-1]
    reach = [(k - 1) * gap + 1 for k, gap in zip(window.size, window.dilation, strict=True)]
    needed = [(n - 1) * step + k for n, step, k in zip(window.output, window.strides, reach, strict=True)]
    axes = zip(needed, window.image, window.padding, strict=True)
    x = shifted.pad(x, [(before, n - size - before) for n, size, (before, _) in axes])
    x = shifted.written(x.reshape(len(x), -1).T).reshape(1, needed[0], needed[1] * channels, len(x))
    apart, steps = (window.strides[0], window.strides[1] * channels), (window.dilation[0], 1)

    def of_rows(start: int, stop: int) -> jax.Array:
        met = x[:, start * apart[0] : (stop - 1) * apart[0] + reach[0]]
        return onednn.convolution(met, g[:, start:stop], ((0, 0), (0, 0)), steps, apart, axes='IHWO')

    high, count = window.output[0], max(1, SUMMED // (len(g) * window.output[1]))
    gradient = shifted.total(of_rows(start, min(start + count, high)) for start in range(0, high, count))
    return gradient.reshape(rows, reach[1], channels, features)[:, :: window.dilation[1]]
