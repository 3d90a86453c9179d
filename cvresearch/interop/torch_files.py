"""Weights in files of `torch.save`, without PyTorch and without running the pickle inside.

A pickle is a program. This module reads its instructions and acts on those that build state dicts
(texts, numbers, containers, tensors); it imports nothing that the file names and calls nothing in
its name. Any other global is an error that names it.

Two layouts: a zip archive (PyTorch 1.6 and later), and a sequence of pickles followed by the
storages (earlier, and `_use_new_zipfile_serialization=False` to this day).
"""

import dataclasses
import io
import math
import pickletools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cvresearch.interop.archives import open_zip

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Where training programs keep the state dict; the averaged weights first, as timm does.
WRAPPERS = ('state_dict_ema', 'state_dict', 'model')
STORAGES = {
    'DoubleStorage': 'f8', 'FloatStorage': 'f4', 'HalfStorage': 'f2', 'BFloat16Storage': 'bf16', 'LongStorage': 'i8',
    'IntStorage': 'i4', 'ShortStorage': 'i2', 'CharStorage': 'i1', 'ByteStorage': 'u1', 'BoolStorage': '?',
}  # fmt: skip


class RefusedError(ValueError):
    """The pickle asks for code."""


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of something that a pickle wants imported. Nothing is."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where a tensor's numbers lie: `count` of them from `start`, in the record `key`."""

    dtype: str
    key: str
    count: int
    start: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A window on a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of the state dict in a file of `torch.save`; bfloat16 comes as float32.

    Raises:
      ValueError: not such a file, damaged, or more than weights (the message says what); other
        exceptions of the parsers, where it is cut off.
    """
    with open(path, 'rb') as file:
        zipped = file.read(4) == b'PK\x03\x04'
    return _read_zip(path) if zipped else _read_legacy(path)


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with open_zip(path) as archive:
        names = [name for name in archive.namelist() if name.endswith('/data.pkl') and name.count('/') == 1]
        if len(names) != 1:
            raise ValueError('the archive has no data.pkl of PyTorch')
        folder = names[0].removesuffix('data.pkl')
        order = archive.read(f'{folder}byteorder') if f'{folder}byteorder' in archive.namelist() else b'little'
        tree = unpickle(io.BytesIO(archive.read(names[0])))
        return _arrays(_state_dict(tree), lambda key: archive.read(f'{folder}data/{key}'), order == b'big')


def _read_legacy(path: Path) -> dict[str, np.ndarray]:
    with open(path, 'rb') as file:
        try:
            ours = unpickle(file) == LEGACY_MAGIC and unpickle(file) == LEGACY_PROTOCOL
        except RefusedError:
            raise
        except Exception as error:  # bytes of another kind taken for instructions
            raise ValueError('it is neither a zip archive nor a pickle') from error
        if not ours:
            raise ValueError('it is a pickle, but not one of torch.save')
        system, tree, keys = unpickle(file), unpickle(file), unpickle(file)
        state = _state_dict(tree)
        big = isinstance(system, dict) and system.get('little_endian') is False
        sizes = {storage.key: _itemsize(storage.dtype) for storage in _storages(tree)}
        records = {}
        for key in keys:
            count = int.from_bytes(file.read(8), 'big' if big else 'little')
            records[key] = file.read(count * sizes[key])
    return _arrays(state, records.__getitem__, big)


def unpickle(file: BinaryIO) -> object:
    """Returns what the next pickle in `file` describes: containers, texts, numbers, `Tensor`s.

    Raises:
      ValueError: it wants anything else.
    """
    stack: list = []
    memo: dict = {}
    marks: list[int] = []

    def pop_marked() -> list:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in _PUSHES_ARGUMENT:
            stack.append(argument)
        elif name in _PUSHES_NEW:
            stack.append(_PUSHES_NEW[name]())
        elif name == 'MARK':
            marks.append(len(stack))
        elif name in ('TUPLE', 'LIST'):
            stack.append((tuple if name == 'TUPLE' else list)(pop_marked()))
        elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ('APPEND', 'APPENDS'):
            items = [stack.pop()] if name == 'APPEND' else pop_marked()
            _a(list, stack[-1]).extend(items)
        elif name in ('SETITEM', 'SETITEMS', 'DICT'):
            items = [stack.pop(-2), stack.pop()] if name == 'SETITEM' else pop_marked()
            if name == 'DICT':
                stack.append({})
            _a(dict, stack[-1]).update(_dict(zip(items[::2], items[1::2], strict=True)))
        elif name in ('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ('GET', 'BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif name in ('GLOBAL', 'STACK_GLOBAL'):
            words = argument.split(' ', 1) if argument else [_a(str, stack.pop(-2)), _a(str, stack.pop())]
            stack.append(_allowed('.'.join(words)))
        elif name == 'BINPERSID':
            stack.append(_storage(*stack.pop()))
        elif name in ('REDUCE', 'NEWOBJ'):
            arguments = _a(tuple, stack.pop())
            stack.append(_CALLS[_a(Global, stack.pop()).name](*arguments))
        elif name == 'BUILD':  # attributes of the object below, such as a state dict's _metadata
            stack.pop()
            _a(dict, stack[-1])
        elif name == 'STOP':
            return stack.pop()
        elif name not in ('PROTO', 'FRAME'):
            raise ValueError(f'its pickle has an instruction {name}, which weights do not need')
    raise ValueError('its pickle does not end')


_PUSHES_NEW: dict[str, Callable] = {
    'NONE': lambda: None, 'NEWTRUE': lambda: True, 'NEWFALSE': lambda: False,
    'EMPTY_TUPLE': tuple, 'EMPTY_LIST': list, 'EMPTY_DICT': dict,
}  # fmt: skip
_PUSHES_ARGUMENT = {
    'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING',
    'SHORT_BINSTRING', 'UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'BINBYTES', 'SHORT_BINBYTES',
}  # fmt: skip


def _a(kind: type | tuple[type, ...], value):
    """Returns `value`, which must be of that kind."""
    if not isinstance(value, kind):
        raise ValueError(f'its pickle has a {type(value).__name__} where weights have none')
    return value


def _allowed(name: str) -> Global:
    if name not in _CALLS and name.removeprefix('torch.') not in STORAGES:
        raise RefusedError(
            f'its pickle asks for {name!r}, which is code and not weights, and was refused; save the state_dict() alone'
        )
    return Global(name)


def _dict(pairs: Iterable[tuple] = ()) -> dict:
    # Keys of other kinds could be nested so deeply that hashing them overflows the C stack.
    return {_a((str, int), key): value for key, value in pairs}


def _storage(kind: str, storage_type: Global, key: str, _: str, count: int, view: tuple | None = None) -> Storage:
    """Returns the storage of a persistent id; `view` (legacy) is (key, start, count) of a part of it."""
    if _a(str, kind) != 'storage':
        raise ValueError(f'its pickle refers to a {kind!r}')
    start, count = _sizes(view[1:] if view else (0, count))
    return Storage(STORAGES[_a(Global, storage_type).name.removeprefix('torch.')], _a(str, key), count, start)


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_) -> Tensor:
    return Tensor(_a(Storage, storage), *_sizes((offset,)), _sizes(shape), _sizes(strides))


def _sizes(numbers: tuple) -> tuple[int, ...]:
    if len(numbers) > 32 or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise ValueError('its pickle has a tensor of no possible shape')
    return tuple(numbers)


_CALLS: dict[str, Callable] = {
    'collections.OrderedDict': _dict,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': lambda tensor, *_: _a(Tensor, tensor),
}


def _state_dict(tree: object) -> Mapping[str, Tensor]:
    """Returns the mapping of names to tensors in what a file holds."""
    for _ in range(len(WRAPPERS)):
        inner = [tree[key] for key in WRAPPERS if isinstance(tree, dict) and isinstance(tree.get(key), dict)]
        tree = inner[0] if inner else tree
    if not isinstance(tree, dict) or not tree:
        raise ValueError(f'it holds a {type(tree).__name__} and no state dict')
    for key, value in tree.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f'it holds no state dict: its entry {str(key)[:60]!r} is a {type(value).__name__}')
    return tree


def _storages(tree: object) -> list[Storage]:
    """Returns the storages of all tensors anywhere in `tree`, which may refer to itself."""
    found, seen, waiting = [], set(), [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Tensor):
            found.append(node.storage)
        elif isinstance(node, Storage):
            found.append(node)
        elif isinstance(node, (dict, list, tuple)) and id(node) not in seen:
            seen.add(id(node))
            waiting.extend(node.values() if isinstance(node, dict) else node)
    return found


def _arrays(state: Mapping[str, Tensor], record: Callable[[str], bytes], big: bool) -> dict[str, np.ndarray]:
    records: dict[str, bytes] = {}
    arrays = {}
    for name, tensor in state.items():
        key = tensor.storage.key
        if key not in records:
            records[key] = record(key)
        try:
            arrays[name] = _array(tensor, records[key], big)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f'the tensor {name!r} does not fit its storage: {error}') from error
    return arrays


def _array(tensor: Tensor, record: bytes, big: bool) -> np.ndarray:
    storage = tensor.storage
    size = _itemsize(storage.dtype)
    dtype = np.dtype('u2' if storage.dtype == 'bf16' else storage.dtype).newbyteorder('>' if big else '<')
    if len(record) < (storage.start + storage.count) * size:
        raise ValueError(f'{len(record)} bytes for {storage.count} numbers of {size} bytes')
    if math.prod(tensor.shape) > storage.count:
        raise ValueError(f'shape {list(tensor.shape)} of {storage.count} numbers')
    window = memoryview(record)[storage.start * size : (storage.start + storage.count) * size]
    array = np.ndarray(
        tensor.shape, dtype, buffer=window, offset=tensor.offset * size, strides=[size * n for n in tensor.strides]
    )
    if storage.dtype == 'bf16':
        return widened(array)
    return array.astype(dtype.newbyteorder('='), copy=False)


def widened(array: np.ndarray) -> np.ndarray:
    """Returns bfloat16 numbers, given as uint16, as the same numbers in float32."""
    return (array.astype(np.uint32, order='C') << 16).view(np.float32)


def _itemsize(dtype: str) -> int:
    return 2 if dtype == 'bf16' else np.dtype(dtype).itemsize
