"""Convolutions and their gradients in forms for which XLA's CPU backend has fast code.

XLA:CPU (jax 0.10) hands matrix products and dense convolutions in canonical order (NHWC, HWIO) to a fast library, and
compiles elementwise loops well. Everything else (grouped and depthwise convolutions, dilated images, a transposed left
factor, any other order of dimensions inside a loop) falls to code that is tens to thousands of times slower. So here

- a 1x1 convolution is a matrix product, and so is one as large as its image;
- a depthwise one is a sum over the taps of shifted images times numbers;
- a grouped one is a few dense ones, with zeros between groups;
- the input gradient of a dense one is again one, or one for each phase of the stride;
- a dense 3x3 one with few channels is a matrix product, whose parts are shifted and added;
- the kernel gradient is a few matrix products.

Sums are in another order, so results differ by rounding.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from cvresearch.nn import conv_groups as grouped
from cvresearch.nn import conv_shifted as shifted

Images = Float[Array, 'batch height width channels']
Maps = Float[Array, 'batch rows columns features']
Kernel = Float[Array, 'kernel_height kernel_width depth features']

FEW_PLACES = 4  # places for each feature below which it costs more to turn a kernel than to use it
NARROW = 64  # channels below which XLA's library leaves cores idle
LOW_MAP = 8  # rows of a map below which kernel gradients write out all that the kernel meets
FEW_TAPS = 9  # taps up to which they do so
AT_ONCE = 1 << 19  # numbers to be written out at once: 2 MiB, what the caches of two cores hold
BOTH_NARROW = 48  # channels and features under a row and a column of the kernel up to which one product is best
WORTHWHILE = 1 << 24  # multiply-adds that pay for a second core


def forward(x: Images, kernel: Kernel, window) -> Maps:
    """Returns the convolution of images with a kernel (HWIO, depth is channels / groups).

    Args:
      window: a `conv_primitives.Window`.
    """
    if not x.size or not kernel.size:
        return jnp.zeros((x.shape[0], *window.output, kernel.shape[3]), x.dtype)
    if window.groups > 1:
        if kernel.shape[2] > 1:
            return grouped.convolution(forward, x, kernel, window)
        return shifted.depthwise(_repeat(x, kernel.shape[3] // window.groups), kernel, window)
    if _is_whole(window):
        return (x.reshape(len(x), -1) @ kernel.reshape(-1, kernel.shape[3]))[:, None, None]
    if _is_product(window):
        return jnp.einsum('nhwc,co->nhwo', shifted.strided(x, window.strides), kernel[0, 0])
    return _dense(x, kernel, window.strides, window.padding, window.dilation)


def input_gradient(g: Maps, kernel: Kernel, window) -> Images:
    """Returns the gradient of <g, forward(x, kernel)> for x, (batch, height, width, channels)."""
    channels = kernel.shape[2] * window.groups
    if not g.size or not kernel.size:
        return jnp.zeros((g.shape[0], *window.image, channels), g.dtype)
    if window.groups > 1 and kernel.shape[2] > 1:
        return grouped.convolution(input_gradient, g, kernel, window)
    if window.groups > 1:
        result = shifted.phases(shifted.depthwise_full, g, kernel, window)
        return result.reshape(*result.shape[:3], channels, -1).sum(-1) if result.shape[-1] != channels else result
    if _is_whole(window):
        return (g[:, 0, 0] @ kernel.reshape(-1, kernel.shape[3]).T).reshape(len(g), *window.image, channels)
    if _is_product(window):
        pads = [
            (0, n - (o - 1) * s - 1, s - 1) for n, o, s in zip(window.image, window.output, window.strides, strict=True)
        ]
        product = jnp.einsum('nhwo,co->nhwc', g, kernel[0, 0])
        return lax.pad(product, np.zeros((), g.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    return shifted.phases(_dense_full, g, kernel, window)


def kernel_gradient(x: Images, g: Maps, window) -> Kernel:
    """Returns the gradient of <g, forward(x, kernel)> for the kernel, HWIO."""
    if not x.size or not g.size:
        return jnp.zeros((*window.size, x.shape[-1] // window.groups, g.shape[-1]), x.dtype)
    if window.groups > 1:
        if x.shape[-1] > window.groups:
            return grouped.kernel_gradient(kernel_gradient, x, g, window)
        return shifted.depthwise_kernel_gradient(_repeat(x, g.shape[-1] // window.groups), g, window)
    if _is_whole(window):
        return (x.reshape(len(x), -1).T @ g[:, 0, 0]).reshape(*window.size, x.shape[-1], -1)
    if _is_product(window):
        x, g = (array.reshape(-1, array.shape[-1]) for array in (shifted.strided(x, window.strides), g))
        return (x.T @ g)[None, None]
    return _dense_kernel_gradient(x, g, window)


def _is_product(window) -> bool:
    return window.size == (1, 1) and not any(map(any, window.padding))


def _is_whole(window) -> bool:
    """Whether a kernel is as large as the image, and meets it once: a dense layer."""
    return window.size == window.image and window.dilation == (1, 1) and not any(map(any, window.padding))


def _repeat(x: jax.Array, times: int) -> jax.Array:
    """Repeats each channel, so that a depthwise convolution has one feature a channel."""
    return x if times == 1 else jnp.repeat(x, times, axis=-1)


# Dense.


def _dense(x: jax.Array, kernel: jax.Array, strides=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1)) -> jax.Array:
    if strides == dilation == (1, 1) and _is_narrow(x, kernel):
        return _by_products(x, kernel, padding)
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def _is_narrow(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether XLA's library would run a convolution with so few channels on one core, and there is work for more."""
    *size, channels, features = kernel.shape
    work = math.prod(x.shape[:3]) * kernel.size
    return size == [3, 3] and features > 16 and min(channels, features) <= NARROW and work >= WORTHWHILE


