"""Dense convolutions of few channels on CPU: products with a banded matrix, some places of a row at a time.

What a kernel meets at one place of a digit is some 25 numbers, too few for a fast product, and to write them out for
every place copies each pixel as often. So a row of the left factor is what the kernel meets at a few places next to
each other, and the right factor has the kernel once for each place, a pixel lower every time:

    k 0 0
    l k 0
    m l k        a kernel of one row (k l m) at three places: five pixels in, three out
    0 m l
    0 0 m

The zeros double the work; the numbers that are written become a third as many for 5x5, two thirds for 3x3.

Each function returns NotImplemented for what `conv_cpu` is to do.
"""

import functools

import jax
import jax.numpy as jnp

from cvresearch.nn import conv_shifted as shifted

FEW_CHANNELS = 8  # above which the forms of `conv_cpu` are as fast
AT_ONCE = 1 << 19  # numbers to be written out at once for a kernel gradient: 2 MiB, what the caches of two cores hold


def forward(x: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns the convolution of images (batch, height, width, channels) with a kernel, HWIO, or NotImplemented.

    Args:
      window: a `conv_primitives.Window`.
    """
    if not kernel.size or not _suits(x, kernel.shape[2], window):
        return NotImplemented
    maps = _met(x, window) @ _band(kernel, _places(window))
    return maps.reshape(len(x), window.output[0], -1, kernel.shape[3])[:, :, : window.output[1]]


def input_gradient(g: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns the gradient of <g, forward(x, kernel)> for x, or NotImplemented."""
    channels = kernel.shape[2]
    if not _suits(g, channels, window):
        return NotImplemented
    (rows, columns), places = window.size, _places(window)
    high, span = window.output[0] + rows - 1, places + columns - 1
    product = shifted.written(_by_places(g, places) @ _band(kernel, places).T)
    tiles, numbers = product.shape[2], span * channels
    by_row = (product[..., i * numbers : (i + 1) * numbers] for i in range(rows))
    met = shifted.total(shifted.pad(row, [(i, rows - 1 - i), (0, 0)]) for i, row in enumerate(by_row))
    met = shifted.written(met).reshape(-1, tiles, span, channels)
    starts = range(0, tiles * places, places)
    wide = starts[-1] + span
    lines = shifted.total(shifted.pad(met[:, t, None], [(0, 0), (i, wide - span - i)]) for t, i in enumerate(starts))
    axes = zip(window.padding, window.image, (high, wide), strict=True)
    return shifted.pad(lines.reshape(len(g), high, wide, channels), [(-a, n + a - size) for (a, _), n, size in axes])


def kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the gradient of <g, forward(x, kernel)> for the kernel, HWIO, or NotImplemented."""
    if not _suits(g, x.shape[-1], window):
        return NotImplemented
    numbers = g.shape[1] * g.shape[2] * window.size[0] * x.shape[-1] * 2  # about: a tile is two kernels wide
    return shifted.summed(functools.partial(_kernel_gradient, window=window), x, g, max(1, AT_ONCE // numbers))


def _suits(maps: jax.Array, channels: int, window) -> bool:
    if not maps.size or window.groups > 1 or window.size[1] == 1 or window.output[1] == 1:
        return False
    return 0 < channels <= FEW_CHANNELS and window.strides == window.dilation == (1, 1)


def _kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    (rows, columns), places = window.size, _places(window)
    band = shifted.flat(_met(x, window)).T @ shifted.flat(_by_places(g, places))
    band = band.reshape(rows, places + columns - 1, x.shape[-1], places, g.shape[-1])
    return shifted.total(band[:, j : j + columns, :, j] for j in range(places))


def _places(window) -> int:
    """Returns how many places make a tile: about as many as the kernel has columns, better a divisor of the width."""
    columns = window.size[1]
    divisor = max(n for n in range(1, columns + 1) if window.output[1] % n == 0)
    return divisor if 2 * divisor > columns else columns


def _met(x: jax.Array, window) -> jax.Array:
    """Returns what the kernel meets in each tile, (batch, rows of the map, tiles, rows * span * channels)."""
    places, (top, bottom), (left, _) = _places(window), *window.padding
    tiles, span = -(-window.output[1] // places), places + window.size[1] - 1
    wide = (tiles - 1) * places + span
    x = shifted.written(shifted.pad(x, [(top, bottom), (left, wide - x.shape[2] - left)]))
    lines = jnp.stack([x[:, :, t * places : t * places + span] for t in range(tiles)], axis=2)
    lines = shifted.written(lines.reshape(*lines.shape[:3], -1))
    by_row = [lines[:, i : i + window.output[0]] for i in range(window.size[0])]
    return shifted.written(jnp.concatenate(by_row, axis=-1))


def _by_places(g: jax.Array, places: int) -> jax.Array:
    """Returns the maps' gradient of each tile, (batch, rows, tiles, places * features)."""
    g = shifted.pad(g, [(0, 0), (0, -g.shape[2] % places)])
    return g.reshape(*g.shape[:2], -1, places * g.shape[3])


def _band(kernel: jax.Array, places: int) -> jax.Array:
    """Returns the kernel at each place of a tile, (rows * span * channels, places * features)."""
    rows, columns, channels, features = kernel.shape
    shifts = [jnp.pad(kernel, ((0, 0), (j, places - 1 - j), (0, 0), (0, 0))) for j in range(places)]
    return jnp.stack(shifts, axis=3).reshape(rows * (places + columns - 1) * channels, places * features)
