"""Convolutions with groups as a few dense ones, each over several groups, with zeros between them."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

DENSE_CHANNELS = 32  # input channels that groups are joined up to, on CPUs
UNROLLED_PARTS = 8


def convolution(
    function: Callable,
    x: jax.Array,
    kernel: jax.Array,
    window,
    joined: int = DENSE_CHANNELS,
    unrolled: int = UNROLLED_PARTS,
) -> jax.Array:
    """Returns a convolution with groups, or its input gradient.

    Args:
      function: (x, kernel, window) -> the same of a dense convolution.
      x: images, or the gradients of their maps.
      kernel: HWIO, its depth is channels / groups.
      window: a `conv_primitives.Window`.
      joined: input channels that groups are joined up to.
      unrolled: parts up to which there is no loop over them.
    """
    together = _together(window.groups, kernel.shape[2], joined)
    dense = dataclasses.replace(window, groups=1)
    parts = [_parts(array, window.groups // together) for array in (x, kernel)]
    return _over_parts(lambda part: function(part[0], _on_diagonal(part[1], together), dense), parts, unrolled)


def kernel_gradient(
    function: Callable, x: jax.Array, g: jax.Array, window, joined: int = DENSE_CHANNELS, unrolled: int = UNROLLED_PARTS
) -> jax.Array:
    """Returns the kernel gradient of a convolution with groups.

    Args:
      function: (x, g, window) -> the same of a dense one.
      x: images.
      g: the gradient of their maps.
      window: a `conv_primitives.Window`.
      joined: input channels that groups are joined up to.
      unrolled: parts up to which there is no loop over them.
    """
    together = _together(window.groups, x.shape[-1] // window.groups, joined)
    dense = dataclasses.replace(window, groups=1)
    parts = [_parts(array, window.groups // together) for array in (x, g)]
    return _over_parts(lambda part: _diagonal(function(part[0], part[1], dense), together), parts, unrolled)


def _parts(x: jax.Array, count: int) -> list[jax.Array]:
    """Returns x cut along its channels."""
    return jnp.split(x, count, axis=-1)


def _over_parts(function, parts: list[list[jax.Array]], unrolled: int = UNROLLED_PARTS) -> jax.Array:
    """Returns the results for all parts, joined along the channels: many of them by a loop, which compiles once."""
    if len(parts[0]) <= unrolled:
        return jnp.concatenate([function(part) for part in zip(*parts, strict=True)], axis=-1)
    results = jnp.moveaxis(lax.map(function, [jnp.stack(arrays) for arrays in parts]), 0, -2)
    return results.reshape(*results.shape[:-2], -1)


def _together(groups: int, depth: int, joined: int = DENSE_CHANNELS) -> int:
    """Returns how many groups of `depth` channels make one dense convolution of `joined` channels at most."""
    return max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * depth <= joined))


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