def _by_products(x: jax.Array, kernel: jax.Array, padding) -> jax.Array:
    """Returns the convolution as one matrix product and a sum of its shifted parts.

    The kernel's columns are channels of the left factor and its rows are features of the right one; where there
    are few features all of the kernel is, since those are what is moved.
    """
    rows, columns, channels, features = kernel.shape
    height, width = (n + sum(pad) - k + 1 for n, pad, k in zip(x.shape[1:3], padding, (rows, columns), strict=True))
    if channels >= 4 * features:
        parts = x @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
        return _sum_of_taps(parts, list(np.ndindex(rows, columns)), (height, width), padding)
    x = shifted.pad(x, padding)
    x = shifted.written(jnp.concatenate([x[:, :, j : j + width] for j in range(columns)], axis=-1))
    parts = shifted.written(x @ kernel.transpose(1, 2, 0, 3).reshape(columns * channels, -1))
    met = [parts[:, i : i + height] for i in range(rows)]
    return shifted.total(part[..., k * features : (k + 1) * features] for k, part in enumerate(met))


def _dense_full(g: jax.Array, kernel: jax.Array, padding) -> jax.Array:
    """Convolves with the kernel turned by 180 degrees and its channels and features exchanged."""
    if math.prod(g.shape[:3]) < FEW_PLACES * kernel.shape[3]:
        return _by_parts(g, kernel, padding)
    return _dense(g, shifted.written(lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)), padding=padding)


def _by_parts(g: jax.Array, kernel: jax.Array, padding) -> jax.Array:
    """Returns the same as one product with the kernel as it is: where maps are low, to turn it is most of the work."""
    rows, columns, _, features = kernel.shape
    height, width = (n + sum(pad) - k + 1 for n, pad, k in zip(g.shape[1:3], padding, (rows, columns), strict=True))
    turned = [(rows - 1 - i, columns - 1 - j) for i, j in np.ndindex(rows, columns)]
    return _sum_of_taps(g @ kernel.reshape(-1, features).T, turned, (height, width), padding)


