"""Finds the net's tensors in whatever a training program saved, and gives them the names of the bare net."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from cvresearch.interop.pickles import Global, Opaque, Tensor, described

# Where training programs keep the state dict, the likeliest first. A dict of another name is taken if it is the only.
WRAPPERS = (
    'state_dict',
    'model_state_dict',
    'model_state',
    'model',
    'net',
    'network',
    'params',
    'weights',
    'module',
)
AVERAGED = re.compile(r'(.*[_.])?(ema|swa|avg|averaged?|polyak|shadow)\d*([_.].*)?', re.IGNORECASE)
# What else a checkpoint holds tensors of. Lightning keeps the last weights under `current_model_state` and the
# averages in their place.
_BESIDE = re.compile(
    r'.*(optim|sched|scaler|callback|criterion|loss|metric|hyper|hparam).*|(.*_)?(rng|amp|loops?)(_.*)?|averaging_state'
    r'|current_model_state',
    re.IGNORECASE,
)
# What data parallelism, compilation and sharding put around a module, at any depth.
_AROUND = re.compile(r'(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.')
# Counters of the averages, and what modules keep that is no tensor of theirs.
_COUNTERS = re.compile(r'(.*\.)?(n_averaged|num_updates|decay)')
_EXTRA = re.compile(r'(.*\.)?_extra_state')
DEEPEST = 64


def find(tree: object) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors of the net in what a file holds, and notes for a person: which weights were chosen.

    Averaged weights come first. Where the averages are of the parameters alone, what they lack (the statistics of
    batch norms) is taken from the weights that they are averages of.

    Args:
      tree: as `pickles.unpickle` gives it.

    Raises:
      ValueError: no state dict, several between which nothing decides, or something else among its tensors.
    """
    candidates = {path: tensors for path, tensors in _state_dicts(tree) if not any(map(_BESIDE.fullmatch, path))}
    if not candidates:
        raise ValueError(f'it holds no state dict: {content(tree)}')
    averages = {path: tensors for path, tensors in candidates.items() if any(map(AVERAGED.fullmatch, path))}
    others = {path: tensors for path, tensors in candidates.items() if path not in averages}
    plain = _likeliest(others) if others else None
    if averages:
        path = max(averages, key=lambda path: len(averages[path]))
        return _averaged(path, averages[path], plain, others)
    unnamed = [
        key
        for key, value in (_mapping(tree) or {}).items()
        if isinstance(key, str) and AVERAGED.fullmatch(key) and _holds_tensors(value)
    ]
    notes = [f'averaged weights under {key!r} have no names; {_shown(plain or ())} are taken' for key in unnamed]
    return _checked(others[plain or ()]), notes


def _averaged(path: tuple, average: Mapping, plain: tuple | None, others: Mapping) -> tuple[dict, list[str]]:
    tensors, what = _checked(average), f'averaged weights ({_shown(path)}) are taken'
    if plain is None:
        return tensors, [what]
    last = _checked(others[plain])
    lacking = last.keys() - tensors.keys()
    if lacking and tensors.keys() < last.keys():
        return last | tensors, [f'{what}, and {len(lacking)} tensors that they lack from {_shown(plain)}']
    return tensors, [f'{what}, not {_shown(plain)}']


def _shown(path: tuple) -> str:
    return repr('.'.join(path)) if path else 'those beside them'


def _likeliest(candidates: Mapping[tuple, Mapping]) -> tuple:
    """Returns the path of the net's state dict."""
    rank = {
        path: (WRAPPERS.index(path[0]) if path and path[0] in WRAPPERS else len(WRAPPERS), len(path))
        for path in candidates
    }
    first = min(rank.values())
    best = [path for path in candidates if rank[path] == first]
    if len(best) > 1:
        raise ValueError(
            f'it holds several state dicts ({", ".join(sorted(map(_shown, best)))}); expected one, or one under '
            f'{WRAPPERS[0]!r}: save the net alone'
        )
    return best[0]


