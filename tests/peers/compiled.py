"""Bytes that a step moves, ours beside plain Flax, by compilers of machines that are not here (docs/speed.md).

    python -m tests.peers.compiled                  # every case that is not in the record, stopped before machine code
    python -m tests.peers.compiled --machine v5e:1 --code --jobs 2    # with machine code: estimated cycles; minutes
    python -m tests.peers.compiled --net resnet50 --whose ours        # these anew
    python -m tests.peers.compiled --table

One device, 128 images of 224 pixels, bfloat16, SGD with momentum, batch norm over the batch; the other nets are of
tests/peers/linen.py. It needs the extra `plan` and no device. Rows go to docs/records/compiled.csv.
"""

import argparse
import csv
import itertools
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

RECORD = Path(__file__).parents[2] / 'docs' / 'records' / 'compiled.csv'
IMAGES = 128
MACHINES = ('v5e:1', 'h100:1')
WHOSE = ('ours', 'linen')
NETS = {
    'resnet50': 'configs/resnet50.py:goyal',
    'efficientnet_b0': 'configs/efficientnet_b0.py',
    'mobilenetv2_100': 'configs/mobilenetv2_100.py',
    'resnext50_32x4d': 'configs/resnext50_32x4d.py',
}
ALIKE = {
    'dtype': 'bfloat16',
    'batch_size': str(IMAGES),
    'updates.accumulate': '1',
    'batch_norm.group_size': '0',
    'average.name': 'none',
    'optimizer.name': 'sgd',
    'optimizer.momentum': '0.9',
    'optimizer.weight_decay': '1e-4',
}
FIELDS = ('machine', 'net', 'whose', 'hbm', 'padded', 'temporaries', 'cycles', 'compile_s')


def case(machine: str, net: str, whose: str, early: bool) -> dict:
    """Returns a row of the record: bytes an image, bytes of temporaries, cycles an image where code is made."""
    from cvresearch.base import config as configs
    from cvresearch.base import machines
    from cvresearch.engine import ahead
    from cvresearch.inspect import hlo, traffic

    target = machines.machine(machine)
    if whose == 'ours':
        compiled = ahead.compile_step(configs.load(NETS[net], ALIKE), target, early)
    else:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, '-m', 'tests.peers.compiled', '--compile', net, '--machine', machine]
            compiled = ahead.compile_by(command, Path(folder), target, early)
    moved = traffic.traffic(hlo.parse(compiled.text), on_chip=target.chip.platform == 'tpu')
    return dict(
        machine=machine,
        net=net,
        whose=whose,
        hbm=round(moved.hbm / IMAGES),
        padded=round(moved.padded / IMAGES),
        temporaries=compiled.temporaries,
        cycles=round(moved.cycles / IMAGES) if moved.cycles else '',
        compile_s=round(compiled.seconds),
    )


def compile_plain(net: str, machine: str) -> None:
    """Compiles a plain net's update, in the process that is there for it."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from cvresearch.base import machines
    from cvresearch.engine import ahead
    from tests.peers import linen

    target = machines.machine(machine)
    placed = SingleDeviceSharding(ahead.devices_of(target)[0])
    initial, step = linen.step_of(net)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), jax.eval_shape(initial))
    batch = dict(
        image=jax.ShapeDtypeStruct((IMAGES, 224, 224, 3), jnp.uint8, sharding=placed),
        label=jax.ShapeDtypeStruct((IMAGES,), jnp.int32, sharding=placed),
    )
    step.trace(state, batch).lower(lowering_platforms=(target.chip.platform,)).compile()


def table() -> str:
    """Returns the record as a table, ours beside plain Flax's; MB an image, GB of temporaries."""
    rows = {(row['machine'], row['net'], row['whose']): row for row in _record()}
    lines = [
        '| machine | net | HBM MB, ours | plain Flax | ratio | temporaries GB, ours | plain Flax '
        '| kcycles, ours | plain Flax |',
        '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for machine in MACHINES:
        for net in NETS:
            pair = [rows.get((machine, net, whose)) for whose in WHOSE]
            if all(pair):
                ours, plain = (float(row['hbm']) / 1e6 for row in pair)
                memory = [f'{float(row["temporaries"]) / 1e9:.2f}' for row in pair]
                cycles = [f'{float(row["cycles"]) / 1e3:,.0f}' if row['cycles'] else '-' for row in pair]
                cells = [machine, net, f'{ours:.1f}', f'{plain:.1f}', f'{ours / plain:.3f}', *memory, *cycles]
                lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def _record() -> list[dict]:
    return list(csv.DictReader(RECORD.read_text(encoding='utf-8').splitlines())) if RECORD.exists() else []


def keep(row: dict) -> None:
    """Adds a row to the record, in place of one of the same case."""
    case_of = lambda row: (MACHINES.index(row['machine']), [*NETS].index(row['net']), WHOSE.index(row['whose']))  # noqa: E731
    rows = sorted([old for old in _record() if case_of(old) != case_of(row)] + [row], key=case_of)
    with open(RECORD, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    print(row, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Compiles cases, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', action='store_true', help='print the table of docs/speed.md')
    parser.add_argument('--machine', choices=MACHINES, help='this alone')
    parser.add_argument('--net', choices=NETS, help='this alone, also where it is in the record')
    parser.add_argument('--whose', choices=WHOSE, help='this alone, also where it is in the record')
    parser.add_argument('--code', action='store_true', help='go on to machine code, which has the cycles; minutes')
    parser.add_argument('--jobs', type=int, default=1, help='compilers at the same time')
    parser.add_argument('--compile', choices=NETS, help='compile a plain net, and do nothing else')
    options = parser.parse_args(argv)
    if options.compile:
        compile_plain(options.compile, options.machine)
        return 0
    if options.table:
        print(table())
        return 0
    known = {(row['machine'], row['net'], row['whose']) for row in _record() if row['cycles'] or not options.code}
    asked = options.net or options.whose
    wanted = [
        each
        for each in itertools.product(
            [options.machine] if options.machine else MACHINES,
            [options.net] if options.net else NETS,
            [options.whose] if options.whose else WHOSE,
        )
        if each not in known or (asked and not options.code)
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(case, *each, early=not options.code) for each in wanted]
        for row in as_completed(running):
            keep(row.result())
    return 0


if __name__ == '__main__':
    sys.exit(main())
