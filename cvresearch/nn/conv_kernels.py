"""Kernel gradients of dense convolutions as matrix products: for `conv_cpu`.

What a kernel's columns meet is written out next to each other, as channels, for some images at a time, so that it stays
in the cache. XLA's product with a left factor to be turned is slow; so most are turned beforehand.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from cvresearch.nn import conv_cut as cutting

LOW_MAP = 8  # rows below which all that a kernel meets is written out
FEW_TAPS = 9  # of a kernel up to which it may be
BOTH_NARROW = 48  # channels and features under a row and a column of the kernel up to which one product is best


def dense(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns the gradient of <g, the convolution of x> for the kernel, HWIO.

    Args:
      x: images (batch, height, width, channels).
      g: the gradient of the maps, (batch, *window.output, features).
      window: a `conv_primitives.Window`, of one group.
    """
    if x.shape[-1] > g.shape[-1] and window.strides == window.dilation == (1, 1):
        # The fewer channels are those to be shifted: image and gradient exchange their parts.
        padding = tuple((k - 1 - a, k - 1 - b) for k, (a, b) in zip(window.size, window.padding, strict=True))
        turned = dataclasses.replace(window, image=g.shape[1:3], padding=padding)
        return lax.rev(_for_some_images(g, x, turned), (0, 1)).transpose(0, 1, 3, 2)
    return _for_some_images(x, g, window)


def _for_some_images(x: jax.Array, g: jax.Array, window) -> jax.Array:
    if window.strides[0] > 1:
        gradient = _strided
    elif g.shape[1] < LOW_MAP and math.prod(window.size) <= FEW_TAPS:
        gradient = _low
    else:
        gradient = _rows
    high = window.image[0] + sum(window.padding[0])
    columns = high * window.output[1] * window.size[1] * x.shape[-1]
    return cutting.summed(functools.partial(gradient, window=window), x, g, columns)


def _columns(x: jax.Array, window) -> jax.Array:
    """Returns what the kernel's columns meet, (batch, padded height, output width, columns * channels)."""
    x = cutting.written(cutting.pad(x, window.padding))
    return cutting.written(jnp.concatenate(cutting.cut(x, window, 2), axis=-1))


def _rows(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns a product for each row of the kernel, with the gradient padded to where the row begins."""
    columns, high, features = _columns(x, window), g.shape[1], g.shape[-1]
    below = [columns.shape[1] - high - i for i in cutting.starts(window, 0)]
    right = [cutting.pad(g, [(i, j), (0, 0)]) for i, j in zip(cutting.starts(window, 0), below, strict=True)]
    left, shape = _flat(columns), (window.size[1], x.shape[-1], window.size[0], features)
    if max(left.shape[1], window.size[0] * features) <= BOTH_NARROW:
        side_by_side = cutting.written(jnp.concatenate(right, axis=-1))
        return (left.T @ _flat(side_by_side)).reshape(shape).transpose(2, 0, 1, 3)
    left = cutting.written(left.T)
    rows = [left @ _flat(cutting.written(each)) for each in right]
    return jnp.stack(rows).reshape(*window.size, x.shape[-1], features)


def _low(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns one product of all that the kernel meets with the gradient."""
    met = cutting.written(jnp.concatenate(cutting.cut(_columns(x, window), window, 1), axis=-1))
    return (cutting.written(_flat(met).T) @ _flat(g)).reshape(*window.size, x.shape[-1], g.shape[-1])


def _strided(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Returns a product for each row of the kernel, with what the row meets cut out: of most rows that is little."""
    rows = [_flat(cutting.written(row)) for row in cutting.cut(_columns(x, window), window, 1)]
    return jnp.stack([_wider_right(row, _flat(g)) for row in rows]).reshape(*window.size, x.shape[-1], g.shape[-1])


def _wider_right(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns left.T @ right, the wider of the two on the right."""
    return left.T @ right if left.shape[1] <= right.shape[1] else (right.T @ left).T


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])
