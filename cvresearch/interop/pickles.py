"""Reads what a pickle describes without running it.

A pickle is a program. This module reads its instructions and acts on those that build texts, numbers, containers and
tensors. It imports nothing that a file names and calls nothing in its name: any other global becomes an `Opaque`, a
placeholder that remembers what the file says of it and does nothing.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Iterable
from typing import BinaryIO

# The element types of PyTorch's storages, as NumPy or ml_dtypes name them.
STORAGES = {
    'DoubleStorage': 'float64',
    'FloatStorage': 'float32',
    'HalfStorage': 'float16',
    'BFloat16Storage': 'bfloat16',
    'LongStorage': 'int64',
    'IntStorage': 'int32',
    'ShortStorage': 'int16',
    'CharStorage': 'int8',
    'ByteStorage': 'uint8',
    'BoolStorage': 'bool',
    'UntypedStorage': 'uint8',
}
DTYPES = {
    'double': 'float64',
    'float': 'float32',
    'half': 'float16',
    'long': 'int64',
    'int': 'int32',
    'short': 'int16',
    **{
        name: name
        for name in (
            'float64',
            'float32',
            'float16',
            'bfloat16',
            'float8_e4m3fn',
            'float8_e4m3fnuz',
            'float8_e5m2',
            'float8_e5m2fnuz',
            'float8_e8m0fnu',
            'int64',
            'int32',
            'int16',
            'int8',
            'uint64',
            'uint32',
            'uint16',
            'uint8',
            'bool',
        )
    },
}
MOST_DIMENSIONS = 32


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of something that a pickle wants imported. Nothing is."""

    name: str


@dataclasses.dataclass(eq=False)
class Opaque:
    """An object of a class that is not known here. Nothing of it is built; it keeps what the file gives it.

    Attributes:
      name: the class or function, 'argparse.Namespace'.
      state: the attributes that the file sets, for an object whose state is a mapping.
      items: what it holds as a mapping (a subclass of dict).
    """

    name: str
    state: dict = dataclasses.field(default_factory=dict)
    items: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where a tensor's numbers lie: `count` of them from `start`, in the record `key`."""

    dtype: str
    key: str
    count: int
    start: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A window on a storage; offset and strides count elements of `dtype`, which is the storage's if None."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str | None = None


def unpickle(file: BinaryIO, persistent: Callable[[object], object] | None = None) -> object:
    """Returns what the next pickle in `file` describes: containers, texts, numbers, `Tensor`s, `Opaque`s.

    Args:
      file: open at the start of a pickle; left behind its end.
      persistent: maps a persistent id to its object; a `Storage` of torch.save if None.

    Raises:
      ValueError: an instruction that makes no sense; IndexError, KeyError and others for one without its operands.
    """
    machine = _Machine(persistent or storage_of)
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == 'STOP':
            return machine.stack.pop()
        machine.run(opcode.name, argument)
    raise ValueError('its pickle does not end')


