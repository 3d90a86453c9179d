"""Finds every variant of every family: the modules beside this one that have a VARIANTS table."""

import dataclasses
import functools
import importlib
import pkgutil

import flax.linen as nn
import jax.numpy as jnp

from cvresearch import models
from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.base.variant import Variant


@functools.cache
def catalogue() -> dict[str, Variant]:
    """Returns all variants by name, sorted.

    Raises:
      ValueError: two families use one name.
    """
    found: dict[str, Variant] = {}
    for info in pkgutil.iter_modules(models.__path__):
        module = importlib.import_module(f'{models.__name__}.{info.name}')
        for name, variant in getattr(module, 'VARIANTS', {}).items():
            if name in found:
                raise ValueError(f'variant {name!r} of {info.name} is defined twice')
            found[name] = variant
    return dict(sorted(found.items()))


def variant(name: str) -> Variant:
    """Returns the variant of that name.

    Raises:
      UserError: there is none; the message names the nearest.
    """
    return lookup('model', catalogue(), name)


def build(name: str, num_classes: int | None = None, dtype: jnp.dtype = jnp.float32, **arguments) -> nn.Module:
    """Returns the linen module of a variant.

    Args:
      name: as in `catalogue()`.
      num_classes: number of logits; the variant's own where not given.
      dtype: of the computation; parameters and logits stay float32.
      **arguments: of the module's constructor, over the variant's own.

    Raises:
      UserError: an unknown name or argument.
    """
    found = variant(name)
    if num_classes is None:
        num_classes = found.num_classes
    if num_classes < 1:
        raise UserError(f'model {name!r}: num_classes is {num_classes}; expected at least 1')
    accepted = {field.name for field in dataclasses.fields(found.module)} - {'parent', 'name'}
    check_arguments(f'model {name!r}', arguments, accepted)
    return found.module(**{**found.arguments, **arguments}, num_classes=num_classes, dtype=dtype)


