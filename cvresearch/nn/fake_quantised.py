"""Eight bits while a net trains: it computes with rounded numbers, and its gradients pass through the rounding.

Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
arXiv:1712.05877, section 3. The gradient of the rounding is 1 (Bengio, Leonard & Courville 2013, arXiv:1308.3432,
"straight-through"). A kernel's scale is of each feature, so that a norm after the layer, which multiplies features,
leaves the levels as they are: it need not be folded here.
"""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from cvresearch.base.arrays import JaxArray
from cvresearch.nn.conv import Conv
from cvresearch.nn.levels import LEVELS, to_levels


def kernel(
    weights: Float[JaxArray, '*window features'], per_channel: bool = True
) -> Float[JaxArray, '*window features']:
    """Returns a kernel on its levels -127 to 127, as `compress/int8.py` stores it.

    Args:
      weights: (..., features).
      per_channel: a scale for each feature; one for all otherwise.
    """
    largest = jnp.abs(weights).max(tuple(range(weights.ndim - 1)) if per_channel else None)
    scale = jnp.where(largest > 0, largest / 127, 1)
    return _straight_through(weights, jnp.clip(jnp.round(weights / scale), -127, 127) * scale)


def activations(x: Float[JaxArray, '*shape']) -> Float[JaxArray, '*shape']:
    """Returns an array on 256 levels of its own range, which is widened to hold zero."""
    low, high = jnp.minimum(x.min(), 0), jnp.maximum(x.max(), 0)
    scale = jnp.where(high > low, (high - low) / LEVELS, 1).astype(jnp.float32)
    zero_point = jnp.clip(jnp.round(-low / scale), 0, LEVELS).astype(jnp.int32)
    levels = to_levels(x.astype(jnp.float32), scale, zero_point) - zero_point
    return _straight_through(x, (levels * scale).astype(x.dtype))


def of_inputs() -> contextlib.AbstractContextManager:
    """Returns a context in which convolutions and dense layers see their inputs on 256 levels of the batch's range."""

    def intercept(call, arguments, keywords, context):
        if context.method_name == '__call__' and isinstance(context.module, Conv | nn.Dense):
            return call(activations(arguments[0]), *arguments[1:], **keywords)
        return call(*arguments, **keywords)

    return nn.intercept_methods(intercept)


def _straight_through(x: jax.Array, rounded: jax.Array) -> jax.Array:
    return x + lax.stop_gradient(rounded - x)
