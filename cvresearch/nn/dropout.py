"""Dropout at other rates than a net's own, decided from outside for any architecture."""

import contextlib
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.nn.conv import Conv


def scaled(factors: Mapping[str, jax.Array]) -> contextlib.AbstractContextManager:
    """Returns a context in which the dropout after some layers has a part of its rate.

    Args:
      factors: of the rate, float32 (), by the path of the convolution or dense layer that was called last before the
        dropout.
    """
    last = ''

    def intercept(call, arguments, keywords, context):
        nonlocal last
        layer = context.module
        if context.method_name != '__call__':
            return call(*arguments, **keywords)
        if isinstance(layer, nn.Dropout) and last in factors and not _rests(layer, *arguments[1:2], **keywords):
            return _dropped(layer, arguments[0], layer.rate * factors[last])
        result = call(*arguments, **keywords)
        if isinstance(layer, Conv | nn.Dense):
            last = '/'.join(layer.path)
        return result

    return nn.intercept_methods(intercept)


def _rests(layer: nn.Dropout, deterministic: bool | None = None, **keywords) -> bool:
    return bool(layer.deterministic if deterministic is None else deterministic) or layer.rate == 0


def _dropped(layer: nn.Dropout, x: jax.Array, rate: jax.Array) -> jax.Array:
    shape = [1 if axis in layer.broadcast_dims else size for axis, size in enumerate(x.shape)]
    kept = jax.random.bernoulli(layer.make_rng(layer.rng_collection), 1 - rate, shape)
    return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), 0)
