"""An optimised program of XLA, read from its text: computations, instructions, arrays with their tiles and spaces."""

import dataclasses
import functools
import math
import re

BYTES = {
    'f64': 8,
    's64': 8,
    'u64': 8,
    'c64': 8,
    'f32': 4,
    's32': 4,
    'u32': 4,
    'bf16': 2,
    'f16': 2,
    's16': 2,
    'u16': 2,
    's8': 1,
    'u8': 1,
    'pred': 1,
    's4': 1,
    'u4': 1,
    'f8e4m3fn': 1,
    'f8e5m2': 1,
}
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\](?:\{([^}]*)\})?')
_HEAD = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_CALLED = re.compile(r'(?:calls|body|to_apply|async_computation)=%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)')
_BODY = re.compile(r'body=%?([\w.\-]+)')
_TRIPS = re.compile(r'known_trip_count\W+n\W+(\d+)')
_SPACE = re.compile(r'S\((\d+)\)')
_TILE = re.compile(r'T\(([\d,]+)\)')
_NAME = re.compile(r'%([\w.\-]+)')


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a program.

    Attributes:
      dtype: as XLA writes it, 'bf16'.
      shape: of it.
      bytes: of its numbers.
      padded: of the memory that it takes, with the tiles of its layout filled up.
      space: the number of its memory; 0 is HBM, and 1 of a TPU is on the chip.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    padded: int
    space: int


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction: its name, the text of its result's type, its opcode, its operands' names, and its whole text."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    text: str
    root: bool

    @property
    def called(self) -> list[str]:
        """The computations that it calls, but for the branches of a conditional."""
        return _CALLED.findall(self.text)

    @property
    def branches(self) -> list[str]:
        """The branches of a conditional."""
        matches = _BRANCHES.findall(self.text)
        return [name.strip().lstrip('%') for several, one in matches for name in (several or one).split(',')]

    @property
    def loop(self) -> tuple[str, int]:
        """The body of a while loop, and how often it runs (1 where the compiler does not know)."""
        trips = _TRIPS.search(self.text)
        body = _BODY.search(self.text)
        assert body is not None  # every loop has one
        return body[1], int(trips[1]) if trips else 1


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, each its instructions by name in their order; and the one that is run."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


def parse(text: str) -> Program:
    """Returns the program of an optimised module's text."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, body = '', None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            body = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith('}'):
            body = None
        elif body is not None and (match := _INSTRUCTION.match(line)):
            body[match[2]] = _instruction(match[2], match[3], bool(match[1]))
    return Program(computations, entry)


def _instruction(name: str, text: str, root: bool) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith('(') else text.index(' ')
    rest = text[end:].lstrip()
    opening = rest.find('(')
    inside = rest[opening : _closing(rest, opening)] if opening >= 0 else ''
    return Instruction(name, text[:end], rest[:opening], tuple(_NAME.findall(inside)), text, root)


def _closing(text: str, opening: int) -> int:
    """Returns where the parenthesis that opens at a place is closed."""
    depth = 0
    for match in re.compile(r'[()]').finditer(text, opening):
        depth += 1 if match[0] == '(' else -1
        if depth == 0:
            return match.start()
    return len(text)


@functools.lru_cache(1 << 16)
def arrays(types: str) -> tuple[Array, ...]:
    """Returns the arrays that the text of a type names, in their order; tokens are none."""
    sizes = []
    for dtype, dimensions, layout in _ARRAY.findall(types):
        if dtype in BYTES:
            shape = tuple(int(n) for n in dimensions.split(',') if n)
            size = BYTES[dtype] * math.prod(shape)
            space = _SPACE.search(layout)
            padded = BYTES[dtype] * math.prod(_tiled(shape, layout))
            sizes.append(Array(dtype, shape, size, padded, int(space[1]) if space else 0))
    return tuple(sizes)


def _tiled(shape: tuple[int, ...], layout: str) -> list[int]:
    """Returns the shape, the fastest axis first, filled up to whole tiles of a layout such as '1,0:T(8,128)(2,1)'."""
    tile = _TILE.search(layout)
    if not tile or not shape:
        return list(shape)
    physical = [shape[int(axis)] for axis in layout.split(':')[0].split(',')]
    for place, length in enumerate(reversed(tile[1].split(','))):
        if place < len(physical):
            physical[place] = -(-physical[place] // int(length)) * int(length)
    return physical
