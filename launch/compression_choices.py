"""What the recipe of launch/deep_compression.py was chosen by: python -m launch.compression_choices.

    python -m launch.compression_choices --workdir runs/choices [--out docs/records/compression_choices.json]
    python -m launch.compression_choices --table docs/records/compression_choices.json

LeNet-300-100 is trained, pruned, shared and coded on four fifths of the training digits, and measured on the others:
each of three folds, with its own seed, holds out other digits. No test image has a part in it. The same command goes
on where it was interrupted.
"""

import json
import statistics
from pathlib import Path
from types import SimpleNamespace

from cvresearch.base import cli, tables
from cvresearch.base import config as configs
from cvresearch.base.records import read_metrics
from cvresearch.compress import __main__ as program
from cvresearch.interop import compressed
from launch import study

CONFIG = 'configs/deep_compression.py'
OUT = Path('docs/records/compression_choices.json')
FOLDS, TRIED = 5, 3
PUBLISHED = (('hidden1', 0.92), ('hidden2', 0.91), ('head', 0.74))
FEWER = (('hidden1', 0.95), ('hidden2', 0.91), ('head', 0.74))
# (weight decay, layers to prune, bits of a code); without bits, pruning alone.
SETTINGS = ((0.01, PUBLISHED, None), *((1.0, kept, bits) for kept in (PUBLISHED, FEWER) for bits in (4, 5)))
ALIKE = {'save_every_epochs': '0.0', 'evaluate_every_epochs': '100.0', 'log_every_steps': '5000'}
COLUMNS = ('weight decay', 'kept of hidden1', 'bits', 'n_seen', 'dense', 'pruned', 'shared', 'KB')


def case(fold: int, decay: float, kept: tuple, bits: int | None, folder: Path) -> dict:
    """Returns the row of a setting on a fold; stages that are there already are not made again."""
    place = folder / f'{fold}_{decay:g}'
    dense, first = stage('', place / 'dense', fold, {'optimizer.weight_decay': str(decay)})
    pruning = {'init.weights': dense, 'optimizer.weight_decay': str(decay), 'compress.layers': str(kept)}
    part = f'{1 - kept[0][1]:.2f}'
    pruned, second = stage(':pruned', place / f'pruned_{part}', fold, pruning)
    row = dict(fold=fold, decay=decay, kept=part, bits=bits, n_seen=second['n_seen'])
    row |= {'dense': first['top1'], 'pruned': second['top1']}
    if bits is None:
        return row
    sharing = {'init.weights': pruned, 'compress.bits': str(bits)}
    shared, third = stage(':shared', place / f'shared_{part}_{bits}', fold, sharing)
    out = place / f'coded_{part}_{bits}'
    if not out.exists():
        program.main(['--weights', shared, '--bits', '8', '--code', '--out', str(out)])
    return row | {
        'shared': third['top1'],
        'bytes': json.loads((out / compressed.RECORD).read_text(encoding='utf-8'))['total_bytes'],
    }


def stage(variant: str, workdir: Path, fold: int, more: dict[str, str]) -> tuple[str, dict]:
    """Trains a stage without a fold of the training images; returns its name, and what it says of that fold."""
    held_out = {'seed': str(fold), 'data.folds': str(FOLDS), 'data.fold': str(fold)}
    study.trained(configs.load(CONFIG + variant, {**held_out, **ALIKE, **more}), workdir)
    rows = [row for row in read_metrics(workdir / 'metrics.jsonl') if row['split'] == 'minival']
    return f'run:{workdir}', rows[-1]


def table(record: dict) -> str:
    """Returns the Markdown table of a record: means over the folds."""
    rows = []
    for key in dict.fromkeys((row['decay'], row['kept'], row['bits']) for row in record['rows']):
        of = [row for row in record['rows'] if (row['decay'], row['kept'], row['bits']) == key]

        def mean(name: str, digits: int, over: float = 1, rows: list[dict] = of) -> str | None:
            values = [row[name] / over for row in rows if name in row]
            return f'{statistics.mean(values):.{digits}f}' if values else None

        rows.append(
            {
                'weight decay': f'{key[0]:g}',
                'kept of hidden1': f'{100 * float(key[1]):.0f}%',
                'bits': key[2],
                'n_seen': f'{sum(row["n_seen"] for row in of):,}',
                **{name: mean(name, 2) for name in ('dense', 'pruned', 'shared')},
                'KB': mean('bytes', 1, 1000),
            }
        )
    return tables.render(rows, COLUMNS, 'markdown')


def fill(record: dict, folder: Path, _: SimpleNamespace, save: study.Save) -> None:
    """Makes the record anew; stages that are trained already are not trained again."""
    record['rows'] = [case(fold, *setting, folder) for setting in SETTINGS for fold in range(TRIED)]
    save()


def main(argv: list[str]) -> int:
    """Makes what is missing of the record, or prints its table."""
    return study.run(argv, __doc__, OUT, fill, table)


if __name__ == '__main__':
    cli.run(main)
