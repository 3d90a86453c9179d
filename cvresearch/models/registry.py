"""Finds every variant of every family in the modules beside this one: their tables VARIANTS
(what can be built) and REFERENCES (whose weights it takes)."""

import dataclasses
import functools
import importlib
import pkgutil
from types import ModuleType

import flax.linen as nn
import jax.numpy as jnp

from cvresearch import models
from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.base.variant import Reference, Variant


@functools.cache
def catalogue() -> dict[str, Variant]:
    """Returns all variants by name, sorted.

    Raises:
      ValueError: two families use one name.
    """
    return _gather('VARIANTS')


@functools.cache
def references() -> dict[str, Reference]:
    """Returns all nets of other libraries whose weights we take, by name ('timm/resnet50'), sorted."""
    return _gather('REFERENCES')


def families() -> list[str]:
    """Returns the names of the modules beside this one that have a VARIANTS table."""
    return [name for name, module in _modules() if hasattr(module, 'VARIANTS')]


def variant(name: str) -> Variant:
    """Returns the variant of that name.

    Raises:
      UserError: there is none; the message names the nearest.
    """
    return lookup('model', catalogue(), name)


def reference(name: str) -> Reference:
    """Returns the reference of that name.

    Raises:
      UserError: there is none; the message names the nearest.
    """
    return lookup('reference', references(), name)


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
    fields = {field.name: field.default for field in dataclasses.fields(found.module)}
    given_by_the_program = ('parent', 'name', 'num_classes', 'dtype')
    defaults = {**fields, **found.arguments}
    check_arguments(f'model {name!r}', arguments, {k: v for k, v in defaults.items() if k not in given_by_the_program})
    return found.module(**{**found.arguments, **arguments}, num_classes=num_classes, dtype=dtype)


def _modules() -> list[tuple[str, ModuleType]]:
    names = sorted(info.name for info in pkgutil.iter_modules(models.__path__))
    return [(name, importlib.import_module(f'{models.__name__}.{name}')) for name in names if name != 'registry']


def _gather(table: str) -> dict:
    found: dict = {}
    for family, module in _modules():
        for name, entry in getattr(module, table, {}).items():
            if name in found:
                raise ValueError(f'{name!r} in {table} of {family} is defined twice')
            found[name] = entry
    return dict(sorted(found.items()))
