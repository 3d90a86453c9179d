"""The weight initialisers that the papers name."""

from collections.abc import Callable

import jax
from flax.linen import initializers

from cvresearch.base.errors import lookup


def lecun_1998(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Uniform in +-2.4 / fan-in (LeCun et al. 1998, appendix A)."""
    fan_in = 1
    for size in shape[:-1]:
        fan_in *= size
    return jax.random.uniform(key, shape, dtype, -2.4 / fan_in, 2.4 / fan_in)


INITIALIZERS: dict[str, Callable] = {
    'glorot_uniform': initializers.glorot_uniform(),
    'glorot_normal': initializers.glorot_normal(),
    'he_normal': initializers.he_normal(),
    'he_uniform': initializers.he_uniform(),
    'lecun_normal': initializers.lecun_normal(),
    'lecun_1998': lecun_1998,
    'normal_0.01': initializers.normal(0.01),
    'zeros': initializers.zeros_init(),
}


def initializer(name: str | Callable) -> Callable:
    """Returns the initialiser of that name; a function is returned as it is."""
    return name if callable(name) else lookup('initializer', INITIALIZERS, name)
