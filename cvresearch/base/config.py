"""Experiment files: loading one, overriding its values, comparing two. A config file is code."""

import ast
import importlib.util
import inspect
import json
import sys
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError, nearest

# Keys that are newer than the oldest runs that can be read, and what such a run did. The tests keep runs of older
# versions (tests/engine/data/runs).
NEWER = {
    'non_finite.name': 'stop', 'save_failures': 3, 'mesh.shard': 1, 'mesh.least': 16384, 'mesh.rules': (),
    'sampling.name': 'shuffle', 'early_stopping.name': 'none',
}  # fmt: skip


def load(spec: str, overrides: dict[str, str] | None = None) -> ConfigDict:
    """Returns the configuration of an experiment file, locked.

    Args:
      spec: 'configs/lenet5_mnist5k.py', or with an argument of its `get_config`,
        'configs/lenet5_mnist5k.py:smoke'.
      overrides: {'optimizer.name': 'sgd', 'epochs': '3'}, values as typed on a command line.

    Raises:
      UserError: no such file, not a config file, an unknown key, a value of the wrong type.
    """
    path, _, argument = spec.partition(':')
    config = _module(path).get_config(argument)
    for key, text in (overrides or {}).items():
        override(config, key, text)
    return config


def sweep_of(spec: str):
    """Returns what the `sweep()` of an experiment file does: settings, or a `sweeps.Search`.

    A `sweep` that has a parameter is given the argument after the file's name.

    Raises:
      UserError: as `load`; the file has no sweep().
    """
    path, _, argument = spec.partition(':')
    module = _module(path)
    if not hasattr(module, 'sweep'):
        raise UserError(f'{path} defines no sweep(); see cvresearch/base/sweeps.py')
    return module.sweep(argument) if inspect.signature(module.sweep).parameters else module.sweep()


def _module(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file():
        raise UserError(f'no config file {path!r}; {nearest(path, map(str, file.parent.glob("*.py")))}')
    root = str(file.resolve().parent.parent)  # holds the folder configs/, which config files import
    if root not in sys.path:
        sys.path.insert(0, root)
    module_spec = importlib.util.spec_from_file_location(f'_config_{file.stem}', file)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f'{path} is not Python: {error}') from error
    if not hasattr(module, 'get_config'):
        raise UserError(f'{path} defines no get_config(arg); see configs/lenet5_mnist5k.py')
    return module


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets `config.key`, a dotted path, to what `text` says, keeping the type that is there.

    A sub-dict with a `name` (model, optimizer, ...) also takes arguments that the file does
    not mention: they are checked against the constructor when it is called.
    """
    *parents, last = key.split('.')
    node = config
    for depth, parent in enumerate(parents):
        if not isinstance(node.get(parent) if parent in node else None, ConfigDict):
            raise _unknown(config, '.'.join(parents[: depth + 1]))
        node = node[parent]
    if last in node:
        value = _typed(key, text, node[last])
    elif 'name' in node:
        value = parse(text)
    else:
        raise _unknown(config, key)
    with node.unlocked():
        node[last] = value


def flatten(config: ConfigDict, prefix: str = '') -> dict:
    """Returns {'model.name': 'lenet5', ...}."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update(flatten(value, f'{prefix}{key}.'))
        else:
            flat[prefix + key] = value
    return flat


def to_json(config: ConfigDict) -> str:
    """Returns the configuration as indented JSON with sorted keys."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def from_json(text: str) -> ConfigDict:
    """Returns what `to_json` wrote, also in an older version: keys that it lacks are filled in.

    Raises:
      json.JSONDecodeError: the text is damaged.
    """
    plain = json.loads(text)
    for key, value in NEWER.items():
        *parents, last = key.split('.')
        node = plain
        for parent in parents:
            node = node.setdefault(parent, {})
        node.setdefault(last, value)
    return ConfigDict(plain)


def differences(old: str, new: str) -> list[str]:
    """Returns 'key: old -> new' for each key whose value differs between two `to_json` texts."""
    before, after = (flatten(from_json(text)) for text in (old, new))
    absent = '(absent)'
    return [
        f'{key}: {before.get(key, absent)} -> {after.get(key, absent)}'
        for key in sorted({*before, *after})
        if before.get(key, absent) != after.get(key, absent)
    ]


def _unknown(config: ConfigDict, key: str) -> UserError:
    return UserError(f'unknown config key {key!r}; {nearest(key, flatten(config))}')


def parse(text: str):
    """Reads a Python literal, true/false/none in any case, or else the text itself."""
    words = {'true': True, 'false': False, 'none': None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _typed(key: str, text: str, old):
    if isinstance(old, ConfigDict):
        raise UserError(f'config.{key} is a group; set one of {", ".join(f"{key}.{k}" for k in old)}')
    if isinstance(old, str):
        return text
    value = parse(text)
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)
    if old is not None and type(value) is not type(old):
        raise UserError(
            f'config.{key}: got {text!r} ({type(value).__name__}), expected {type(old).__name__}, '
            f'such as {old!r}'
        )
    return value