def _sum_of_taps(parts: jax.Array, taps: list[tuple[int, int]], output: tuple[int, int], padding) -> jax.Array:
    """Returns the sum of what each tap made of every pixel, side by side as channels, shifted by the tap."""
    parts, features = shifted.pad(shifted.written(parts), padding), parts.shape[-1] // len(taps)
    met = [parts[:, i : i + output[0], j : j + output[1]] for i, j in taps]
    return shifted.total(part[..., k * features : (k + 1) * features] for k, part in enumerate(met))


# Kernel gradients. XLA's product with a left factor to be turned is slow, so most are turned beforehand.


def _dense_kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the gradient of <g, the convolution of x> for the kernel, HWIO.

    What is shifted has the fewer channels: without strides the maps' gradient may be as well as the images, and the two
    exchange their parts.

    Args:
      x: images (batch, height, width, channels).
      g: the gradient of the maps, (batch, *window.output, features).
      window: a `conv_primitives.Window`, of one group.
    """
    if x.shape[-1] <= g.shape[-1] or (window.strides, window.dilation) != ((1, 1), (1, 1)):
        return _kernel_of_some_images_at_a_time(x, g, window)
    padding = tuple((k - 1 - a, k - 1 - b) for k, (a, b) in zip(window.size, window.padding, strict=True))
    exchanged = dataclasses.replace(window, image=g.shape[1:3], padding=padding)
    return lax.rev(_kernel_of_some_images_at_a_time(g, x, exchanged), (0, 1)).transpose(0, 1, 3, 2)


def _kernel_of_some_images_at_a_time(x: jax.Array, g: jax.Array, window) -> jax.Array:
    if window.strides[0] > 1:
        gradient = _kernel_by_strided_rows
    elif g.shape[1] < LOW_MAP and math.prod(window.size) <= FEW_TAPS:
        gradient = _kernel_of_low_maps
    else:
        gradient = _kernel_by_rows
    high = window.image[0] + sum(window.padding[0])
    columns = high * window.output[1] * window.size[1] * x.shape[-1]
    return shifted.summed(functools.partial(gradient, window=window), x, g, max(1, AT_ONCE // columns))


def _kernel_by_rows(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns a product for each row of the kernel, with the gradient padded to where the row begins."""
    columns, features = shifted.columns(x, window), g.shape[-1]
    right = shifted.rows(g, columns.shape[1], window)
    left, shape = shifted.flat(columns), (window.size[1], x.shape[-1], window.size[0], features)
    if max(left.shape[1], window.size[0] * features) <= BOTH_NARROW:
        side_by_side = shifted.written(jnp.concatenate(right, axis=-1))
        return (left.T @ shifted.flat(side_by_side)).reshape(shape).transpose(2, 0, 1, 3)
    left = shifted.written(left.T)
    rows = [left @ shifted.flat(shifted.written(factor)) for factor in right]
    return jnp.stack(rows).reshape(*window.size, x.shape[-1], features)


def _kernel_of_low_maps(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns one product of all that the kernel meets with the gradient."""
    met = shifted.all_taps(x, window)
    return (shifted.written(shifted.flat(met).T) @ shifted.flat(g)).reshape(*window.size, x.shape[-1], g.shape[-1])


def _kernel_by_strided_rows(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns a product for each row of the kernel, with what the row meets cut out: of most rows that is little."""
    rows = [shifted.flat(shifted.written(row)) for row in shifted.cut(shifted.columns(x, window), window, 1)]
    return jnp.stack([_wider_right(row, shifted.flat(g)) for row in rows]).reshape(
        *window.size, x.shape[-1], g.shape[-1]
    )


def _wider_right(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns left.T @ right, the wider of the two on the right."""
    return left.T @ right if left.shape[1] <= right.shape[1] else (right.T @ left).T
