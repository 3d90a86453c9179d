"""Stochastic depth. Huang et al. 2016, "Deep networks with stochastic depth", arXiv:1603.09382."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from cvresearch.base.arrays import JaxArray

_OFF = contextvars.ContextVar('stochastic depth is off', default=False)


@contextlib.contextmanager
def off() -> Iterator[None]:
    """No branch is dropped by what is traced in the block: it is frozen (nn/overrides.py)."""
    token = _OFF.set(True)
    try:
        yield
    finally:
        _OFF.reset(token)


def is_off() -> bool:
    """Whether this is traced in a block of `off`."""
    return _OFF.get()


def drop_path(
    x: Float[JaxArray, '*shape'], rate: float | Float[JaxArray, ''], key: PRNGKeyArray
) -> Float[JaxArray, '*shape']:
    """Zeroes whole images of a branch at `rate`, the others scaled by 1 / (1 - rate).

    In this form, common since, evaluation needs no change (the paper scales there instead).

    Args:
      x: (batch, ...), what a residual branch returns.
      rate: probability that an image's branch is dropped; below 1.
      key: of the random stream 'dropout'.
    """
    if is_off():
        return x
    kept = jax.random.bernoulli(key, 1 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), 0)
