"""Experiment files: loading one, overriding its values, comparing two. A config file is code."""

import functools
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from cvresearch.base import overrides as changes
from cvresearch.base import paths, plugins
from cvresearch.base.errors import UserError, nearest
from cvresearch.base.overrides import flatten
from cvresearch.base.values import typed

# Keys that are newer than the oldest runs that can be read, and what such a run did. The tests keep runs of older
# versions (tests/engine/data/runs).
NEWER = {
    'non_finite.name': 'stop',
    'save_failures': 3,
    'mesh.shard': 1,
    'mesh.least': 16384,
    'mesh.rules': (),
    'sampling.name': 'shuffle',
    'early_stopping.name': 'none',
    'plugins': (),
    'max_steps': 0,
    'init.weights': '',
    'init.head': 'new',
    'init.skip': (),
    'init.input': 'adapt',
    'finetune.name': 'all',
    'updates.frozen': 'train',
    'unlabelled.name': 'none',
    'method.name': 'supervised',
    'watch.name': 'none',
    'compress.name': 'none',
}
# Keys by an older name, and what they are called now. Files of runs, experiment files, command lines, sweeps and tables
# that have the older name are read as if they had the new one.
RENAMED = {
    'augment.mixup': 'mixing.mixup',
    'augment.cutmix': 'mixing.cutmix',
    'augment.mix_per_example': 'mixing.per_example',
    'batch_norm.precise_batches': 'precise_batches',
    'accumulate': 'updates.accumulate',
    'frozen': 'updates.frozen',
    'optimizer.clip_norm': 'updates.clip_norm',
    'optimizer.agc': 'updates.agc',
    'optimizer.agc_eps': 'updates.agc_eps',
    'optimizer.agc_exclude': 'updates.agc_exclude',
    'optimizer.sam': 'updates.sam',
    'optimizer.freeze': 'updates.freeze',
    'optimizer.lr_scale': 'updates.lr_scale',
    'optimizer.layer_decay': 'updates.layer_decay',
    'optimizer.layers': 'updates.layers',
}


def load(spec: str, overrides: Mapping[str, str | None] | None = None) -> ConfigDict:
    """Returns the configuration of an experiment file, locked.

    Args:
      spec: 'configs/lenet5_mnist5k.py', or with an argument of its `get_config`,
        'configs/lenet5_mnist5k.py:smoke'.
      overrides: {'optimizer.name': 'sgd', 'epochs': '3'}, values as typed on a command line, in any order; None
        takes an argument away (overrides.py).

    Raises:
      UserError: no such file, not a config file, an unknown key, a value of the wrong type.
    """
    path, argument = parts_of(spec)
    config = _made(path, argument)
    overrides = renamed(overrides or {})
    if 'plugins' in config or 'plugins' in overrides:  # first of all, since other values may name what is theirs
        text = overrides.pop('plugins', None)
        with config.unlocked():
            config.plugins = plugins.resolved(config.get('plugins', ()) if text is None else _names(text))
        plugins.load(config.plugins)
    changes.apply(config, overrides)
    return config


def _names(text: str) -> Any:
    try:
        return typed(text, tuple)
    except ValueError:
        return tuple(text.split(','))


def sweep_of(spec: str):
    """Returns what the `sweep()` of an experiment file does: settings, or a `sweeps.Search`.

    A `sweep` that has a parameter is given the argument after the file's name.

    Raises:
      UserError: as `load`; the file has no sweep().
    """
    return _called(spec, 'sweep', 'cvresearch/base/sweeps.py')


def chain_of(spec: str) -> list[dict]:
    """Returns what the `chain()` of an experiment file does: the settings of each generation, the first one first.

    Raises:
      UserError: as `load`; the file has no chain().
    """
    return list(_called(spec, 'chain', 'launch/chain.py'))


def _called(spec: str, name: str, explained: str):
    path, argument = parts_of(spec)
    function = getattr(_module(path), name, None)  # an experiment file has it or not
    if function is None:
        raise UserError(f'{path} defines no {name}(); see {explained}')
    return function(argument) if inspect.signature(function).parameters else function()


def parts_of(spec: str) -> tuple[str, str]:
    """Returns the file and the argument of 'configs/resnet50.py:resnet101'; a folder's name may hold colons.

    Raises:
      UserError: as `paths.local`.
    """
    match = re.fullmatch(r'(.*?\.py)(?::(.*))?|([^:]*):?(.*)', str(paths.local(spec, '--config')), re.S)
    assert match is not None  # the second pattern matches anything
    return (match[1], match[2] or '') if match[1] else (match[3], match[4])


