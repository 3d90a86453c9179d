"""What a training step costs on machines that are not here (docs/scale.md): counted, and compiled for them.

    python -m tests.peers.scale --all                          # counts every case, from shapes alone
    python -m tests.peers.scale --net resnet50 --compile 32    # the collectives, compiled for images of 32 pixels
    python -m tests.peers.scale --net resnet50 --topology      # by the TPU's own compiler (libtpu)
    python -m tests.peers.scale --table                        # the table of docs/scale.md

Rows go to docs/records/scale.csv. A compiled row is of as many host devices as the machine has, partitioned by the same
compiler passes; what is sent does not depend on the size of images, which is why small ones serve (but for mixup's
partners, which cross devices: their images are counted at the small size). With --topology no TPU is needed, but the
package libtpu in the version that jax's extra `tpu` names, and time: minutes for ResNet-50. One process at a time.
Peaks are from public data sheets.
"""

import argparse
import csv
import dataclasses
import functools
import os
import re
import sys
import time
from pathlib import Path

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
AT_ONCE = 16  # images that a device has at once, at the most: larger batches go through the net in parts
NETS = {  # experiment, and what is changed in it
    'resnet50': ('configs/resnet50.py:resnet50', {'batch_size': 4096, 'batch_norm.group_size': 0}),
    'efficientnet_b7': ('configs/efficientnet_b0.py:efficientnet_b7', {'batch_size': 4096}),
    'efficientnet_b7_remat': ('configs/efficientnet_b0.py:efficientnet_b7', {'batch_size': 4096, 'remat': True}),
    'efficientnet_l2_remat': ('configs/efficientnet_l2.py', {'batch_size': 2048}),
    'nfnet_f4_plus': ('configs/dm_nfnet_f0.py:dm_nfnet_f4_plus', {'batch_size': 4096}),
    'nfnet_f4_plus_remat': ('configs/dm_nfnet_f0.py:dm_nfnet_f4_plus', {'batch_size': 4096, 'remat': True}),
}
# Bytes that cross a device's links, by bytes of the operand or result, in a ring of n devices.
WIRE = {
    'all-reduce': lambda n: 2 * (n - 1) / n, 'all-gather': lambda n: (n - 1) / n, 'reduce-scatter': lambda n: (n - 1),
    'all-to-all': lambda n: (n - 1) / n, 'collective-permute': lambda n: 1,
}  # fmt: skip
WIDTH = {'f64': 8, 's64': 8, 'u64': 8, 'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 's8': 1, 'u8': 1, 'pred': 1}
COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.\-]+) .*\{$')
COLLECTIVE = re.compile(rf'%?([\w.\-]+) = (.*?) ({"|".join(WIRE)})(-start)?\(')
CHANNEL = re.compile(r'channel_id=(\d+)')
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

    @functools.cache
    def of(computation: str) -> dict[str, tuple[str, int, int, int]]:  # by name: (kind, bytes, devices, times)
        found = {}
        for line in bodies.get(computation, ()):
            if match := COLLECTIVE.search(line):
                kind, size = match[3], _result_bytes(match[2], bool(match[4]), match[3])
                group = _group_size(line) if kind != 'collective-permute' else 2  # from one device to another
                if computation.startswith('all-reduce-scatter'):  # a fusion that hands out one part of the sum
                    kind, size = 'reduce-scatter', size // group
                name = match[1]
                if kind == 'all-gather' and computation != entry and (channel := CHANNEL.search(line)):
                    name = f'channel {channel[1]}'  # written once for each of the fusions that it is spread over
                found[name] = kind, size, group, 1
            elif match := LOOP.search(line):
                trips = TRIPS.search(line)
                for name, (*what, times) in of(match[1]).items():
                    found[name] = *what, times * int(trips[1] if trips else 1)
            else:
                for called in CALLS.findall(line):
                    found |= of(called)
        return found

    totals: dict[str, tuple[int, float, float]] = {}
    for kind, size, group, times in of(entry).values():
        count, result, wire = totals.get(kind, (0, 0.0, 0.0))
        totals[kind] = (count + times, result + size * times, wire + size * times * WIRE[kind](group))
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
    """Devices among which a collective is.

    From replica_groups={{0,1},..}, [groups,size]<=[..], or mesh['a'=4,'b'=2] .. {'a'}.

    Raises:
      ValueError: another way of writing them.
    """
    if match := re.search(r'replica_groups=\[\d+,(\d+)\]', line):
        return int(match[1])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', line):
        return match[1].count(',') + 1
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return _product(','.join(sizes[axis] for axis in re.findall(r"'(\w+)'", match[2])))
    raise ValueError(f'no group of devices is found in: {line.strip()[:200]}')


def devices_of(machine: str, topology: bool) -> list:
    """Returns the devices that a step is compiled for: of the machine itself, or as many of this host."""
    import jax
    from jax.experimental import topologies

    if topology:
        return list(topologies.get_topology_desc(machine, platform='tpu').devices)
    return jax.devices()[: DEVICES[machine]]


def program_of(net: str, mesh, size: int | None = None, batch: int | None = None):
    """Returns the program of a recipe in bfloat16 on a mesh, with images of `size` pixels, and its configuration."""
    from cvresearch.base import config as configs
    from cvresearch.base import mesh as meshes
    from cvresearch.data import sources
    from cvresearch.engine.experiment import Experiment

    file, changes = NETS[net]
    config = configs.load(file, {key: str(value) for key, value in changes.items()} | {'dtype': 'bfloat16'})
    with config.unlocked():
        config.batch_size = batch or config.batch_size
        config.eval_batch_size = mesh.size
        config.accumulate = max(1, config.batch_size // mesh.size // AT_ONCE)
        config.transform.train.crop.size = size or config.transform.train.crop.size
    source = sources.without_images(config.data, config.minival, config.transform)
    return Experiment.from_config(config, source, meshes.Layout(mesh)), config


def case(machine: str, net: str, shard: int, size: int | None, topology: bool, batch: int | None = None) -> dict:
    """Returns a row of the record: a step counted from shapes, and compiled where a size or the topology is given."""
    import numpy as np
    from jax.sharding import AbstractMesh, Mesh

    from cvresearch.base import mesh as meshes
    from cvresearch.engine import memory_plan
    from cvresearch.inspect import cost

    shape = (DEVICES[machine] // shard, shard)
    experiment, config = program_of(net, AbstractMesh(shape, meshes.AXES), batch=batch)
    image, at_once = experiment.source.facts.image_shape, config.batch_size // config.accumulate // experiment.mesh.size
    need = memory_plan.of(experiment, kept=activations_of_image(net) * at_once)
    row = dict(
        machine=machine, net=net, image=image[0], batch=config.batch_size, data=shape[0], shard=shard,
        parts=config.accumulate, how='counted', state=need.params + need.optimizer + need.average,
        gradients=need.gradients, gathered=need.gathered, activations=need.activations,
        # A multiply-add is two operations, and a gradient costs about twice the forward pass.
        flops=6 * cost.macs(experiment.model, image) * config.batch_size // experiment.mesh.size,
        wire=wire_counted(need.gradients, *shape, config.accumulate),
    )  # fmt: skip
    if not (size or topology):
        return row
    mesh = Mesh(np.array(devices_of(machine, topology)).reshape(shape), meshes.AXES)
    experiment, config = program_of(net, mesh, size, batch)
    begun = time.perf_counter()
    executable = compile_step(experiment, config.batch_size, 'tpu' if topology else 'cpu')
    memory, found = executable.memory_analysis(), collectives(executable.as_text())
    row |= dict(
        how='compiled for the topology' if topology else f'compiled at {size} px',
        small_activations=memory_plan.activations(experiment), small_temporaries=memory.temp_size_in_bytes,
        compile_s=round(time.perf_counter() - begun), wire_compiled=round(sum(wire for _, _, wire in found.values())),
        **{kind: f'{count} of {result / 1e6:.2f} MB' for kind, (count, result, _) in found.items()},
    )  # fmt: skip
    if topology:
        row |= dict(
            arguments=memory.argument_size_in_bytes, temporaries=memory.temp_size_in_bytes,
            hbm=int((executable.cost_analysis() or {}).get('bytes accessed', 0)),
        )  # fmt: skip
    return row


@functools.cache
def activations_of_image(net: str) -> int:
    """Returns the bytes that the backward pass is handed for one image."""
    from jax.sharding import AbstractMesh

    from cvresearch.base import mesh as meshes
    from cvresearch.engine import memory_plan

    mesh = AbstractMesh((256 // AT_ONCE, 1), meshes.AXES)
    experiment, _ = program_of(net, mesh, batch=256)
    return memory_plan.activations(experiment) // AT_ONCE


def wire_counted(parameters: int, data: int, shard: int, parts: int) -> int:
    """Returns the bytes over a device's links that gradients and gathered parameters make, statistics aside.

    Every part of a batch adds up its own gradients over the devices.
    """
    devices = data * shard
    if shard == 1:
        return round(2 * (devices - 1) / devices * parameters * parts)
    among = (shard - 1) / shard
    return round((2 * among * parameters + 2 * (data - 1) / data * parameters / shard) * parts)


def compile_step(experiment, batch_size: int, platform: str):
    """Returns the compiled update of a program."""
    import jax
    import jax.numpy as jnp

    from cvresearch.base import mesh as meshes
    from cvresearch.nn.conv import plain_lowering

    placed = meshes.by_example(experiment.mesh)
    array = lambda shape, dtype: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=placed)  # noqa: E731
    batch = dict(
        image=array(experiment.source.facts.image_shape, jnp.uint8), label=array((), jnp.int32),
        epoch=array((), jnp.int32), index=array((), jnp.int32),
    )  # fmt: skip
    # A CPU stands in for others: convolutions are what those have, and the machine code need not be good.
    quick = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
    with plain_lowering():
        traced = experiment.train_step().trace(experiment.abstract_state(), batch)
        lowered = traced.lower(lowering_platforms=(platform,))
    return lowered.compile(quick if platform == 'cpu' else None)


def table() -> str:
    """Returns the record as a table: bytes of a device, and the least time of a step by each of its peaks, in ms."""
    lines = [
        '| machine | net | px | batch | data x shard | state | whole | activations | fits | compute | HBM | links '
        '| sent |',
        '| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | --- |',
    ]
    for row in csv.DictReader(RECORD.read_text().splitlines()):
        peak = MACHINES[row['machine']]
        state, gradients, gathered, activations, flops, wire = (
            float(row[key]) for key in ('state', 'gradients', 'gathered', 'activations', 'flops', 'wire')
        )
        kept = state + gradients + gathered + activations
        sent = wire if not row['wire_compiled'] else float(row['wire_compiled'])
        if row['temporaries']:
            kept = float(row['arguments']) + float(row['temporaries'])
        # What is kept is written and read, once each, at the least.
        times = (flops / peak.flops, float(row['hbm'] or 2 * kept) / peak.hbm, sent / peak.link)
        cells = [
            row['machine'], row['net'], row['image'], row['batch'], f'{row["data"]} x {row["shard"]}',
            *(f'{value / 1e9:.2f}' for value in (state, gradients + gathered, activations)),
            f'{kept / 1e9:.1f} of {peak.memory / 1e9:.0f} GB' + (', no' if kept > peak.memory else ''),
            *(f'{1e3 * each:.1f}' for each in times),
            f'{sent / 1e6:,.0f} MB, {row["how"]}',
        ]  # fmt: skip
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


FIELDS = (
    'machine', 'net', 'image', 'batch', 'data', 'shard', 'parts', 'how', 'state', 'gradients', 'gathered',
    'activations', 'flops', 'wire', 'wire_compiled', 'compile_s', 'small_activations', 'small_temporaries',
    'arguments', 'temporaries', 'hbm', *WIRE,
)  # fmt: skip


def keep(row: dict) -> None:
    """Adds a row to the record."""
    old = list(csv.DictReader(RECORD.read_text().splitlines())) if RECORD.exists() else []
    with open(RECORD, 'w', newline='') as file:
        writer = csv.DictWriter(file, FIELDS, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows([*old, row])
    print(row, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Counts or compiles cases, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', action='store_true', help='print the table of docs/scale.md')
    parser.add_argument('--all', action='store_true', help='every net on every machine, not divided and divided')
    parser.add_argument('--machine', choices=MACHINES, default='v5e:16x16')
    parser.add_argument('--net', choices=NETS, default='resnet50')
    parser.add_argument('--shard', type=int, default=1, help='devices over which the parameters are divided')
    parser.add_argument('--compile', type=int, metavar='SIZE', help='for as many host devices, images of that side')
    parser.add_argument('--topology', action='store_true', help='by the compiler of the TPU, at full size')
    parser.add_argument('--batch', type=int, help="images a step; the recipe's own by default")
    options = parser.parse_args(argv)
    if options.table:
        print(table())
        return 0
    cases = [(options.machine, options.net, options.shard)]
    if options.all:
        cases = [(machine, net, shard) for machine in MACHINES for net in NETS for shard in (1, 8)]
    for machine, net, shard in cases:
        keep(case(machine, net, shard, options.compile, options.topology, options.batch))
    return 0


if __name__ == '__main__':
    flags = f'--xla_force_host_platform_device_count={max(DEVICES.values())}'
    os.environ.update(JAX_PLATFORMS='cpu', TPU_SKIP_MDS_QUERY='1', XLA_FLAGS=flags)
    sys.exit(main())
