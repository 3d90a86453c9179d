"""Overrides of a configuration: single values, other constructors, keys for several values, arguments taken away."""

import functools
import importlib
import sys
from collections.abc import Mapping

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError, nearest
from cvresearch.base.values import parse, typed

# Keys that stand for several, and the module whose function of that name sets them in a configuration.
STAND_FOR = {'image_size': 'cvresearch.data.image_size'}
# What other libraries call it.
ALIASES = {
    'lr': 'schedule.peak',
    'learning_rate': 'schedule.peak',
    'base_lr': 'schedule.peak',
    'max_lr': 'schedule.peak',
    'wd': 'optimizer.weight_decay',
    'weight_decay': 'optimizer.weight_decay',
    'momentum': 'optimizer.momentum',
    'opt': 'optimizer.name',
    'optimizer': 'optimizer.name',
    'optim': 'optimizer.name',
    'grad_clip': 'updates.clip_norm',
    'clip_grad': 'updates.clip_norm',
    'clip_grad_norm': 'updates.clip_norm',
    'sched': 'schedule.name',
    'scheduler': 'schedule.name',
    'lr_scheduler': 'schedule.name',
    'schedule': 'schedule.name',
    'warmup': 'schedule.warmup_epochs',
    'lr_warmup_epochs': 'schedule.warmup_epochs',
    'model': 'model.name',
    'arch': 'model.name',
    'architecture': 'model.name',
    'net': 'model.name',
    'num_epochs': 'epochs',
    'epoch': 'epochs',
    'num_steps': 'max_steps',
    'train_steps': 'max_steps',
    'batch': 'batch_size',
    'bs': 'batch_size',
    'train_batch_size': 'batch_size',
    'dataset': 'data.name',
    'data': 'data.name',
    'data_dir': 'data.root',
    'data_path': 'data.root',
    'root': 'data.root',
    'workers': 'data.threads',
    'num_workers': 'data.threads',
    'img_size': 'image_size',
    'input_size': 'image_size',
    'resolution': 'image_size',
    'size': 'image_size',
    'smoothing': 'loss.label_smoothing',
    'loss': 'loss.name',
    'criterion': 'loss.name',
    'ema': 'average.name',
    'model_ema': 'average.name',
    'random_seed': 'seed',
    'precision': 'dtype',
    'amp': 'dtype',
    'drop': 'model.dropout',
    'grad_accum_steps': 'updates.accumulate',
    'accumulate': 'updates.accumulate',
    'random_erase': 'transform.train.erasing',
    'reprob': 'transform.train.erasing',
    'hflip': 'transform.train.flip',
    'color_jitter': 'transform.train.brightness',
    'val_split': 'minival',
}
TOP_KEYS = (
    'epochs',
    'max_steps',
    'batch_size',
    'eval_batch_size',
    'seed',
    'dtype',
    'minival',
    'image_size',
    'remat',
    'keep',
    'log_every_steps',
    'evaluate_every_epochs',
    'save_every_epochs',
)
LIST_KEYS = 'all keys: python -m cvresearch.main --config FILE --print_config'


def apply(config: ConfigDict, overrides: Mapping[str, str | None]) -> None:
    """Sets the values of a configuration that were typed on a command line; their order does not matter.

    Names come first, since they decide which arguments there are: where a name changes, what the file says of the old
    constructor is dropped, but for arguments that mean the same under every name, and one line says so. Then come keys
    that stand for several (`image_size`), then single values, last what is taken away.

    Args:
      config: changed in place.
      overrides: texts by dotted key; None takes an argument away, so that its constructor's default holds.

    Raises:
      UserError: an unknown key, a value of the wrong type.
    """
    kinds = {key: _kind(key, text) for key, text in overrides.items()}
    texts = {key: text for key, text in overrides.items() if text is not None}
    with config.unlocked(), config.ignore_type():
        for key in sorted((key for key, kind in kinds.items() if kind == 'name'), key=lambda key: key.count('.')):
            _rename(config, key, texts)
        for key, kind in kinds.items():
            if kind == 'several':
                size = _several(key)
                size(config, _typed(key, texts[key], 0, None))
        for key, kind in kinds.items():
            if kind == 'value':
                _set(config, key, texts[key])
        for key, kind in kinds.items():
            if kind == 'remove':
                _remove(config, key)


