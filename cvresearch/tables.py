"""Results of finished runs, seeds side by side: python -m cvresearch.tables DIR... [--format markdown].

Each DIR is a workdir or a record of one (config.json and run.json). Runs whose configurations
differ in nothing but the seed are one row.
"""

import json
import statistics
from pathlib import Path

from cvresearch.base import cli, tables
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card

COLUMNS = ('model', 'data', 'parameters', 'epochs', 'seeds', 'test top-1 of each (%)', 'mean', 'sd', 'n_seen')


def results(runs: list[str | Path]) -> list[dict]:
    """Returns one row per configuration: the test accuracies of its seeds, mean and deviation.

    Args:
      runs: folders with config.json and run.json.

    Raises:
      UserError: a folder without a finished run.
    """
    groups: dict[str, list[tuple[dict, dict]]] = {}
    for path in map(Path, runs):
        card = read_card(path) if (path / 'config.json').is_file() else None
        if card is None or card['status'] != 'finished':
            raise UserError(f'{path} holds no finished run (it is {card["status"] if card else "no run"})')
        config = json.loads((path / 'config.json').read_text())
        key = json.dumps({**config, 'seed': None}, sort_keys=True)
        groups.setdefault(key, []).append((config, card))
    rows = []
    for group in groups.values():
        group.sort(key=lambda run: run[0]['seed'])
        config, card = group[0]
        accuracies = [run['final']['test']['top1'] for _, run in group]
        rows.append({
            'model': config['model']['name'], 'data': config['data']['name'], 'parameters': card['params'],
            'epochs': config['epochs'], 'seeds': ', '.join(str(run['seed']) for _, run in group),
            'test top-1 of each (%)': ', '.join(f'{accuracy:.1f}' for accuracy in accuracies),
            'mean': f'{statistics.mean(accuracies):.2f}',
            # Of the sample: n - 1. One run has none.
            'sd': f'{statistics.stdev(accuracies):.2f}' if len(accuracies) > 1 else None,
            'n_seen': min(run['final']['test']['n_seen'] for _, run in group),
        })  # fmt: skip
    return sorted(rows, key=lambda row: (row['data'], float(row['mean'])))


def main(argv: list[str]) -> int:
    """Prints a table; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=(), positional='workdirs', format='text (default), markdown, csv or latex'
    )
    if not options.rest:
        raise UserError('expected the folders of finished runs')
    print(tables.render(results(options.rest), COLUMNS, options.format or 'text'))
    return 0


if __name__ == '__main__':
    cli.run(main)
