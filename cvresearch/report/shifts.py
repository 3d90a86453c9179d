"""Nets on images that are moved: cvresearch report shifts FILE... [--format text|markdown|csv|latex|html].

Each FILE is what `cvresearch evaluate shifts --out FILE` wrote. One row for each: top-1 and the macro averages of
precision, recall and F1, of the images as they are and moved. `cvresearch report plots shifts` draws the grids.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base import cli, tables
from cvresearch.base.errors import UserError
from cvresearch.report import runs

METRICS = {'top1': 'top-1', 'macro_precision': 'precision', 'macro_recall': 'recall', 'macro_f1': 'F1'}
KINDS = {'as_given': 'as they are', 'shifted': 'shifted'}
COLUMNS = (
    'net', 'seed', 'images to train', 'largest shift',
    *(f'{name}, {kind}' for kind in KINDS.values() for name in METRICS.values()), 'n_seen',
)  # fmt: skip


def read(paths: Sequence[str | Path]) -> list[dict]:
    """Returns the records in the order of their paths.

    Raises:
      UserError: none of the paths holds one; they are of different grids.
    """
    if not paths:
        raise UserError('expected files that `cvresearch evaluate shifts --out FILE` wrote')
    records = runs.take(paths, _record)
    if len({tuple(record['places']) for record in records}) > 1:
        raise UserError('the records are of different grids of shifts; measure all with one --reach and --step')
    return records


def _record(path: Path) -> dict:
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        _ = record['grid'], record['places'], [record[kind][name] for kind in KINDS for name in METRICS]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f'{path} is no record of shifts ({type(error).__name__}: {error})') from error
    return record


def rows(records: Sequence[dict]) -> list[dict]:
    """Returns the table."""
    return [
        {
            'net': record['model'],
            'seed': record['seed'],
            'images to train': record['trained_on'],
            'largest shift': record['reach'],
            **{
                f'{name}, {kind}': f'{record[key][metric]:.2f}'
                for key, kind in KINDS.items()
                for metric, name in METRICS.items()
            },
            'n_seen': record['shifted']['n_seen'],
        }
        for record in records
    ]


def main(argv: list[str]) -> int:
    """Prints the table; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=(), positional='files', format='text (default), markdown, csv, latex or html'
    )
    print(tables.render(rows(read(options.rest)), COLUMNS, options.format or 'text'))
    return 0
