"""Finds every variant of every family in the modules beside this one: their tables VARIANTS
(what can be built) and REFERENCES (whose weights it takes)."""

import dataclasses
import fnmatch
import functools
import importlib
import pkgutil
import re
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from cvresearch import models
from cvresearch.base import plugins
from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.norms import NormSpec

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


def catalogue() -> dict[str, Variant]:
    """Returns all variants by name, sorted, with the variants of plugins.

    Raises:
      ValueError: two families use one name.
      UserError: a plugin uses a name that is taken.
    """
    return _all('VARIANTS', plugins.loaded())


def references() -> dict[str, Reference]:
    """Returns all nets of other libraries whose weights we take, by name ('timm/resnet50'), sorted."""
    return _all('REFERENCES', plugins.loaded())


def families() -> list[str]:
    """Returns the names of the modules beside this one that have a VARIANTS table."""
    return [name for name, module in _modules() if 'VARIANTS' in vars(module)]


def variant(name: str) -> Variant:
    """Returns the variant of that name.

    Raises:
      UserError: there is none; the message names the nearest.
    """
    return lookup('model', catalogue(), name, 'all: cvresearch summary --all')


def resolve(name: str) -> str:
    """Returns the name of the variant that `name` means: ours, or what torchvision, timm or Keras call the net.

    Our own names come first, then exact names of the libraries ('mobilenet_v2', 'ResNet50', 'resnet50.a1_in1k',
    'timm/tv_resnet50'), then names that differ in case and punctuation alone ('resnet-50').

    Raises:
      UserError: no such name; the message has the nearest of all of these.
    """
    if name in catalogue():
        return name
    aliases = _aliases()
    _, slash, rest = name.rpartition('/')
    # Names of timm from before 2023 are kept by no other library.
    current = current_name(name if slash else f'timm/{name}').partition('.')[0]
    for candidate in (rest.partition('.')[0], current.partition('/')[2]) if not slash else (current,):
        if candidate in aliases:
            return aliases[candidate]
        if candidate in catalogue() and not slash:
            return candidate
    for names in ({name: name for name in catalogue()}, aliases):
        similar = {variant for other, variant in names.items() if _folded(other) == _folded(name)}
        if len(similar) == 1:
            return similar.pop()
    known = dict.fromkeys(catalogue()) | dict.fromkeys(alias for alias in aliases if slash or '/' not in alias)
    return lookup('model', known, name, 'all: cvresearch summary --all')


def list_models(pattern: str = '*') -> list[str]:
    """Returns the names of all variants that fit a shell pattern ('res*'), sorted."""
    return [name for name in catalogue() if fnmatch.fnmatchcase(name, pattern)]


def _aliases() -> dict[str, str]:
    """Returns the variant of each library's name of a net, with the library ('timm/vgg11') and without.

    Where two libraries mean different nets by one name, the first of torchvision, timm and Keras counts.
    """
    rank = {'torchvision': 0, 'timm': 1, 'keras': 2}
    every = sorted(references().items(), key=lambda item: rank.get(item[0].partition('/')[0], len(rank)))
    bare: dict[str, str] = {}
    for name, entry in every:
        bare.setdefault(name.partition('/')[2], entry.variant)
    return bare | {name: entry.variant for name, entry in every}


def _folded(name: str) -> str:
    return re.sub(r'[^a-z0-9/]', '', name.lower())


def reference(name: str) -> Reference:
    """Returns the reference of that name.

    A name may have the tag of published weights: 'timm/resnet50.a1_in1k'. It says how they came
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
      num_classes: number of logits; the variant's own by default.
      dtype: of the computation; parameters and logits stay float32.
      **arguments: of the module's constructor, over the variant's own.

    Raises:
      UserError: an unknown name or argument.
    """
    entry = variant(name)
    if num_classes is None:
        num_classes = entry.num_classes
    if num_classes < 1:
        raise UserError(f'model {name!r}: num_classes is {num_classes}; expected at least 1')
    check_arguments(f'model {name!r}', arguments, arguments_of(name))
    chosen = {**entry.arguments, **arguments, 'num_classes': num_classes, 'dtype': dtype}
    return entry.module(**_with_specs(entry.module, chosen))


def create_model(name: str, num_classes: int | None = None, **arguments) -> nn.Module:
    """Returns the linen module of a net, without weights; `name` is as `resolve` takes it. See `build`.

    >>> create_model('mobilenet_v2', num_classes=10).num_classes
    10
    """
    return build(resolve(name), num_classes, **arguments)


def arguments_of(name: str) -> dict[str, object]:
    """Returns the default of each argument that `build` takes for a variant.

    Raises:
      UserError: an unknown name.
    """
    entry = variant(name)
    defaults = {}
    for field in dataclasses.fields(entry.module):
        defaults |= _keys(field.name, field.default)
    defaults |= entry.arguments
    given_by_the_program = ('parent', 'name', 'num_classes', 'dtype')
    return {key: value for key, value in defaults.items() if key not in given_by_the_program}


def arguments_in(name: str, module: nn.Module) -> dict[str, object]:
    """Returns the arguments of `build` by which a net differs from its variant, but for `num_classes` and `dtype`.

    Raises:
      UserError: an unknown name.
    """
    values = {}
    for field in dataclasses.fields(module):
        values |= _keys(field.name, getattr(module, field.name))
    return {key: values[key] for key, default in arguments_of(name).items() if values[key] != default}


def _keys(argument: str, value: object) -> dict[str, object]:
    """Returns the keys by which an argument is given, with values: one, or one for each constant of a NormSpec."""
    if not isinstance(value, NormSpec):
        return {argument: value}
    return {f'{argument}_{name}': constant for name, constant in dataclasses.asdict(value).items()}


def _with_specs(module: type[nn.Module], by_key: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a constructor for what is given by keys: `bn` for `bn_eps`, others as they are."""
    arguments = dict(by_key)
    for field in dataclasses.fields(module):
        if isinstance(field.default, NormSpec):
            keys = {key: key.removeprefix(f'{field.name}_') for key in _keys(field.name, field.default)}
            constants = {constant: arguments.pop(key) for key, constant in keys.items() if key in arguments}
            arguments[field.name] = dataclasses.replace(field.default, **constants)
    return arguments


def _modules() -> list[tuple[str, ModuleType]]:
    names = sorted(info.name for info in pkgutil.iter_modules(models.__path__))
    return [(name, importlib.import_module(f'{models.__name__}.{name}')) for name in names if name != 'registry']


@functools.cache
def _all(table: str, loaded: tuple[str, ...]) -> dict:
    """Returns a table of all families and of the plugins that are loaded."""
    if not loaded:
        return _gather(table)
    merged = plugins.merged(_all(table, ()), table)
    return dict(sorted((name, _whole(entry) if table == 'VARIANTS' else entry) for name, entry in merged.items()))


def _whole(entry) -> Variant:
    """Returns the variant of a linen class by itself, without known facts."""
    return entry if isinstance(entry, Variant) else Variant(entry, (224, 224, 3), 1000, None, None, '', '')


def _gather(table: str) -> dict:
    entries: dict = {}
    for family, module in _modules():
        for name, entry in vars(module).get(table, {}).items():
            if name in entries:
                raise ValueError(f'{name!r} in {table} of {family} is defined twice')
            entries[name] = entry
    return dict(sorted(entries.items()))
