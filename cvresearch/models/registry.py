"""Finds every variant of every family in the modules beside this one: their tables VARIANTS
(what can be built) and REFERENCES (whose weights it takes)."""

import dataclasses
import fnmatch
import functools
import importlib
import pkgutil
import re
from types import ModuleType

import flax.linen as nn
import jax.numpy as jnp

from cvresearch import models
from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.models.variant import Reference, Variant

# timm's names before 2023 and what they are today, as its own list of deprecated names has them.
_OLD_NAMES = (
    (r'tv_(\w+)', r'\1.tv_in1k'),
    (r'gluon_(\w+?)(?:_v1b)?', r'\1.gluon_in1k'),
    (r'ssl_(\w+)', r'\1.fb_ssl_yfcc100m_ft_in1k'),
    (r'swsl_(\w+)', r'\1.fb_swsl_ig1b_ft_in1k'),
    (r'ig_(\w+)', r'\1.fb_wsl_ig1b_ft_in1k'),
    (r'(tf_efficientnet_b\d)_ap', r'\1.ap_in1k'),
    (r'(tf_efficientnet_(?:b\d|l2))_ns(_475)?', r'\1.ns_jft_in1k\2'),
    (r'tf_inception_v3', r'inception_v3.tf_in1k'),
    (r'((?:ens_)?adv)_(inception_\w+)', r'\2.tf_\1_in1k'),
    (r'xception', r'legacy_xception'),
    (r'mnasnet_a1', r'semnasnet_100'),
    (r'mnasnet_b1', r'mnasnet_100'),
)


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
    return lookup('model', catalogue(), name, 'all: python -m cvresearch.summary --all')


def reference(name: str) -> Reference:
    """Returns the reference of that name.

    A name may have a tag, that of published weights: 'timm/resnet50.a1_in1k'. It says how they came
    about and how images are prepared, and changes nothing of the net.

    Raises:
      UserError: there is none; the message names the nearest.
    """
    return lookup('reference', references(), current_name(name).partition('.')[0])


def current_name(name: str) -> str:
    """Returns 'timm/resnet50.tv_in1k' for 'timm/tv_resnet50', and other names as they are."""
    library, _, variant = name.partition('/')
    for pattern, replacement in _OLD_NAMES if library == 'timm' else ():
        if match := re.fullmatch(pattern, variant):
            return f'timm/{match.expand(replacement)}'
    return name


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
    check_arguments(f'model {name!r}', arguments, arguments_of(name))
    return found.module(**{**found.arguments, **arguments}, num_classes=num_classes, dtype=dtype)


def create_model(name: str, num_classes: int | None = None, **arguments) -> nn.Module:
    """Returns the linen module of a variant, without weights; see `build`.

    >>> create_model('mobilenetv2_100', num_classes=10).num_classes
    10
    """
    return build(name, num_classes, **arguments)


def list_models(pattern: str = '*') -> list[str]:
    """Returns the names of the variants that a pattern fits, sorted: 'res*'."""
    return fnmatch.filter(catalogue(), pattern)


def arguments_of(name: str) -> dict[str, object]:
    """Returns the default of each argument that `build` takes for a variant.

    Raises:
      UserError: an unknown name.
    """
    found = variant(name)
    defaults = {field.name: field.default for field in dataclasses.fields(found.module)} | dict(found.arguments)
    given_by_the_program = ('parent', 'name', 'num_classes', 'dtype')
    return {key: value for key, value in defaults.items() if key not in given_by_the_program}


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
