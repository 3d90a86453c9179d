"""What a training step costs on machines that are not here (docs/scale.md), by their own compilers.

    python -m tests.peers.scale --jobs 2                             # six nets: every case that is not in the record
    python -m tests.peers.scale --large                              # further ones, each of which takes long
    python -m tests.peers.scale --net resnet50 --machine h100:8      # those of a net, of a machine
    python -m tests.peers.scale --table                              # the table of docs/scale.md

Each case is what `cvresearch plan --early` says. It needs the extra `plan`, no device, and time: ten minutes of two
cores for the six. Rows go to docs/records/scale.csv.
"""

import argparse
import csv
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

RECORD = Path(__file__).parents[2] / 'docs' / 'records' / 'scale.csv'
B7, F4 = 'configs/efficientnet_b0.py:efficientnet_b7', 'configs/dm_nfnet_f0.py:dm_nfnet_f4_plus'
F0 = 'configs/dm_nfnet_f0.py'
SIX = {  # experiment, what is changed in it, and the images that a device has by machine
    'resnet50': ('configs/resnet50.py:resnet50', {'batch_norm.group_size': 0}, {'v5e:16x16': 16, 'h100:8': 128}),
    'resnext50': ('configs/resnext50_32x4d.py', {}, {'v5e:16x16': 64, 'h100:8': 64}),
    'densenet121': ('configs/densenet121.py', {}, {'v5e:16x16': 64, 'h100:8': 64}),
    'efficientnet_b0': ('configs/efficientnet_b0.py', {}, {'v5e:16x16': 128, 'h100:8': 128}),
    'mobilenetv2': ('configs/mobilenetv2_100.py', {'batch_norm.group_size': 128}, {'v5e:16x16': 128, 'h100:8': 128}),
    'nfnet_f0_remat': (F0, {'remat': True}, {'v5e:16x16': 16, 'h100:8': 16}),
}
LARGE = {
    'efficientnet_b7_remat': (B7, {'remat': True}, {'v5e:16x16': 16, 'h100:8': 32}),
    'nfnet_f4_plus_remat': (F4, {'remat': True}, {'v5e:16x16': 16, 'h100:8': 16}),
    'efficientnet_l2_remat': ('configs/efficientnet_l2.py', {}, {'v5e:16x16': 8, 'h100:8': 8}),
}
NETS = SIX | LARGE
SHARDS = {'resnet50': (1, 8), 'nfnet_f4_plus_remat': (1, 8), 'efficientnet_l2_remat': (8,)}
FIELDS = (
    'machine',
    'net',
    'data',
    'shard',
    'images',
    'arguments',
    'temporaries',
    'limit',
    'fits',
    'flops',
    'hbm',
    'padded',
    'collectives',
    'sent',
    'arithmetic_s',
    'hbm_s',
    'links_s',
    'compile_s',
)


def case(net: str, machine: str, shard: int) -> dict:
    """Returns a row of the record."""
    from cvresearch.base import config as configs
    from cvresearch.base import machines
    from cvresearch.engine import ahead

    file, changes, images = NETS[net]
    target = machines.machine(machine)
    size = images[machine] * target.devices
    fixed = {'dtype': 'bfloat16', 'updates.accumulate': 1, 'mesh.shard': shard, 'batch_size': size}
    overrides = {key: str(value) for key, value in (changes | fixed).items()}
    found = ahead.forecast_of(configs.load(file, overrides), target, early=True)
    sent = found['collectives']
    return dict(
        machine=machine,
        net=net,
        data=found['data'],
        shard=shard,
        images=images[machine],
        **{key: found['memory'][key] for key in ('arguments', 'temporaries', 'limit')},
        fits=int(found['fits']),
        flops=found['flops_per_image'],
        hbm=found['hbm_bytes_per_image'],
        padded=found['hbm_bytes_per_image_padded'],
        collectives='; '.join(f'{each["count"]} {each["kind"]}' for each in sent),
        sent=round(sum(each['wire_bytes'] for each in sent)),
        **{f'{name}_s': float(f'{value:.4g}') for name, value in found['seconds'].items()},
        compile_s=round(found['compile_seconds']),
    )


def table() -> str:
    """Returns the record as a table: bytes of a device, and the least time of a step by each of its peaks, in ms."""
    lines = [
        '| machine | net | images a device | data x shard | memory | GFLOP | HBM MB, padded | arithmetic | HBM | links '
        '| sent MB, operations | compiled in s |',
        '| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |',
    ]
    for row in csv.DictReader(RECORD.read_text().splitlines()):
        number = {key: float(value) for key, value in row.items() if key not in ('machine', 'net', 'collectives')}
        kept, limit = (number['arguments'] + number['temporaries']) / 2**30, number['limit'] / 2**30
        times = (f'{1e3 * number[key]:.1f}' for key in ('arithmetic_s', 'hbm_s', 'links_s'))
        cells = [
            row['machine'],
            row['net'],
            row['images'],
            f'{row["data"]} x {row["shard"]}',
            f'{kept:.1f} of {limit:.1f} GiB' + ('' if number['fits'] else ', no'),
            f'{number["flops"] / 1e9:.1f}',
            f'{number["hbm"] / 1e6:,.0f}, {number["padded"] / 1e6:,.0f}',
            *times,
            f'{number["sent"] / 1e6:,.0f}: {row["collectives"]}',
            row['compile_s'],
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def keep(row: dict) -> None:
    """Adds a row to the record, in place of one of the same case."""
    rows = [*csv.DictReader(RECORD.read_text().splitlines())] if RECORD.exists() else []
    same = ('machine', 'net', 'shard')
    rows = [old for old in rows if any(old[key] != str(row[key]) for key in same)] + [row]
    rows.sort(key=lambda each: (each['machine'] != 'v5e:16x16', list(NETS).index(each['net']), int(each['shard'])))
    with open(RECORD, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    print(row, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Compiles cases, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', action='store_true', help='print the table of docs/scale.md')
    parser.add_argument('--machine', choices=('v5e:16x16', 'h100:8'), help='this alone')
    parser.add_argument('--net', choices=NETS, help='this alone, also where it is in the record')
    parser.add_argument('--large', action='store_true', help='the nets that take long')
    parser.add_argument('--jobs', type=int, default=1, help='compilers at the same time')
    options = parser.parse_args(argv)
    if options.table:
        print(table())
        return 0
    there = list(csv.DictReader(RECORD.read_text().splitlines())) if RECORD.exists() else []
    known = set() if options.net else {(row['net'], row['machine'], int(row['shard'])) for row in there}
    cases = [
        (net, machine, shard)
        for net in ([options.net] if options.net else LARGE if options.large else SIX)
        for machine in ([options.machine] if options.machine else ('v5e:16x16', 'h100:8'))
        for shard in SHARDS.get(net, (1,))
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(case, *each) for each in cases if each not in known]
        for row in as_completed(running):
            keep(row.result())
    return 0


if __name__ == '__main__':
    import os

    os.environ.update(JAX_PLATFORMS='cpu', TPU_SKIP_MDS_QUERY='1')
    sys.exit(main())
