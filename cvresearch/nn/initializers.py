"""The weight initialisers that the papers and their authors' code name.

Fans are counted as everywhere in this field: a kernel of (height, width, depth, features) has fan-in
height * width * depth and fan-out height * width * features; a matrix of (inputs, features) these two.

Random numbers are drawn as one row and then given their shape. The values are the same, since JAX draws
number i of an array from the key and i alone, and XLA compiles it in a fraction of the time.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from cvresearch.base.arrays import JaxArray
from cvresearch.base.errors import lookup

Initializer = Callable[..., jax.Array]  # of (key, shape, dtype)

# Standard deviation of a standard normal variable that is cut at two deviations.
CUT_DEVIATION = 0.87962566103423978


def normal(deviation: float) -> Initializer:
    """Normal with that standard deviation."""
    return lambda key, shape, dtype=jnp.float32: _drawn('normal', key, shape, dtype) * deviation


def truncated_normal(deviation: float) -> Initializer:
    """Normal with that standard deviation, cut at two of them, as TensorFlow has it.

    What remains has 0.88 of that deviation.
    """
    return lambda key, shape, dtype=jnp.float32: _drawn('truncated_normal', key, shape, dtype) * deviation


def uniform(bound: float) -> Initializer:
    """Uniform in +-`bound`."""
    return lambda key, shape, dtype=jnp.float32: _drawn('uniform', key, shape, dtype) * bound


def variance_scaling(scale: float, mode: str, distribution: str, depthwise: bool = False) -> Initializer:
    """Returns an initialiser of variance scale / fan.

    Args:
      scale: 2 of He et al. 2015, arXiv:1502.01852, equation 10; 1 of Glorot & Bengio 2010, equation 16, with
        the mean of both fans, and of LeCun et al. 1998, "Efficient backprop", equation 16, with fan-in.
      mode: 'fan_in', 'fan_out' or 'fan_avg', their mean.
      distribution: 'normal', 'uniform', or 'truncated_normal': cut at two deviations, and widened so
        that the variance is as said.
      depthwise: count the fan-out of a kernel of depth 1 as its window, without the features. So do
        TensorFlow's authors, whose depthwise kernels are (height, width, channels, 1).
    """
    widened = {'normal': 1.0, 'uniform': math.sqrt(3), 'truncated_normal': 1 / CUT_DEVIATION}[distribution]

    def initialize(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        window = math.prod(shape[:-2])
        fan_in, fan_out = window * shape[-2], window * shape[-1]
        if depthwise and len(shape) == 4 and shape[-2] == 1:
            fan_out = window
        fan = {'fan_in': fan_in, 'fan_out': fan_out, 'fan_avg': (fan_in + fan_out) / 2}[mode]
        return _drawn(distribution, key, shape, dtype) * (widened * math.sqrt(scale / fan))

    return initialize


def lecun_1998(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> Float[JaxArray, '...']:
    """Uniform in +-2.4 / fan-in (LeCun et al. 1998, appendix A)."""
    return _drawn('uniform', key, shape, dtype) * (2.4 / math.prod(shape[:-1]))


def orthogonal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> Float[JaxArray, '...']:
    """Orthonormal columns (rows, where there are fewer of them) of the kernel as a matrix (fan-in, features).

    Saxe et al. 2013, arXiv:1312.6120, section 3.
    """
    return jax.nn.initializers.orthogonal()(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)


_DRAWS = {
    'normal': jax.random.normal,
    'truncated_normal': lambda key, shape, dtype: jax.random.truncated_normal(key, -2, 2, shape, dtype),
    'uniform': lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -1, 1),
}


def _drawn(distribution: str, key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """Returns standard random numbers: of deviation 1, of that before it was cut, or within +-1."""
    return _DRAWS[distribution](key, (math.prod(shape),), dtype).reshape(shape)


INITIALIZERS: dict[str, Initializer] = {
    # As JAX, TensorFlow and Keras have them: the normal ones are cut at two deviations.
    'glorot_uniform': variance_scaling(1, 'fan_avg', 'uniform'),
    'glorot_normal': variance_scaling(1, 'fan_avg', 'truncated_normal'),
    'he_uniform': variance_scaling(2, 'fan_in', 'uniform'),
    'he_normal': variance_scaling(2, 'fan_in', 'truncated_normal'),
    'lecun_uniform': variance_scaling(1, 'fan_in', 'uniform'),  # Caffe's "xavier"
    'lecun_normal': variance_scaling(1, 'fan_in', 'truncated_normal'),
    # As the papers have them: not cut.
    'he_fan_in': variance_scaling(2, 'fan_in', 'normal'),
    'he_fan_out': variance_scaling(2, 'fan_out', 'normal', depthwise=True),
    'he_fan_out_truncated': variance_scaling(2, 'fan_out', 'truncated_normal', depthwise=True),
    'lecun_fan_in': variance_scaling(1, 'fan_in', 'normal'),
    'lecun_1998': lecun_1998,
    'pytorch': variance_scaling(1 / 3, 'fan_in', 'uniform'),  # its layers' default: +-1 / sqrt(fan-in)
    'uniform_fan_out': variance_scaling(1 / 3, 'fan_out', 'uniform'),  # +-1 / sqrt(fan-out)
    'normal_0.01': normal(0.01),
    'normal_0.05': normal(0.05),
    'normal_1.0': normal(1.0),  # too large for any layer of a net; what that does is of interest
    'truncated_normal_0.001': truncated_normal(0.001),
    'truncated_normal_0.01': truncated_normal(0.01),
    'truncated_normal_0.09': truncated_normal(0.09),
    'truncated_normal_0.1': truncated_normal(0.1),
    'orthogonal': orthogonal,
    'zeros': jax.nn.initializers.zeros,
}


def initializer(name: str | Callable) -> Initializer:
    """Returns the initialiser of that name; a function is returned as it is."""
    return name if callable(name) else lookup('initializer', INITIALIZERS, name)