def _state_dicts(tree: object):
    """Yields (path of keys, mapping) of every mapping that has a tensor, the outer ones first."""
    waiting: list[tuple[tuple, object]] = [((), tree)]
    seen = set()
    while waiting:
        path, node = waiting.pop(0)
        entries = _mapping(node)
        if entries is None or id(node) in seen or len(path) > DEEPEST:
            continue
        seen.add(id(node))
        if any(isinstance(value, Tensor) and value.shape for value in entries.values()):
            yield path, entries
        waiting.extend(((*path, key), value) for key, value in entries.items() if isinstance(key, str))


def _mapping(node: object) -> Mapping | None:
    """Returns what a node maps names to: a dict, a subclass of one, or a whole net that was saved as an object."""
    if isinstance(node, dict):
        return node
    if not isinstance(node, Opaque):
        return None
    tensors: dict = {}
    if '_parameters' in node.state:
        _module(node, '', tensors, _parts_of_module)
    elif node.name.startswith('__torch__.'):
        _module(node, '', tensors, _parts_of_script)
    return tensors or node.items or None


def _module(node: Opaque, prefix: str, tensors: dict, parts_of: Callable, depth: int = 0) -> None:
    """Puts the tensors of a module and of its modules into `tensors`, by the names of its state dict."""
    if depth > DEEPEST:
        raise ValueError('its modules lie in one another without end')
    for name, part in parts_of(node).items():
        if isinstance(part, Tensor):
            tensors[f'{prefix}{name}'] = part
        elif isinstance(part, Opaque):
            _module(part, f'{prefix}{name}.', tensors, parts_of, depth + 1)


def _parts_of_module(node: Opaque) -> dict:
    groups = [node.state.get(group) for group in ('_parameters', '_buffers', '_modules')]
    left_out = node.state.get('_non_persistent_buffers_set') or []
    return {
        name: part
        for group in groups
        if isinstance(group, dict)
        for name, part in group.items()
        if name not in left_out
    }


def _parts_of_script(node: Opaque) -> dict:
    return node.state


def _checked(entries: Mapping) -> dict[str, Tensor]:
    """Returns the tensors of a state dict by the names of the bare net, without what is beside them ('epoch', 'args').

    Raises:
      ValueError: an object under a tensor's name, or two tensors of one name.
    """
    tensors = {}
    for name, value in entries.items():
        if isinstance(value, Tensor) and isinstance(name, str):
            tensors[name] = value
        elif isinstance(value, (Opaque, Global)) and '.' in str(name) and not _EXTRA.fullmatch(name):
            raise ValueError(f'it holds no state dict: its entry {str(name)[:60]!r} is {described(value)}')
    return bare(tensors)


def bare(tensors: Mapping[str, Any]) -> dict:
    """Returns tensors by the names of the bare net: without 'module.' and '_orig_mod.', wherever they stand.

    Raises:
      ValueError: two tensors would have one name.
    """
    result: dict = {}
    for name, tensor in tensors.items():
        if _EXTRA.fullmatch(name) or (_COUNTERS.fullmatch(name) and not tensor.shape):
            continue
        short = _AROUND.sub('', name)
        if short in result:
            raise ValueError(f'two of its tensors are {short!r}, one of them as {name!r}')
        result[short] = tensor
    return result


def bare_names(files: Mapping[str, str]) -> dict[str, str]:
    """Returns an index's {tensor: file} by the names of the bare net."""
    return {_AROUND.sub('', name): file for name, file in files.items() if not _COUNTERS.fullmatch(name)}


def _holds_tensors(tree: object) -> bool:
    waiting, seen = [tree], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, Tensor):
            return True
        if id(node) not in seen:
            seen.add(id(node))
            waiting.extend(node if isinstance(node, (list, tuple)) else (_mapping(node) or {}).values())
    return False


def content(tree: object) -> str:
    """Returns what is in a file that has no state dict, for messages: the first thing that is no mapping."""
    path: list[str] = []
    node, entries = tree, _mapping(tree)
    while entries and len(path) < DEEPEST:
        name, node = next(iter(entries.items()))
        path.append(str(name)[:60])
        entries = _mapping(node)
    return f'its entry {".".join(path)!r} is {described(node)}' if path else f'it holds {described(tree)}'
