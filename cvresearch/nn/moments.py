"""The mean and the variance of activations, in one pass over them or in two."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cvresearch.base.arrays import JaxArray
from cvresearch.nn import devices
from cvresearch.nn.remat import kept, named

# Of |mean - centre| / deviation, above which there are two passes. With FAR the variance is right to 1e-4. On a CPU the
# centre is 0 in every step, and not in the first ones alone, so the bound is lower there: right to 3e-5.
FAR = 32.0
FAR_ON_CPU = 8.0


def moments(
    x: Float[JaxArray, '*shape channels'],
    centre: Float[JaxArray, ' channels'],
    axes: tuple[int, ...],
    keepdims: bool,
    rounded: bool,
) -> tuple[Float[Array, '*means channels'], Float[Array, '*means channels']]:
    """Returns the mean and the biased variance of x over some axes, in one pass about a centre.

    d = x - centre, var = E[d^2] - E[d]^2. The relative error of that variance is about
    2^-24 (1 + ((mean - centre) / deviation)^2). So there is a second pass, the squares about the mean, where a mean is
    farther from its centre than so many deviations.

    On a CPU the centre is 0: XLA sums squares as it reads x, and would write x - centre out. On other devices it is
    `centre`, and the pass is joined to the operation that makes x (a second one is 6 % of the bytes of ResNet-50 in
    bfloat16 on a v5e). What was of 16 bits has one pass there: its own rounding does more to the variance, at any mean.

    Args:
      x: float32.
      centre: near the mean, (channels,); no gradient flows to it.
      axes: over which means are taken.
      keepdims: whether the result keeps them.
      rounded: whether x was of 16 bits.
    """
    if devices.platform() == 'cpu':
        return _moments(x, jnp.zeros((), x.dtype), axes, keepdims, FAR_ON_CPU)
    return _moments(x, lax.stop_gradient(centre), axes, keepdims, None if rounded else FAR)


def _two_passes(x: jax.Array, axes: tuple[int, ...], keepdims: bool) -> tuple[jax.Array, jax.Array]:
    mean = kept(jnp.mean(x, axes, keepdims=keepdims))
    centred = x - (mean if keepdims else jnp.expand_dims(mean, axes))
    return mean, kept(jnp.mean(jnp.square(centred), axes, keepdims=keepdims))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _moments(x, centre, axes, keepdims, most):
    shifted = x - centre
    mean = jnp.mean(shifted, axes, keepdims=keepdims)
    # The difference of two means may round below zero, where the deviation has no root.
    var = jnp.maximum(jnp.mean(jnp.square(shifted), axes, keepdims=keepdims) - jnp.square(mean), 0)
    if most is None:
        return centre + mean, var
    far = jnp.any(jnp.square(mean) > most**2 * var)
    return lax.cond(far, lambda: _two_passes(x, axes, keepdims), lambda: (centre + mean, var))


@_moments.defjvp
def _moments_jvp(axes, keepdims, most, primals, tangents):
    x, mean, var = primals[0], *map(named, _moments(*primals, axes, keepdims, most))
    # Moving the mean does not move the variance: that term is left out.
    centred = x - (mean if keepdims else jnp.expand_dims(mean, axes))
    d_mean = jnp.mean(tangents[0], axes, keepdims=keepdims)
    d_var = 2 * jnp.mean(centred * tangents[0], axes, keepdims=keepdims)
    return (mean, var), (d_mean, d_var)
