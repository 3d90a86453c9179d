"""Blocks that the backward pass computes anew from their input, but for a few vectors, which are kept."""

import contextvars
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from cvresearch.base.arrays import JaxArray

_KEPT = 'kept'
_ON = contextvars.ContextVar('rematerialised', default=False)
KEEP = jax.checkpoint_policies.save_only_these_names(_KEPT)


def kept(x: Float[JaxArray, '*shape']) -> Float[JaxArray, '*shape']:
    """Marks what a rematerialised block keeps: little, but dear, as a sum over images and devices is."""
    return named(x) if _ON.get() else x


def named(x: Float[JaxArray, '*shape']) -> Float[JaxArray, '*shape']:
    """The same anywhere: in the rule of a derivative, which is traced after the block."""
    return checkpoint_name(x, _KEPT)


def marked(function: Callable) -> Callable:
    """Returns the function; `kept` marks in it."""

    @functools.wraps(function)
    def call(*arguments, **keywords):
        token = _ON.set(True)
        try:
            return function(*arguments, **keywords)
        finally:
            _ON.reset(token)

    return call


def rematerialised(function: Callable) -> Callable:
    """Returns a function of a module, or a method, that the backward pass computes anew but for what is `kept`."""
    return nn.remat(marked(function), policy=KEEP)
