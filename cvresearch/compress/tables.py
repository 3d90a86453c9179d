"""Tables of small nets: what was made, from its records; and what was published, beside the arithmetic.

    cvresearch report sizes RECORD ... [--format markdown]
    cvresearch report sizes --network 'AlexNet (BVLC, grouped)' [--format markdown]

A RECORD is a compression.json, or the folder that has it.
"""

import json
from pathlib import Path

from cvresearch.base import cli, tables
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.compress import published
from cvresearch.interop import compressed

COLUMNS = ('net', 'made by', 'bytes before', 'bytes', 'ratio', 'top-1 before', 'top-1 after', 'n_seen')
UNSAID = ('code', 'scope', 'kmeans', 'svd_method', 'layers')  # settings that a row has no room for


def row(record: dict) -> dict:
    """Returns the row of a compression.json."""
    before, after = record['original']['bytes'], record['total_bytes']
    settings = [
        f'{key} {value:g}' if isinstance(value, float) else f'{key} {value}'
        for key, value in record['settings'].items()
        if value and key not in UNSAID
    ]
    accuracy = record.get('accuracy', {})
    top1 = {
        when: f'{accuracy[when]["top1"]:.2f}' if 'top1' in accuracy.get(when, {}) else None
        for when in ('before', 'after')
    }
    return {
        'net': record['original'].get('reference') or record['architecture']['model'],
        'made by': ', '.join([*settings, *(['Huffman codes'] if record['settings'].get('code') else [])]),
        'bytes before': f'{before:,}',
        'bytes': f'{after:,}',
        'ratio': f'{before / after:.1f}',
        'top-1 before': top1['before'],
        'top-1 after': top1['after'],
        'n_seen': f'{accuracy["after"]["n_seen"]:,}' if accuracy else None,
    }


def read(path: Path) -> dict:
    """Returns a compression.json.

    Raises:
      UserError: no such file, or another one.
    """
    path = path / compressed.RECORD if path.is_dir() else path
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        return record if 'total_bytes' in record else {}['total_bytes']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} is no compression.json; expected the folder that cvresearch compress wrote') from error


def main(argv: list[str]) -> int:
    """Prints a table."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='records',
        format='text (default) or markdown',
        network=f'of Deep Compression: {", ".join(published.NETWORKS)}',
    )
    if bool(options.network) == bool(options.rest):
        raise UserError('expected either records, or --network')
    if options.network:
        rows = published.comparison(options.network)
        columns = published.columns(rows)
    else:
        rows, columns = [row(read(local(name))) for name in options.rest], COLUMNS
    print(tables.render(rows, columns, options.format or 'text'))
    return 0


if __name__ == '__main__':
    cli.run(main)
