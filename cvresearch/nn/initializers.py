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


def he_fan_out(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Normal with variance 2 / fan-out; a depthwise kernel's fan is its window, as TensorFlow's authors count."""
    mode = 'fan_in' if len(shape) == 4 and shape[-2] == 1 else 'fan_out'
    return initializers.variance_scaling(2.0, mode, 'normal')(key, shape, dtype)


INITIALIZERS: dict[str, Callable] = {
    'glorot_uniform': initializers.glorot_uniform(),
    'glorot_normal': initializers.glorot_normal(),
    'he_normal': initializers.he_normal(),
    'he_uniform': initializers.he_uniform(),
    'lecun_normal': initializers.lecun_normal(),
    'lecun_1998': lecun_1998,
    'lecun_uniform': initializers.lecun_uniform(),
    'he_fan_out': he_fan_out,
    'pytorch': initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'),  # its layers' default
    'normal_0.01': initializers.normal(0.01),
    'normal_0.05': initializers.normal(0.05),
    'zeros': initializers.zeros_init(),
}


def initializer(name: str | Callable) -> Callable:
    """Returns the initialiser of that name; a function is returned as it is."""
    return name if callable(name) else lookup('initializer', INITIALIZERS, name)
