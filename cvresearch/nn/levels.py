"""The numbers of eight bits, and what is rounded to them."""

import jax
import jax.numpy as jnp

LEVELS = 255  # of an activation in 8 bits, unsigned


def to_levels(x: jax.Array, scale: jax.Array, zero_point: jax.Array) -> jax.Array:
    """Returns round(x / scale) + zero_point, within 0 to 255, int32; halves go to the even."""
    return jnp.clip(jnp.round(x / scale).astype(jnp.int32) + zero_point, 0, LEVELS)
