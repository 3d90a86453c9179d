"""What a compiled program moves: bytes to and from HBM, bytes between devices, and the compiler's cycles.

HBM: operands and results of each instruction that is run, a loop's as often as it runs, and the branch of a conditional
that moves least. What lies on the chip is none of it, and of an array that is only cut into, or written into, the part
counts.
"""

import dataclasses
import functools
import re
from collections import defaultdict

from cvresearch.inspect.hlo import Array, Instruction, Program, arrays

# What moves nothing by itself.
FREE = {
    'parameter',
    'tuple',
    'get-tuple-element',
    'bitcast',
    'constant',
    'after-all',
    'partition-id',
    'replica-id',
    'copy-done',
    'slice-done',
    'async-done',
    'async-update',
    'all-reduce-done',
    'all-gather-done',
    'collective-permute-done',
    'opt-barrier',
    'add-dependency',
    '',
}
CUTS = ('dynamic-slice', 'slice', 'gather')
# Bytes over a device's links, by bytes of the result, in a ring of n devices.
WIRE = {
    'all-reduce': lambda n: 2 * (n - 1) / n,
    'all-gather': lambda n: (n - 1) / n,
    'reduce-scatter': lambda n: n - 1,
    'all-to-all': lambda n: (n - 1) / n,
    'collective-permute': lambda n: 1,
}
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_CHANNEL = re.compile(r'channel_id=(\d+)')
_PARAMETER = re.compile(r'parameter\((\d+)\)')


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one device does in one run of a program.

    Attributes:
      hbm: bytes read from HBM and written to it.
      padded: the same, with the tiles of each array filled up.
      cycles: the compiler's estimate; None where the text has none.
    """

    hbm: int
    padded: int
    cycles: int | None


@dataclasses.dataclass(frozen=True)
class Collective:
    """What devices send each other by one kind of operation, in one run of a program.

    Attributes:
      kind: 'all-reduce', 'all-gather', ...
      count: operations.
      bytes: of their results.
      wire_bytes: that leave a device over its links, in a ring.
    """

    kind: str
    count: int
    bytes: int
    wire_bytes: float


def traffic(program: Program, on_chip: bool) -> Traffic:
    """Returns what a program moves.

    Args:
      program: optimised.
      on_chip: memory spaces other than 0 are on the chip, as a TPU's are; all are HBM otherwise.
    """

    @functools.cache
    def of(computation: str) -> tuple[int, int, int]:
        hbm = padded = cycles = 0
        for instruction in program.computations[computation].values():
            if instruction.op in FREE:
                continue
            times = 1
            if instruction.op == 'while':
                body, times = instruction.loop
                moved = of(body)
            elif instruction.op == 'conditional':
                moved = min(map(of, instruction.branches))
            elif instruction.op == 'call':
                moved = of(instruction.called[0])
            else:
                estimate = _CYCLES.search(instruction.text)
                bytes_moved = _moved(program, computation, instruction, on_chip)
                moved = *bytes_moved, int(estimate[1]) if estimate else 0
            hbm, padded, cycles = hbm + moved[0] * times, padded + moved[1] * times, cycles + moved[2] * times
        return hbm, padded, cycles

    hbm, padded, cycles = of(program.entry)
    return Traffic(hbm, padded, cycles or None)


def _moved(program: Program, computation: str, instruction: Instruction, on_chip: bool) -> tuple[int, int]:
    """Returns the bytes that one instruction moves, and with padding."""
    in_hbm = lambda array: not (on_chip and array.space)  # noqa: E731
    results = arrays(instruction.type)
    if instruction.op == 'copy-start':
        return _size(filter(in_hbm, results[:2]))
    inside = [program.computations[name] for name in instruction.called if name in program.computations]
    if instruction.op in ('slice-start', 'async-start') and results:
        # Its tuple has the operand, the result and a flag.
        source, *_, result = [array for array in results if array.space != 2] or results
        ends = in_hbm(source) + in_hbm(result)
        return result.bytes * ends, result.padded * ends
    body = inside[0] if inside and instruction.op in ('fusion', 'custom-call') else {}
    reads = _reads(program.computations[computation], instruction, body, in_hbm)
    written = _size(filter(in_hbm, results))
    hbm, padded = reads[0] + written[0], reads[1] + written[1]
    updates = [inner for inner in body.values() if inner.op == 'dynamic-update-slice']
    if updates and any(inner.root and inner.op in ('dynamic-update-slice', 'tuple') for inner in body.values()):
        updated = sum(array.bytes for inner in updates for array in arrays(inner.type) if in_hbm(array))
        parts = sum(array.bytes for inner in updates for array in arrays(body[inner.operands[1]].type))
        return max(hbm - updated + parts, 0), max(padded - updated + parts, 0)
    return hbm, padded


def _reads(
    around: dict[str, Instruction], instruction: Instruction, body: dict[str, Instruction], in_hbm
) -> tuple[int, int]:
    numbers = {x.name: _PARAMETER.search(x.text) for x in body.values() if x.op == 'parameter'}
    parameters = {int(number[1]): name for name, number in numbers.items() if number}
    users = defaultdict(list)
    for user in body.values():
        for operand in user.operands:
            users[operand].append(user)
    total = padded = 0
    for place, name in enumerate(instruction.operands):
        source = around.get(name)
        held = [array for array in arrays(source.type) if in_hbm(array)] if source else []
        size = _size(held)
        inner = parameters.get(place)
        uses = users[inner] if inner else []
        if held and uses and all(use.operands[0] == inner for use in uses):
            if all(use.op in CUTS for use in uses):
                size = min(size, _size(array for use in uses for array in arrays(use.type)))
            elif all(use.op == 'dynamic-update-slice' for use in uses):
                size = (0, 0)
        total, padded = total + size[0], padded + size[1]
    return total, padded


def _size(held) -> tuple[int, int]:
    held = list(held)
    return sum(array.bytes for array in held), sum(array.padded for array in held)


def collectives(program: Program) -> list[Collective]:
    """Returns what devices send each other, by kind. What is in a loop counts as often as the loop runs."""

    @functools.cache
    def of(computation: str) -> dict[str, tuple[str, int, int, int]]:  # by name: (kind, bytes, devices, times)
        sent = {}
        for instruction in program.computations.get(computation, {}).values():
            kind = instruction.op.removesuffix('-start')
            if kind in WIRE:
                sent |= _sent(instruction, kind, computation, program.entry)
            elif instruction.op == 'while':
                body, trips = instruction.loop
                sent |= {name: (*what, times * trips) for name, (*what, times) in of(body).items()}
            else:
                for name in instruction.called + instruction.branches:
                    sent |= of(name)
        return sent

    totals: dict[str, tuple[int, int, float]] = {}
    for kind, size, group, times in of(program.entry).values():
        count, result, wire = totals.get(kind, (0, 0, 0.0))
        totals[kind] = (count + times, result + size * times, wire + size * times * WIRE[kind](group))
    return [Collective(kind, *total) for kind, total in sorted(totals.items())]


def _sent(instruction: Instruction, kind: str, computation: str, entry: str) -> dict[str, tuple[str, int, int, int]]:
    results: tuple[Array, ...] = arrays(instruction.type)
    sizes = [array.bytes for array in results]
    # A start's tuple also holds the operands, which an all-reduce's does not.
    size = max(sizes) if instruction.op != kind and kind != 'all-reduce' else sum(sizes)
    group = _group_size(instruction.text) if kind != 'collective-permute' else 2  # from one device to another
    name = instruction.name
    if computation.startswith('all-reduce-scatter'):  # a fusion that hands out one part of the sum
        kind, size = 'reduce-scatter', size // group
    if kind == 'all-gather' and computation != entry and (channel := _CHANNEL.search(instruction.text)):
        name = f'channel {channel[1]}'  # written once for each of the fusions that it is spread over
    return {name: (kind, size, group, 1)}


def _group_size(text: str) -> int:
    """Devices among which a collective is.

    From replica_groups={{0,1},..}, [groups,size]<=[..], or mesh['a'=4,'b'=2] .. {'a'}.

    Raises:
      ValueError: another way of writing them.
    """
    if match := re.search(r'replica_groups=\[\d+,(\d+)\]', text):
        return int(match[1])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', text):
        return match[1].count(',') + 1
    if match := re.search(r'replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}', text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        size = 1
        for axis in re.findall(r"'(\w+)'", match[2]):
            size *= int(sizes[axis])
        return size
    raise ValueError(f'no group of devices is found in: {text.strip()[:200]}')