class _Machine:
    """The stack, the memo and the marks of a pickle; `run` acts on one instruction."""

    def __init__(self, persistent: Callable[[object], object]):
        self.stack: list = []
        self.memo: dict = {}
        self.marks: list[int] = []
        self.persistent = persistent

    def run(self, name: str, argument) -> None:
        if name in _PUSHES_ARGUMENT:
            self.stack.append(argument)
        elif name in _PUSHES_NEW:
            self.stack.append(_PUSHES_NEW[name]())
        elif name in _COLLECTS:
            self.stack.append(_COLLECTS[name](self.pop_marked()))
        elif name not in _IGNORED:
            act = getattr(self, f'_{name.lower()}', None)
            if act is None:
                raise ValueError(f'its pickle has an instruction {name}, which files of weights do not have')
            act(argument)

    def pop_marked(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _mark(self, _) -> None:
        self.marks.append(len(self.stack))

    def _pop(self, _) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _pop_mark(self, _) -> None:
        self.pop_marked()

    def _dup(self, _) -> None:
        self.stack.append(self.stack[-1])

    def _tuples(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _tuple1(self, _) -> None:
        self._tuples(1)

    def _tuple2(self, _) -> None:
        self._tuples(2)

    def _tuple3(self, _) -> None:
        self._tuples(3)

    def _append(self, _) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _) -> None:
        self._extend(self.pop_marked())

    _additems = _appends

    def _extend(self, items: list) -> None:
        if not isinstance(self.stack[-1], Opaque):
            a(list, self.stack[-1]).extend(items)

    def _setitem(self, _) -> None:
        self._update([self.stack.pop(-2), self.stack.pop()])

    def _setitems(self, _) -> None:
        self._update(self.pop_marked())

    def _update(self, items: list) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Opaque) else a(dict, target)
        target.update(mapping(zip(items[::2], items[1::2], strict=True)))

    def _put(self, argument) -> None:
        self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]

    _binput = _long_binput = _memoize = _put

    def _get(self, argument) -> None:
        self.stack.append(self.memo[argument])

    _binget = _long_binget = _get

    def _global(self, argument) -> None:
        self.stack.append(Global(argument.replace(' ', '.', 1)))

    def _stack_global(self, _) -> None:
        self.stack.append(Global(f'{a(str, self.stack.pop(-2))}.{a(str, self.stack.pop())}'))

    def _ext1(self, argument) -> None:
        self.stack.append(Global(f'extension {argument}'))

    _ext2 = _ext4 = _ext1

    def _persid(self, argument) -> None:
        self.stack.append(self.persistent(argument))

    def _binpersid(self, _) -> None:
        self.stack.append(self.persistent(self.stack.pop()))

    def _reduce(self, _) -> None:
        arguments = a(tuple, self.stack.pop())
        self.stack.append(_call(self.stack.pop(), arguments))

    _newobj = _reduce

    def _newobj_ex(self, _) -> None:
        self.stack.pop()
        self._reduce(None)

    def _inst(self, argument) -> None:
        arguments = tuple(self.pop_marked())
        self.stack.append(_call(Global(argument.replace(' ', '.', 1)), arguments))

    def _obj(self, _) -> None:
        kind, *arguments = self.pop_marked()
        self.stack.append(_call(kind, tuple(arguments)))

    def _build(self, _) -> None:
        """Sets attributes of the object below, such as a state dict's _metadata; only an Opaque keeps them."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Opaque):
            a((dict, list, Tensor, Global), target)
            return
        for part in state if isinstance(state, tuple) else (state,):  # (attributes, slots)
            if isinstance(part, dict):
                target.state.update(part)


_PUSHES_NEW: dict[str, Callable] = {
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
    'EMPTY_TUPLE': tuple,
    'EMPTY_LIST': list,
    'EMPTY_DICT': dict,
    'EMPTY_SET': list,
}
_PUSHES_ARGUMENT = {
    'INT',
    'BININT',
    'BININT1',
    'BININT2',
    'LONG',
    'LONG1',
    'LONG4',
    'FLOAT',
    'BINFLOAT',
    'STRING',
    'BINSTRING',
    'SHORT_BINSTRING',
    'UNICODE',
    'SHORT_BINUNICODE',
    'BINUNICODE',
    'BINUNICODE8',
    'BINBYTES',
    'SHORT_BINBYTES',
    'BINBYTES8',
    'BYTEARRAY8',
}
# Sets are lists here: their members could be nested so deeply that hashing them overflows the C stack.
_COLLECTS: dict[str, Callable[[list], object]] = {
    'TUPLE': tuple,
    'LIST': list,
    'FROZENSET': list,
    'DICT': lambda items: mapping(zip(items[::2], items[1::2], strict=True)),
}
_IGNORED = {'PROTO', 'FRAME', 'READONLY_BUFFER'}


def a(kind: type | tuple[type, ...], value):
    """Returns `value`, which must be of that kind.

    Raises:
      ValueError: it is not.
    """
    if not isinstance(value, kind):
        raise ValueError(f'its pickle has {described(value)} where weights have something else')
    return value


def described(value: object) -> str:
    """Returns a value's kind in words, for messages."""
    if isinstance(value, (Opaque, Global)):
        return f'{value.name!r}, which is no tensor and is not run'
    return f'a {type(value).__name__}'


