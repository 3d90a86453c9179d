"""Large convolutions on CPU, and their gradients, by the two functions of oneDNN that XLA has.

Each function returns NotImplemented for what `conv_cpu` is to do: small and depthwise ones, few images, other numbers
than float32, batches over several devices.

The input gradient is a convolution with the kernel turned, and the kernel gradient a product of what the kernel meets
with the gradient of the maps.
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
WIDE = 128  # channels above which a kernel's rows, to be put in order afterwards, are too much to move
AT_ONCE = 1 << 21  # numbers to be written out at once
LOW_MAP = 8  # rows of a map below which rows of padding are too much to multiply


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
        return grouped.kernel_gradient(_dense_kernel_gradient, x, g, window)
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
    return onednn.convolution(g, turned, zeros, groups=groups, exchanged=groups == 1)


def _dense_kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    if window.size == (1, 1) and not any(map(any, window.padding)):
        return onednn.turned_product(shifted.flat(shifted.strided(x, window.strides)), shifted.flat(g))[None, None]
    return shifted.of_the_fewer_channels(_of_some_images_at_a_time, x, g, window)


def _of_some_images_at_a_time(x: jax.Array, g: jax.Array, window) -> jax.Array:
    channels, features = x.shape[-1], g.shape[-1]
    if window.strides[0] > 1 or g.shape[1] < LOW_MAP or max(channels, features) > WIDE or features > 2 * channels:
        numbers = math.prod(window.output) * math.prod(window.size) * channels
        return shifted.summed(functools.partial(_by_taps, window=window), x, g, numbers, AT_ONCE)
    numbers = (g.shape[1] + window.size[0]) * g.shape[2] * (window.size[1] * channels + window.size[0] * features)
    return shifted.summed(functools.partial(_by_rows, window=window), x, g, numbers, AT_ONCE)


def _by_taps(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the product of all that the kernel meets with the gradient."""
    met = shifted.all_taps(x, window)
    return onednn.turned_product(shifted.flat(met), shifted.flat(g)).reshape(*window.size, x.shape[-1], g.shape[-1])


def _by_rows(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the product of what the kernel's columns meet with the gradient, padded to where each row begins."""
    columns = shifted.columns(x, window)
    rows = shifted.rows(g, columns.shape[1], window)
    product = onednn.turned_product(
        shifted.flat(columns), shifted.flat(shifted.written(jnp.concatenate(rows, axis=-1)))
    )
    shape = (window.size[1], x.shape[-1], window.size[0], g.shape[-1])
    return product.reshape(shape).transpose(2, 0, 1, 3)
