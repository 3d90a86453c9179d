"""What a training step costs on machines that are not here (docs/scale.md), by compiling it for them.

    python -m tests.peers.scale CASE [CASE...]     # --list names them; --csv adds rows to docs/records/scale.csv
    python -m tests.peers.scale --table            # the table of docs/scale.md from that file

For TPUs the step is compiled by the TPU's own compiler for a topology (`pip install libtpu`; no TPU is needed). For
GPUs it is compiled for as many host devices: the collectives are those of the partitioned program, the memory is
counted from shapes. Peaks are from public data sheets.
"""

import argparse
import csv
import dataclasses
import os
import re
import sys
import time
from pathlib import Path

os.environ.update(JAX_PLATFORMS='cpu', TPU_SKIP_MDS_QUERY='1')
RECORD = Path(__file__).parents[2] / 'docs' / 'records' / 'scale.csv'


@dataclasses.dataclass(frozen=True)
class Machine:
    """Peaks of one device.

    Attributes:
      flops: a second in bfloat16, without sparsity.
      hbm: bytes a second.
      link: bytes a second out of a device to the others, over all its links in one direction.
      memory: bytes.
      source: where the numbers are from.
    """

    flops: float
    hbm: float
    link: float
    memory: float
    source: str


MACHINES = {
    'v5e:16x16': Machine(197e12, 819e9, 200e9, 16e9, 'cloud.google.com/tpu/docs/v5e'),
    '8xH100': Machine(989.4e12, 3.35e12, 450e9, 80e9, 'NVIDIA H100 SXM data sheet'),
}
DEVICES = {'v5e:16x16': 256, '8xH100': 8}
NETS = {  # experiment, and what is changed in it: the recipe's own batch where it fits
    'resnet50': ('configs/resnet50.py:resnet50', {'batch_size': 4096, 'batch_norm.group_size': 0}),
    'efficientnet_b7': ('configs/efficientnet_b0.py:efficientnet_b7', {'batch_size': 4096}),
    'efficientnet_l2': ('configs/efficientnet_l2.py', {'batch_size': 2048}),
    'nfnet_f4_plus': ('configs/dm_nfnet_f0.py:dm_nfnet_f4_plus', {'batch_size': 4096}),
}
# Bytes that cross a device's links, by bytes of the operand or result, in a ring of n devices.
WIRE = {
    'all-reduce': lambda n: 2 * (n - 1) / n, 'all-gather': lambda n: (n - 1) / n, 'reduce-scatter': lambda n: (n - 1),
    'all-to-all': lambda n: (n - 1) / n, 'collective-permute': lambda n: 1,
}  # fmt: skip
WIDTH = {'f64': 8, 's64': 8, 'u64': 8, 'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 's8': 1, 'u8': 1, 'pred': 1}
COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$')
COLLECTIVE = re.compile(rf'= (.*?) ({"|".join(WIRE)})(-start)?\(')
LOOP = re.compile(r' while\(.*body=%?([\w.\-]+)')
TRIPS = re.compile(r'known_trip_count\W+n\W+(\d+)')
CALLS = re.compile(r'(?:to_apply|calls|async_execution_thread.*calls)=%?([\w.\-]+)')


def collectives(text: str) -> dict[str, tuple[int, float, float]]:
    """Returns {kind: (operations, bytes of their results, bytes over a device's links)} of a compiled program.

    Args:
      text: of the optimised HLO. What is in a loop counts as often as the loop turns.
    """
    bodies: dict[str, list[str]] = {}
    name = entry = ''
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[1]
            entry = name if line.startswith('ENTRY') else entry
            bodies[name] = []
        elif name:
            bodies[name].append(line)

    def of(computation: str) -> list[tuple[str, int, int]]:
        found = []
        for line in bodies.get(computation, ()):
            if match := COLLECTIVE.search(line):
                found.append((match[2], _result_bytes(match[1], bool(match[3]), match[2]), _group_size(line)))
            elif match := LOOP.search(line):
                trips = TRIPS.search(line)
                found += of(match[1]) * int(trips[1] if trips else 1)
            else:
                for called in CALLS.findall(line) if ' fusion(' not in line else ():
                    found += of(called)
        return found

    totals: dict[str, tuple[int, float, float]] = {}
    for kind, size, group in of(entry):
        count, result, wire = totals.get(kind, (0, 0.0, 0.0))
        totals[kind] = (count + 1, result + size, wire + size * WIRE[kind](group))
    return totals


def _result_bytes(shapes: str, started: bool, kind: str) -> int:
    """Bytes of a result; a start's tuple also holds the operands, which an all-reduce's does not."""
    sizes = [
        WIDTH[kind] * _product(dimensions) for kind, dimensions in re.findall(r'(\w+)\[([\d,]*)\]', shapes)
        if kind in WIDTH
    ]  # fmt: skip
    return sum(sizes) if not started or kind == 'all-reduce' else max(sizes)


def _product(dimensions: str) -> int:
    product = 1
    for number in filter(None, dimensions.split(',')):
        product *= int(number)
    return product


def _group_size(line: str) -> int:
    """Devices among which a collective is: from replica_groups={{0,1},..} or [groups,size]<=[..]."""
    if match := re.search(r'replica_groups=\[\d+,(\d+)\]', line):
        return int(match[1])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', line):
        return match[1].count(',') + 1
    return 2


def devices_of(machine: str) -> list:
    """Returns the devices that a step is compiled for."""
    import jax
    from jax.experimental import topologies

    if machine.startswith('v5e'):
        return list(topologies.get_topology_desc(machine, platform='tpu').devices)
    return jax.devices()[: DEVICES[machine]]


def case(machine: str, net: str, shard: int, size: int | None, batch: int | None, compiled: bool) -> dict:
    """Returns a row of the table: one step of a net on a machine, compiled or only counted."""
    import numpy as np
    from jax.sharding import AbstractMesh, Mesh

    from cvresearch.base import config as configs
    from cvresearch.base import mesh as meshes
    from cvresearch.data import sources
    from cvresearch.engine import footprint, trace
    from cvresearch.engine.program import Program

    file, changes = NETS[net]
    config = configs.load(file, {key: str(value) for key, value in changes.items()} | {'dtype': 'bfloat16'})
    with config.unlocked():
        config.batch_size = batch or config.batch_size
        config.transform.train.crop.size = size or config.transform.train.crop.size
    shape = (DEVICES[machine] // shard, shard)
    mesh = Mesh(np.array(devices_of(machine)).reshape(shape), meshes.AXES) if compiled else AbstractMesh(
        shape, meshes.AXES
    )  # fmt: skip
    source = sources.without_images(config.data, config.minival, config.transform)
    program = Program.of(config, source, meshes.Layout(mesh))
    need, facts = footprint.of(program), program.source.facts
    row = dict(
        machine=machine, net=net, image=facts.image_shape[0], batch=config.batch_size, data=shape[0], shard=shard,
        remat=config.remat, how='counted', state=need.params + need.optimizer + need.average,
        gradients=need.gradients, gathered=need.gathered, activations=need.activations,
        # A multiply-add is two operations, and a gradient costs about twice the forward pass.
        flops=6 * trace.macs(program.model, facts.image_shape) * config.batch_size // mesh.size,
    )  # fmt: skip
    if not compiled:
        whole = need.gradients
        row |= dict(wire=wire_counted(whole, *shape))
        return row
    begun = time.perf_counter()
    executable = compile_step(program, config.batch_size, machine)
    memory, found = executable.memory_analysis(), collectives(executable.as_text())
    return row | dict(
        how='compiled', compile_s=round(time.perf_counter() - begun),
        arguments=memory.argument_size_in_bytes, temporaries=memory.temp_size_in_bytes,
        hbm=int((executable.cost_analysis() or {}).get('bytes accessed', 0)),
        wire=round(sum(wire for _, _, wire in found.values())),
        **{kind: f'{count} of {round(result / 1e6, 2)} MB' for kind, (count, result, _) in found.items()},
    )  # fmt: skip


def wire_counted(parameters: int, data: int, shard: int) -> int:
    """Returns the bytes over a device's links that gradients and gathered parameters make, statistics aside."""
    devices = data * shard
    if shard == 1:
        return round(2 * (devices - 1) / devices * parameters)
    among = (shard - 1) / shard
    return round(2 * among * parameters + 2 * (data - 1) / data * parameters / shard)


def compile_step(program, batch_size: int, machine: str):
    """Returns the compiled update of a program."""
    import jax
    import jax.numpy as jnp

    from cvresearch.base import mesh as meshes

    placed = meshes.by_example(program.mesh)
    array = lambda shape, dtype: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=placed)  # noqa: E731
    batch = dict(
        image=array(program.source.facts.image_shape, jnp.uint8), label=array((), jnp.int32),
        epoch=array((), jnp.int32), index=array((), jnp.int32),
    )  # fmt: skip
    traced = program.train_step().trace(program.abstract_state(), batch)
    platform = 'tpu' if machine.startswith('v5e') else 'cpu'
    return traced.lower(lowering_platforms=(platform,)).compile()


def table() -> str:
    """Returns the rows of the record as a table with the three times of a roofline, in ms, and what bounds a step."""
    head = (
        '| machine | net | px | batch | data x shard | how | memory, GB | compute | HBM | links | bound by |\n'
        '| --- | --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | --- |'
    )
    lines = [head]
    for row in csv.DictReader(RECORD.read_text().splitlines()):
        peak = MACHINES[row['machine']]
        number = {key: float(value) if value.replace('.', '').isdigit() else 0.0 for key, value in row.items()}
        counted = sum(number[key] for key in ('state', 'gradients', 'gathered', 'activations'))
        memory = number['arguments'] + number['temporaries'] if row['machine'].startswith('v5e') else 0
        memory = memory or counted
        # What is kept is written once and read once, at the least; the state is read and written.
        hbm = number['hbm'] or 2 * counted
        times = dict(
            compute=1e3 * number['flops'] / peak.flops, memory=1e3 * hbm / peak.hbm,
            links=1e3 * number['wire'] / peak.link,
        )  # fmt: skip
        fits = '' if memory <= peak.memory else ' (does not fit)'
        lines.append(
            f'| {row["machine"]} | {row["net"]} | {row["image"]} | {row["batch"]} | {row["data"]} x {row["shard"]} | '
            f'{row["how"]} | {memory / 1e9:.1f}{fits} | {times["compute"]:.1f} | {times["memory"]:.1f} | '
            f'{times["links"]:.2f} | {max(times, key=times.get)} |'
        )
    return '\n'.join(lines)


FIELDS = (
    'machine', 'net', 'image', 'batch', 'data', 'shard', 'remat', 'how', 'state', 'gradients', 'gathered',
    'activations', 'flops', 'compile_s', 'arguments', 'temporaries', 'hbm', 'wire', *WIRE,
)  # fmt: skip


def main() -> None:
    """Compiles or counts cases, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', action='store_true', help='print the table of docs/scale.md')
    parser.add_argument('--machine', choices=MACHINES, default='v5e:16x16')
    parser.add_argument('--net', choices=NETS, default='resnet50')
    parser.add_argument('--shard', type=int, default=1, help='devices over which the parameters are divided')
    parser.add_argument('--size', type=int, help='side of the images; the recipe\'s own by default')
    parser.add_argument('--batch', type=int, help='images a step; the recipe\'s own by default')
    parser.add_argument('--count', action='store_true', help='count from shapes, compile nothing')
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    row = case(options.machine, options.net, options.shard, options.size, options.batch, not options.count)
    new = not RECORD.exists()
    with open(RECORD, 'a', newline='') as file:
        writer = csv.DictWriter(file, FIELDS, restval='')
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == '__main__':
    os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=8')
    sys.exit(main())
