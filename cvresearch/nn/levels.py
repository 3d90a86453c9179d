"""The numbers of eight bits, and what is rounded to them."""

import jax.numpy as jnp
from jaxtyping import Float, Int

from cvresearch.base.arrays import JaxArray

LEVELS = 255  # of an activation in 8 bits, unsigned


def to_levels(
    x: Float[JaxArray, '...'], scale: Float[JaxArray, ''], zero_point: Int[JaxArray, '']
) -> Int[JaxArray, '...']:
    """Returns round(x / scale) + zero_point, within 0 to 255, int32; halves go to the even."""
    return jnp.clip(jnp.round(x / scale).astype(jnp.int32) + zero_point, 0, LEVELS)
