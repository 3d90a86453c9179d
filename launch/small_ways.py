"""Ways to a small net beside one another: factors, a taught student, int8: python -m launch.small_ways.

    python -m launch.small_ways --workdir runs/small_ways [--out docs/records/small_ways.json] [--net MobileNet]
    python -m launch.small_ways --table docs/records/small_ways.json

LeNet-300-100 (configs/deep_compression.py) and MobileNet of width 0.25 (configs/mobilenet025_mnist5k.py) on the digits,
as trained, made small as they are, and trained on in the small form. Each row is of a file that was written and read
back. The same command goes on where it was interrupted.
"""

import itertools
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from cvresearch.base import cli, tables
from cvresearch.base import config as configs
from cvresearch.compress import __main__ as program
from cvresearch.interop import compressed
from launch import study

OUT = Path('docs/records/small_ways.json')
SEEDS = (0, 1, 2)
SVD = ('--svd', 'size=0.1', '--layer', 'hidden1', '--layer', 'hidden2')
INT8, PER_TENSOR = ('--int8', 'minmax'), ('--int8', 'minmax', '--per_tensor')
LENET, MOBILENET = 'configs/deep_compression.py', 'configs/mobilenet025_mnist5k.py'
COLUMNS = ('net', 'way', 'trained so', 'n_seen', 'top-1', 'KB', 'ratio', 'seeds')


def lenet(seed: int, folder: Path) -> Iterator[dict]:
    """Yields the rows of LeNet-300-100: factors, and students of 32 hidden units."""
    dense = trained(LENET, folder / 'dense', seed)
    yield {'way': 'float32', 'trained so': True, **small(dense, folder / 'dense_file')}
    yield {'way': 'SVD', 'trained so': False, **small(dense, folder / 'svd', *SVD)}
    factored = trained(f'{LENET}:factored', folder / 'factored', seed, {'init.weights': dense})
    yield {'way': 'SVD', 'trained so': True, **small(factored, folder / 'factored_file', *SVD)}
    alone = trained(f'{LENET}:student', folder / 'alone', seed)
    yield {'way': '32 hidden units, alone', 'trained so': True, **small(alone, folder / 'alone_file')}
    taught = trained(f'{LENET}:student', folder / 'taught', seed, {'distillation.teacher': dense})
    yield {'way': '32 hidden units, taught', 'trained so': True, **small(taught, folder / 'taught_file')}


def mobilenet(seed: int, folder: Path) -> Iterator[dict]:
    """Yields the rows of MobileNet: int8 with a scale for a kernel or for each channel, as it is and trained on."""
    plain = trained(MOBILENET, folder / 'float32', seed)
    yield {'way': 'float32', 'trained so': True, **small(plain, folder / 'float32_file')}
    for way, flags, per_channel in (('int8, per tensor', PER_TENSOR, False), ('int8, per channel', INT8, True)):
        name = way.rpartition(' ')[2]
        yield {'way': way, 'trained so': False, **small(plain, folder / f'after_{name}', *flags)}
        more = {'init.weights': plain, 'compress.per_channel': str(per_channel)}
        rounded = trained(f'{MOBILENET}:int8', folder / name, seed, more)
        yield {'way': way, 'trained so': True, **small(rounded, folder / f'{name}_file', *flags)}


NETS = {'LeNet-300-100': lenet, 'MobileNet': mobilenet}


def trained(config: str, workdir: Path, seed: int, more: dict[str, str] | None = None) -> str:
    """Trains a net if it is not; returns its name."""
    study.trained(configs.load(config, {'seed': str(seed), **(more or {})}), workdir)
    return f'run:{workdir}'


def small(name: str, out: Path, *flags: str) -> dict:
    """Writes a net, if that was not done; returns what its record says of the file."""
    if not out.exists():
        program.main(['--weights', name, '--out', str(out), '--data', 'mnist5k', *flags])
    record = json.loads((out / compressed.RECORD).read_text(encoding='utf-8'))
    accuracy = {key: record['accuracy']['after'][key] for key in ('top1', 'n_seen')}
    return {**accuracy, 'bytes': record['total_bytes'], 'latency_ms': record['latency_ms']['after']}


def table(record: dict) -> str:
    """Returns the Markdown table of a record: means over the seeds, and deviations."""
    rows = []
    for _, group in itertools.groupby(
        sorted(record['rows'], key=lambda row: row['order']), key=lambda row: row['order'][:2]
    ):
        of = list(group)
        size = statistics.mean(row['bytes'] for row in of)
        before = statistics.mean(
            row['bytes'] for row in record['rows'] if row['net'] == of[0]['net'] and row['way'] == 'float32'
        )
        rows.append(
            {
                'net': of[0]['net'],
                'way': of[0]['way'],
                'trained so': 'yes' if of[0]['trained so'] else 'no',
                'n_seen': f'{of[0]["n_seen"]:,}',
                'top-1': study.spread([row['top1'] for row in of]),
                'KB': f'{size / 1000:.1f}',
                'ratio': f'{before / size:.1f}',
                'seeds': len(of),
            }
        )
    return tables.render(rows, COLUMNS, 'markdown')


def fill(record: dict, folder: Path, chosen: SimpleNamespace, save: study.Save) -> None:
    """Makes what is missing of the record; `save` is called after each net."""
    rows = record.setdefault('rows', [])
    for seed, (position, name) in itertools.product(SEEDS, enumerate(NETS)):
        done = [row for row in rows if (row['net'], row['seed']) == (name, seed)]
        if done or name != (chosen.net or name):
            continue
        ways = enumerate(NETS[name](seed, folder / f'{name}_{seed}'))
        rows += [{'order': [position, at, seed], 'net': name, 'seed': seed, **row} for at, row in ways]
        save()


def main(argv: list[str]) -> int:
    """Makes what is missing of the record, or prints its table."""
    return study.run(argv, __doc__, OUT, fill, table, {'net': NETS})


if __name__ == '__main__':
    cli.run(main)
