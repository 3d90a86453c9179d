"""The calls of a net's layers while it runs: which layers there are, in which order, and what they are given."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.nn.conv import Conv
from cvresearch.nn.norms import BatchNorm


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
      layer: its path, 'stage1_block0/conv1'.
      module: the convolution, dense layer or batch norm.
      given: the array that it was given; got: that it returned. Traced, one is the other only if it is the same array.
    """

    layer: str
    module: nn.Module
    given: jax.Array
    got: jax.Array


def watched(module: nn.Module, see: Callable[[Call], None]) -> Callable[[Mapping, jax.Array], jax.Array]:
    """Returns the net's function of (variables, images), which shows each call of a layer to `see`."""

    def intercept(call, arguments, keywords, context):
        got = call(*arguments, **keywords)
        if context.method_name == '__call__' and isinstance(context.module, (Conv, nn.Dense, BatchNorm)):
            see(Call('/'.join(context.module.path), context.module, arguments[0], got))
        return got

    def apply(variables, images):
        with nn.intercept_methods(intercept):
            return cast(jax.Array, module.apply(variables, images, train=False))

    return apply


def calls(module: nn.Module, variables: Mapping, input_shape: tuple[int, int, int]) -> list[Call]:
    """Returns the calls in the order in which they happen, without computing anything."""
    seen: list[Call] = []
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    jax.eval_shape(watched(module, seen.append), variables, image)
    return seen
