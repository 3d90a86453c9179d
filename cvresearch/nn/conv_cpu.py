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

Sums are in another order, so results differ by rounding. 16-bit floats are computed in float32 and rounded once.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Images = Float[Array, 'batch height width channels']
Maps = Float[Array, 'batch rows columns features']
Kernel = Float[Array, 'kernel_height kernel_width depth features']

DENSE_CHANNELS = 32  # input channels that grouped convolutions are joined up to
UNROLLED_PARTS = 8
THIN = 32  # numbers under the kernel up to which they are written out for every place
LOW_MAP = 8  # rows up to which kernel gradients treat images as a whole
NARROW = 64  # channels below which XLA's library leaves cores idle
WORTHWHILE = 1 << 24  # multiply-adds that pay for a second core


def _in_float32(function):
    """Makes a function of (left, right, window) compute 16-bit floats in float32."""

    @functools.wraps(function)
    def wide(left, right, window):
        if left.dtype.itemsize >= 4:
            return function(left, right, window)
        return function(left.astype(jnp.float32), right.astype(jnp.float32), window).astype(left.dtype)

    return wide


@_in_float32
def forward(x: Images, kernel: Kernel, window) -> Maps:
    """Returns the convolution of images with a kernel (HWIO, depth is channels / groups).

    Args:
      window: a `conv_primitives.Window`.
    """
    if not x.size or not kernel.size:
        return jnp.zeros((x.shape[0], *window.output, kernel.shape[3]), x.dtype)
    if window.groups > 1:
        if kernel.shape[2] > 1:
            return _grouped(forward, x, kernel, window)
        return _depthwise(_repeat(x, kernel.shape[3] // window.groups), kernel, window)
    if _is_whole(window):
        return (x.reshape(len(x), -1) @ kernel.reshape(-1, kernel.shape[3]))[:, None, None]
    if _is_product(window):
        return jnp.einsum('nhwc,co->nhwo', _strided(x, window.strides), kernel[0, 0])
    if _is_thin(x, window):
        product = kernel.reshape(-1, kernel.shape[3]).T @ _met(x, window)
        return product.reshape(-1, x.shape[0], *window.output).transpose(1, 2, 3, 0)
    return _dense(x, kernel, window.strides, window.padding, window.dilation)


@_in_float32
def input_gradient(g: Maps, kernel: Kernel, window) -> Images:
    """Returns the gradient of <g, forward(x, kernel)> for x, (batch, height, width, channels)."""
    channels = kernel.shape[2] * window.groups
    if not g.size or not kernel.size:
        return jnp.zeros((g.shape[0], *window.image, channels), g.dtype)
    if window.groups > 1 and kernel.shape[2] > 1:
        return _grouped(input_gradient, g, kernel, window)
    if window.groups > 1:
        result = _phases(_depthwise_full, g, kernel, window)
        return result.reshape(*result.shape[:3], channels, -1).sum(-1) if result.shape[-1] != channels else result
    if _is_whole(window):
        return (g[:, 0, 0] @ kernel.reshape(-1, kernel.shape[3]).T).reshape(len(g), *window.image, channels)
    if _is_product(window):
        pads = [
            (0, n - (o - 1) * s - 1, s - 1) for n, o, s in zip(window.image, window.output, window.strides, strict=True)
        ]
        product = jnp.einsum('nhwo,co->nhwc', g, kernel[0, 0])
        return lax.pad(product, np.zeros((), g.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    return _phases(_dense_full, g, kernel, window)


@_in_float32
def kernel_gradient(x: Images, g: Maps, window) -> Kernel:
    """Returns the gradient of <g, forward(x, kernel)> for the kernel, HWIO."""
    if not x.size or not g.size:
        return jnp.zeros((*window.size, x.shape[-1] // window.groups, g.shape[-1]), x.dtype)
    if window.groups > 1:
        if x.shape[-1] > window.groups:
            return _grouped_kernel_gradient(x, g, window)
        return _depthwise_kernel_gradient(_repeat(x, g.shape[-1] // window.groups), g, window)
    if _is_whole(window):
        return (x.reshape(len(x), -1).T @ g[:, 0, 0]).reshape(*window.size, x.shape[-1], -1)
    if _is_product(window):
        x, g = (array.reshape(-1, array.shape[-1]) for array in (_strided(x, window.strides), g))
        return (x.T @ g)[None, None]
    if _is_thin(x, window):
        return (_met(x, window) @ g.reshape(-1, g.shape[-1])).reshape(*window.size, x.shape[-1], -1)
    return _dense_kernel_gradient(x, g, window)


def _is_product(window) -> bool:
    return window.size == (1, 1) and not any(map(any, window.padding))


def _is_whole(window) -> bool:
    """Whether a kernel is as large as the image, and meets it once: a dense layer."""
    return window.size == window.image and window.dilation == (1, 1) and not any(map(any, window.padding))


def _is_thin(x: jax.Array, window) -> bool:
    """Whether all that a kernel meets at one place is so little that it is best written out: MNIST, CIFAR stems."""
    return window.strides == (1, 1) and math.prod(window.size) * x.shape[-1] <= THIN


def _strided(x: jax.Array, strides: tuple[int, int]) -> jax.Array:
    return x[:, :: strides[0], :: strides[1]]


def _repeat(x: jax.Array, times: int) -> jax.Array:
    """Repeats each channel, so that a depthwise convolution has one feature a channel."""
    return x if times == 1 else jnp.repeat(x, times, axis=-1)


def _written(x: jax.Array) -> jax.Array:
    """Returns x itself, computed before what uses it and not again within each use."""
    return lax.optimization_barrier(x)


def _pad(x: jax.Array, padding) -> jax.Array:
    """Pads, or crops where a number is negative."""
    if not any(map(any, padding)):
        return x
    return lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)])


def _taps(x: jax.Array, window, row: int, column: int) -> jax.Array:
    """Returns the pixels of the padded x that one tap of the kernel meets, (batch, *window.output, channels)."""
    start = (row * window.dilation[0], column * window.dilation[1])
    stop = [at + (n - 1) * step + 1 for at, n, step in zip(start, window.output, window.strides, strict=True)]
    return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[3]), (1, *window.strides, 1))


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
        parts = _pad(_written(parts), padding)
        met = [parts[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    else:
        x = _pad(x, padding)
        x = _written(jnp.concatenate([x[:, :, j : j + width] for j in range(columns)], axis=-1))
        parts = _written(x @ kernel.transpose(1, 2, 0, 3).reshape(columns * channels, -1))
        met = [parts[:, i : i + height] for i in range(rows)]
    return _sum(part[..., k * features : (k + 1) * features] for k, part in enumerate(met))


def _dense_full(g: jax.Array, kernel: jax.Array, padding) -> jax.Array:
    """Convolves with the kernel turned by 180 degrees and its channels and features exchanged."""
    return _dense(g, lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2), padding=padding)


def _phases(full, g: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns the input gradient of a strided convolution, without a gradient full of zeros.

    Padded row s * u + a of the input met the taps a, a + s, a + 2s ... of the kernel, at the rows u, u - 1,
    u - 2 ... of the output. So each of the s * s phases a is a convolution of its own with a part of the kernel.
    """
    if window.dilation != (1, 1):
        zeros = [*((0, 0, gap - 1) for gap in window.dilation), (0, 0, 0), (0, 0, 0)]
        kernel = lax.pad(kernel, np.zeros((), kernel.dtype), zeros)
    counts = [(n - 1 + pad[0]) // s + 1 for n, pad, s in zip(window.image, window.padding, window.strides, strict=True)]
    down, across = window.strides

    def phase(a: int, b: int) -> jax.Array:
        part = kernel[a::down, b::across]
        if not part.size:
            return jnp.zeros((g.shape[0], *counts, features), g.dtype)
        padding = [(t - 1, n - size) for t, n, size in zip(part.shape[:2], counts, g.shape[1:3], strict=True)]
        return full(g, part, padding)

    features = jax.eval_shape(lambda: full(g, kernel[:1, :1], [(0, 0), (0, 0)])).shape[-1]
    rows = [jnp.stack([phase(a, b) for b in range(across)], 3) if across > 1 else phase(a, 0) for a in range(down)]
    rows = [row.reshape(row.shape[0], row.shape[1], -1, features) for row in rows]
    x = (jnp.stack(rows, 2) if down > 1 else rows[0]).reshape(g.shape[0], counts[0] * down, -1, features)
    # Rows that no window met, after the last, are zeros.
    axes = zip(window.image, window.padding, x.shape[1:3], strict=True)
    return _pad(x, [(-before, n + before - size) for n, (before, _), size in axes])


def _dense_kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the kernel gradient as matrix products of what the kernel's columns meet with the gradient."""
    if x.shape[-1] > g.shape[-1] and window.strides == window.dilation == (1, 1):
        # The fewer channels are those to be shifted: image and gradient exchange their parts.
        padding = tuple((k - 1 - a, k - 1 - b) for k, (a, b) in zip(window.size, window.padding, strict=True))
        turned = dataclasses.replace(window, image=g.shape[1:3], padding=padding)
        return lax.rev(_kernel_rows(g, x, turned), (0, 1)).transpose(0, 1, 3, 2)
    return _kernel_rows(x, g, window)


def _kernel_rows(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns a product of what the kernel's columns meet with the gradient for each row of the kernel.

    What a row meets is cut out of the left factor, or the gradient is padded to where the row begins, which is
    cheaper unless the map is low.
    """
    if window.strides[0] > 1:
        return _strided_kernel_rows(x, g, window)
    left = _turned_columns(x, window)
    columns, channels, _, height, _ = left.shape
    high, features = g.shape[1], g.shape[-1]

    def product(i: int) -> jax.Array:
        if high > LOW_MAP and height < 2 * high:
            right = _written(_pad(g, [(i, height - high - i), (0, 0)]))
            return left.reshape(columns * channels, -1) @ right.reshape(-1, features)
        return _written(left[:, :, :, i : i + high].reshape(columns * channels, -1)) @ g.reshape(-1, features)

    return jnp.stack([product(i) for i in _starts(window, 0)]).reshape(*window.size, channels, features)


def _strided_kernel_rows(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the same, with channels last: where most pixels are passed over it costs less to cut than to turn.

    In a loop, where XLA has no fast product with a left factor to be turned, strided convolutions are not found.
    """
    columns = jnp.concatenate(_cut(_written(_pad(x, window.padding)), window, 2), axis=-1)
    rows = [_written(row).reshape(-1, columns.shape[-1]) for row in _cut(_written(columns), window, 1)]
    return jnp.stack([_product(row, g.reshape(-1, g.shape[-1])) for row in rows]).reshape(*window.size, x.shape[-1], -1)


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns left.T @ right, the wider of the two on the right."""
    return left.T @ right if left.shape[1] <= right.shape[1] else (right.T @ left).T


def _starts(window, axis: int) -> range:
    """Returns where the kernel's rows (axis 0) or columns (axis 1) begin, in pixels."""
    return range(0, window.size[axis] * window.dilation[axis], window.dilation[axis])


def _cut(x: jax.Array, window, axis: int) -> list[jax.Array]:
    """Returns what each row (axis 1 of the padded images) or column (axis 2) of the kernel meets."""
    stride = window.strides[axis - 1]
    reach = (window.output[axis - 1] - 1) * stride + 1
    return [lax.slice_in_dim(x, i, i + reach, stride, axis) for i in _starts(window, axis - 1)]


def _turned_columns(x: jax.Array, window) -> jax.Array:
    """Returns what each column of the kernel meets, (columns, channels, batch, padded height, output width)."""
    x = _written(_pad(_written(x), window.padding).transpose(3, 0, 1, 2))
    reach = (window.output[1] - 1) * window.strides[1] + 1
    return _written(jnp.stack([x[..., j : j + reach : window.strides[1]] for j in _starts(window, 1)]))


def _met(x: jax.Array, window) -> jax.Array:
    """Returns what the kernel meets, (taps * channels, batch * output height * output width); no strides."""
    x = _turned_columns(x, window)
    rows = jnp.stack([x[:, :, :, i : i + window.output[0]] for i in _starts(window, 0)])
    return _written(rows).reshape(-1, math.prod(rows.shape[3:]))


# Depthwise: x and the kernel have as many channels as there are features.


def _depthwise(x: jax.Array, kernel: jax.Array, window) -> jax.Array:
    x = _written(_pad(x, window.padding))
    return _sum(_taps(x, window, i, j) * kernel[i, j, 0] for i, j in np.ndindex(window.size))


def _depthwise_full(g: jax.Array, kernel: jax.Array, padding) -> jax.Array:
    g = _written(_pad(g, padding))
    height, width = (n - k + 1 for n, k in zip(g.shape[1:3], kernel.shape[:2], strict=True))
    return _sum(
        g[:, i : i + height, j : j + width] * kernel[kernel.shape[0] - 1 - i, kernel.shape[1] - 1 - j, 0]
        for i, j in np.ndindex(kernel.shape[:2])
    )


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, terms)


def _depthwise_kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Sums products of shifted images and the gradient, image by image: so they stay in the cache."""
    x = _written(_pad(x, window.padding))
    taps = list(np.ndindex(window.size))

    def products(x, g):
        return [_taps(x[None], window, i, j)[0] * g for i, j in taps]

    if window.strides == (1, 1) and window.size <= (3, 3) and g.shape[1] > LOW_MAP:

        def add_sums(total, pair):
            terms, zeros = products(*pair), [np.zeros((), x.dtype)] * len(taps)
            sums = lax.reduce(terms, zeros, lambda a, b: [u + v for u, v in zip(a, b, strict=True)], (0, 1))
            return total + jnp.stack(sums), None

        total, _ = lax.scan(add_sums, jnp.zeros_like(g, shape=(len(taps), g.shape[-1])), (x, g))
    else:  # many taps: sums of whole images, added up at the end

        def add_images(totals, pair):
            return [a + b for a, b in zip(totals, products(*pair), strict=True)], None

        totals, _ = lax.scan(add_images, [jnp.zeros_like(g[0])] * len(taps), (x, g))
        total = jnp.stack([tap.sum((0, 1)) for tap in totals])
    return total.reshape(*window.size, 1, g.shape[-1])


# Grouped: dense convolutions over as many groups at once as fill DENSE_CHANNELS.


def _grouped(function, x: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns `forward` or `input_gradient` of each part, side by side."""
    together = _together(window.groups, kernel.shape[2])
    dense = dataclasses.replace(window, groups=1)
    parts = [_parts(array, window.groups // together) for array in (x, kernel)]
    return _over_parts(lambda part: function(part[0], _on_diagonal(part[1], together), dense), parts)


def _grouped_kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    together = _together(window.groups, x.shape[-1] // window.groups)
    dense = dataclasses.replace(window, groups=1)
    parts = [_parts(array, window.groups // together) for array in (x, g)]
    return _over_parts(lambda part: _diagonal(kernel_gradient(part[0], part[1], dense), together), parts)


def _parts(x: jax.Array, count: int) -> list[jax.Array]:
    """Returns x cut along its channels."""
    return jnp.split(x, count, axis=-1)


def _over_parts(function, parts: list[list[jax.Array]]) -> jax.Array:
    """Returns the results for all parts, joined along the channels: many of them by a loop, which compiles once."""
    if len(parts[0]) <= UNROLLED_PARTS:
        return jnp.concatenate([function(part) for part in zip(*parts, strict=True)], axis=-1)
    results = jnp.moveaxis(lax.map(function, [jnp.stack(arrays) for arrays in parts]), 0, -2)
    return results.reshape(*results.shape[:-2], -1)


def _together(groups: int, depth: int) -> int:
    """Returns how many groups of `depth` channels make one dense convolution."""
    return max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * depth <= DENSE_CHANNELS))


def _on_diagonal(kernel: jax.Array, groups: int) -> jax.Array:
    """Returns (height, width, groups * depth, features), zero but where depth and features share a group."""
    height, width, depth, features = kernel.shape
    blocks = kernel.reshape(height, width, 1, depth, groups, features // groups) * _same_group(groups, kernel.dtype)
    return blocks.reshape(height, width, groups * depth, features)


def _diagonal(kernel: jax.Array, groups: int) -> jax.Array:
    """Returns what `_on_diagonal` spread out, (height, width, depth, features)."""
    height, width, channels, features = kernel.shape
    blocks = kernel.reshape(height, width, groups, -1, groups, features // groups) * _same_group(groups, kernel.dtype)
    return blocks.sum(2).reshape(height, width, channels // groups, features)


def _same_group(groups: int, dtype) -> jax.Array:
    return jnp.eye(groups, dtype=dtype).reshape(groups, 1, groups, 1)