def flatten(config: ConfigDict, prefix: str = '') -> dict:
    """Returns {'model.name': 'lenet5', ...}."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update(flatten(value, f'{prefix}{key}.'))
        else:
            flat[prefix + key] = value
    return flat


def meant(word: str) -> str | None:
    """Returns the key that a word of other libraries means, None where it is no such word: 'lr' is 'schedule.peak'."""
    return ALIASES.get(word.lower().replace('-', '_'))


def _kind(key: str, text: str | None) -> str:
    if text is None:
        return 'remove'
    if key in STAND_FOR:
        return 'several'
    return 'name' if key.endswith('.name') else 'value'


def _several(key: str):
    return getattr(importlib.import_module(STAND_FOR[key]), key)


def _constructors():
    """Returns the module that knows what constructors take.

    By name, since it stands on a higher floor and what it asks may load JAX: it is needed only where a file does not
    say enough.
    """
    return importlib.import_module('cvresearch.engine.arguments')


def _node(config: ConfigDict, key: str) -> ConfigDict:
    """Returns the group of a key; one that the file leaves out is made, if its kind is known."""
    node, path = config, []
    for parent in key.split('.')[:-1]:
        path.append(parent)
        child = node.get(parent)
        if isinstance(child, ConfigDict):
            node = child
            continue
        if parent in node or not _is_group('.'.join(path)):
            raise unknown(config, '.'.join(path), node.get(parent))
        node[parent] = ConfigDict()
        node = node[parent]
    return node


def _is_group(path: str) -> bool:
    return _constructors().is_group(path) or path == 'transform'


def _takes(path: str, node: ConfigDict) -> dict | None:
    """Returns the defaults of what a group takes; None where it is no group with a constructor."""
    constructors = _constructors()
    return constructors.takes(path, node.get('name')) if constructors.is_group(path) else None


def _rename(config: ConfigDict, key: str, overrides: Mapping[str, str]) -> None:
    group, node = key.rpartition('.')[0], _node(config, key)
    if 'name' not in node and not (_is_group(group) and _constructors().named(group)):
        raise unknown(config, key)
    old, new = node.get('name'), typed(overrides[key], str)
    node.name = new
    arguments = [name for name in node if name != 'name']
    if old in (None, new) or not arguments or not _constructors().is_group(group):
        return
    constructors = _constructors()
    takes, before = constructors.takes(group, new), constructors.takes(group, old)
    dropped = []
    for name in arguments:
        if name in constructors.shared(group):
            continue
        value = node[name]
        del node[name]
        # Not worth a word: what another override sets, and what the file left at its default.
        if name in takes and value == takes[name]:
            node[name] = value
        elif f'{group}.{name}' not in overrides and (name in takes or value != before.get(name)):
            # With its value from now on: an argument of the same name need not mean the same, as weight decay does not.
            now = '' if name not in takes else f', now {takes[name]!r}'
            dropped.append(f'{name}={value!r}{now}')
    if dropped:
        more = f' and {len(dropped) - 6} more' if len(dropped) > 6 else ''
        note(
            f'{group} is {new}, not {old}: what the file says for {old} is dropped ({", ".join(dropped[:6])}{more}); '
            f'set what {new} is to have by --config.{group}.ARGUMENT=VALUE, or it has its defaults'
        )


def _set(config: ConfigDict, key: str, text: str) -> None:
    node, (group, _, last) = _node(config, key), key.rpartition('.')
    if last in node:
        value = node[last]
        if isinstance(value, ConfigDict):
            first = f'--config.{key}.name={text}' if 'name' in value else ', '.join(f'{key}.{k}' for k in value)
            raise UserError(f'config.{key} is a group; set one of its values, such as {first[:200]}')
        node[last] = _typed(key, text, value, lambda: (_takes(group, node) or {}).get(last))
        return
    takes = _takes(group, node)
    if takes is None and 'name' in node:
        node[last] = parse(text)  # of a constructor that is not known here: it checks when it is called
        return
    if takes is None or last not in takes:
        raise unknown(config, key)
    node[last] = _typed(key, text, takes[last], None)


def _remove(config: ConfigDict, key: str) -> None:
    node, (group, _, last) = _node(config, key), key.rpartition('.')
    takes = _takes(group, node)
    if last == 'name' or (takes is None and 'name' not in node):
        raise UserError(f'--no-config.{key}: only an argument of a group can be taken away; set another value instead')
    if last not in node and last not in (takes or {}):
        raise unknown(config, key)
    if last in node:
        del node[last]


def _typed(key: str, text: str, old, default):
    """Returns the value that a text says: of the type of `old`, or else of the constructor's default.

    A file may say 5 where the constructor has 9.0, or 2.0 where it has None: both types serve then.
    """
    kind = type(old) if isinstance(old, bool | int | float | str | tuple) else type(None)
    try:
        return typed(text, kind)
    except ValueError:
        other = default() if default else old
    if other is None and text.strip().lower() == 'none':
        return None
    if isinstance(other, float | tuple) and type(other) is not kind:
        return _typed(key, text, other, None)
    value = typed(text, type(None))
    raise UserError(f'config.{key}: got {text!r} ({type(value).__name__}), expected {kind.__name__}, such as {old!r}')


def unknown(config: ConfigDict, key: str, value=None) -> UserError:
    """Returns what is said of a key that a configuration does not have: the nearest ones, and how to see all."""
    if value is not None:
        return UserError(f'unknown config key {key!r} of a group: it is a value ({value!r}), and has no parts')
    group, _, last = key.rpartition('.')
    node = config
    for parent in filter(None, group.split('.')):
        node = node.get(parent) if isinstance(node, ConfigDict) else None
    flat = [*flatten(config), *STAND_FOR]
    why, close = '', [name for name in flat if name.rpartition('.')[2] == last]
    if isinstance(node, ConfigDict) and group and _constructors().is_group(group):
        takes = _takes(group, node)
        subject = f'{group} {node.name!r}' if 'name' in node else group
        why = f': {subject} takes no argument {last!r}'
        if meant(last) in (None, key):
            return UserError(f'unknown config key {key!r}{why}; {nearest(last, takes or {}, see=LIST_KEYS)}')
    alias = meant(last)
    if not alias and not close:
        close = _constructors().groups_that_take(last)
    if alias or close:
        hint = f'did you mean {" or ".join([alias] if alias else close[:3])}?'
        return UserError(f'unknown config key {key!r}{why}; {hint} {LIST_KEYS}')
    return UserError(f'unknown config key {key!r}{why}; {nearest(key, flat, see=LIST_KEYS)}')


@functools.cache  # a sweep loads its file once a run
def note(text: str) -> None:
    """Says a line on standard error, once in a process."""
    print(f'note: {text}', file=sys.stderr)