def mapping(pairs: Iterable[tuple] = ()) -> dict:
    """Returns the dict of `pairs`. Objects as keys count by identity, so that their entries are not lost."""
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    # Tuples could be nested so deeply that hashing them overflows the C stack.
    return {
        key if isinstance(key, (str, int, float, bytes, type(None), Opaque)) else id(key): value for key, value in pairs
    }


def _call(function: object, arguments: tuple) -> object:
    """Returns what a call is known to give, else an Opaque."""
    name = function.name if isinstance(function, (Global, Opaque)) else None
    if name is None:
        raise ValueError(f'its pickle calls {described(function)}')
    if name in _CALLS and isinstance(function, Global):
        return _CALLS[name](*arguments)
    # copyreg's reconstructor and __newobj__, getattr, functools.partial: the class is the first argument.
    first = arguments[0] if arguments else None
    wraps = name.startswith(('copyreg.', 'copy_reg.')) and isinstance(first, Global)
    return Opaque(first.name if wraps and isinstance(first, Global) else name)


def storage_of(persistent_id: object) -> Storage | Global:
    """Returns the storage of a persistent id; its last part (legacy) is (key, start, count) of a view or None."""
    kind, storage_type, *rest = a(tuple, persistent_id)
    if a(str, kind) == 'module':  # the class of a whole net, with its source beside
        return a(Global, storage_type)
    if kind != 'storage':
        raise ValueError(f'its pickle refers to a {kind!r}')
    key, _, count, *view = rest
    start, count = sizes(view[0][1:] if view and view[0] else (0, count))
    return Storage(storage_dtype(storage_type), a(str, key), count, start)


def storage_dtype(storage_type: object) -> str:
    """Returns the element type of a storage class, `Global('torch.FloatStorage')`."""
    full_name = a(Global, storage_type).name
    name = full_name.rpartition('.')[2]
    if name not in STORAGES:
        raise ValueError(f'its tensors are of type {full_name}, which is not known here')
    return STORAGES[name]


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_) -> Tensor:
    (start,) = sizes((offset,))
    return Tensor(a(Storage, storage), start, sizes(shape), sizes(strides))


def _tensor_v3(storage: Storage, offset: int, shape: tuple, strides: tuple, grad: bool, hooks, dtype, *_) -> Tensor:
    """Returns a tensor of an untyped storage (of bytes): of float8, and of unsigned integers."""
    name = a(Global, dtype).name.removeprefix('torch.')
    if name not in DTYPES:
        raise ValueError(f'its tensors are of type {dtype.name}, which is not known here')
    return dataclasses.replace(_tensor(storage, offset, shape, strides), dtype=DTYPES[name])


def sizes(numbers: tuple) -> tuple[int, ...]:
    """Returns the numbers, which must be a shape's, strides' or offsets'.

    Raises:
      ValueError: they are too many, negative, or no whole numbers.
    """
    numbers = a(tuple, numbers)
    if len(numbers) > MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise ValueError('its pickle has a tensor of no possible shape')
    return numbers


_CALLS: dict[str, Callable] = {
    'collections.OrderedDict': mapping,
    **{
        f'{module}.{kind}': lambda members=(): list(a((list, tuple), members))
        for module in ('builtins', '__builtin__')
        for kind in ('set', 'frozenset')
    },
    'torch.Size': lambda lengths=(): tuple(a((tuple, list), lengths)),
    'torch._utils._rebuild_tensor': _tensor,  # before PyTorch 0.4
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
    'torch._utils._rebuild_parameter': lambda tensor, *_: a(Tensor, tensor),
    'torch._utils._rebuild_parameter_with_state': lambda tensor, *_: a(Tensor, tensor),
    'torch._utils._rebuild_device_tensor_from_cpu_tensor': lambda tensor, *_: a(Tensor, tensor),
    'torch._tensor._rebuild_from_type_v2': lambda function, _, arguments, *__: _call(function, a(tuple, arguments)),
}