def _module(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file() and file.parent.name == 'configs' and (packed := importlib.util.find_spec('configs')):
        file = Path(packed.origin or '').parent / file.name  # of an installed package, whatever folder this is
    if not file.is_file():
        raise UserError(f'no config file {path!r}; {nearest(path, map(str, file.parent.glob("*.py")))}')
    root = str(file.resolve().parent.parent)  # holds the folder configs/, which config files import
    if root not in sys.path:
        sys.path.insert(0, root)
    module_spec = importlib.util.spec_from_file_location(f'_config_{file.stem}', file)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f'{path} is not Python; expected a file that ends in .py')
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f'{path} is not Python: {error}') from error
    return module


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets `config.key`, a dotted path, to what `text` says; see `overrides.apply`."""
    changes.apply(config, renamed({key: text}))


def renamed(overrides: Mapping[str, str | None]) -> dict[str, str | None]:
    """Returns overrides by the keys' names of today; a line says which of them had an older one.

    Raises:
      UserError: a key is given by both names.
    """
    if both := sorted(key for key in overrides if RENAMED.get(key) in overrides):
        raise UserError(f'config.{both[0]} is the older name of config.{RENAMED[both[0]]}; give one of them')
    for key in overrides:
        if key in RENAMED:
            changes.note(f'config.{key} is now config.{RENAMED[key]}')
    return {RENAMED.get(key, key): text for key, text in overrides.items()}


def _made(path: str, argument: str) -> ConfigDict:
    """Returns what an experiment file makes, its keys by the names of today."""
    module = _module(path)
    if not hasattr(module, 'get_config'):
        raise UserError(f'{path} defines no get_config(arg); see configs/lenet5_mnist5k.py')
    try:
        config = module.get_config(argument)
    except (AttributeError, KeyError) as error:
        for old, new in RENAMED.items():
            if f"'{old.rpartition('.')[2]}'" in str(error):
                raise UserError(f'{path} reads a key that is not there, {error}: {old} is now {new}') from error
        raise
    try:
        _rename_in(config)
    except TypeError as error:  # ml_collections refuses a value of another type than a key has
        raise UserError(f'{path}: {error}') from error
    return config


def _rename_in(config: ConfigDict) -> None:
    """Gives the values that an experiment file sets by older names of keys the names of today, and says so."""
    with config.unlocked():
        for old, new in RENAMED.items():
            *groups, last = old.split('.')
            node = functools.reduce(lambda node, group: node.get(group, {}), groups, config)
            if last not in node:
                continue
            value = node[last]
            del node[last]
            *groups, last = new.split('.')
            node = config
            for group in groups:
                node[group] = node.get(group, ConfigDict())
                node = node[group]
            node[last] = value
            changes.note(f'the config file sets {old}, which is now {new}')


def to_json(config: ConfigDict) -> str:
    """Returns the configuration as indented JSON with sorted keys."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ConfigDict:
    """Returns what `to_json` wrote, also in an older version: keys have their names of today, and none is missing.

    Raises:
      json.JSONDecodeError: the text is damaged.
    """
    plain = json.loads(text)
    for old, new in RENAMED.items():
        *groups, last = old.split('.')
        node = functools.reduce(lambda node, group: node.get(group, {}), groups, plain)
        if last in node:
            _set_default(plain, new, node.pop(last))
    # After the names, since `frozen` of a run that has it is no default.
    for key, value in NEWER.items():
        # As JSON has it, so that runs of before and after the key compare equal.
        _set_default(plain, key, list(value) if isinstance(value, tuple) else value)
    return ConfigDict(plain)


def _set_default(plain: dict, key: str, value) -> None:
    *groups, last = key.split('.')
    functools.reduce(lambda node, group: node.setdefault(group, {}), groups, plain).setdefault(last, value)


def differences(old: str, new: str) -> list[str]:
    """Returns 'key: old -> new' for each key whose value differs between two `to_json` texts."""
    before, after = (flatten(from_json(text)) for text in (old, new))
    absent = '(absent)'
    return [
        f'{key}: {before.get(key, absent)} -> {after.get(key, absent)}'
        for key in sorted({*before, *after})
        if before.get(key, absent) != after.get(key, absent)
    ]
