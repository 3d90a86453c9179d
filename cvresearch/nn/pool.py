"""Pooling over windows and over whole maps. Each has a scope, so that summaries can name it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.nn.conv import Padding, explicit, pair


def max_pool(
    x: jax.Array, window: int | tuple[int, int], strides: int | tuple[int, int] | None = None,
    padding: Padding = 'VALID', name: str = 'max_pool',
) -> jax.Array:  # fmt: skip
    """Returns each window's maximum; `strides` is the window where not given."""
    with jax.named_scope(name):
        return nn.max_pool(x, pair(window), pair(strides or window), explicit(padding))


def avg_pool(
    x: jax.Array, window: int | tuple[int, int], strides: int | tuple[int, int] | None = None,
    padding: Padding = 'VALID', count_include_pad: bool = False, name: str = 'avg_pool',
) -> jax.Array:  # fmt: skip
    """Returns each window's mean, over the pixels inside the image unless `count_include_pad`.

    (PyTorch counts the padding by default, TensorFlow and the papers do not.)
    """
    with jax.named_scope(name):
        return nn.avg_pool(
            x, pair(window), pair(strides or window), explicit(padding), count_include_pad=count_include_pad
        )


def global_avg_pool(x: jax.Array, name: str = 'global_avg_pool') -> jax.Array:
    """Maps (batch, height, width, channels) to (batch, channels)."""
    with jax.named_scope(name):
        return jnp.mean(x, axis=(1, 2))
