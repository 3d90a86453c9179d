"""Activations by the names that configurations use."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvresearch.base.arrays import JaxArray
from cvresearch.base.errors import lookup


def squash(x: Float[JaxArray, '*shape']) -> Float[Array, '*shape']:
    """LeNet-5's sigmoid, 1.7159 tanh(2x/3): squash(1) = 1 (LeCun et al. 1998, appendix A)."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


ACTIVATIONS: dict[str, Callable] = {
    'linear': lambda x: x,
    'tanh': jnp.tanh,
    'sigmoid': nn.sigmoid,
    'squash': squash,
    'relu': nn.relu,
    'relu6': nn.relu6,
    'elu': nn.elu,
    'silu': nn.silu,
    'gelu': nn.gelu,
}


def activation(name: str | Callable) -> Callable:
    """Returns the activation of that name; a function is returned as it is."""
    return name if callable(name) else lookup('activation', ACTIVATIONS, name)
