"""Tables for papers: cvresearch report tables NAME --runs DIR... [--format latex|markdown|csv|html|text].

NAME is a published table ('ResNet-T3'; --list names them all), a data set with all that was published for it
('Fashion-MNIST'), a TOML file that describes a table (`report/published.py` shows how), the record of a measurement
(docs/records/NAME.json), 'released' (all nets whose weights are read), or 'results', the default: finished runs, seeds
side by side. Each DIR is a workdir or a record of one (config.json and run.json). Runs whose configurations differ in
nothing but the seed are one row. What has no run is a dash.

A DIR may also be what `cvresearch evaluate --weights NAME --data imagenet --out DIR` left: the columns "released
weights, measured" stand beside the paper's and beside our own runs.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base import at_hand, cli, tables
from cvresearch.base.errors import UserError
from cvresearch.base.paths import is_bucket, local
from cvresearch.base.records import read_measurement
from cvresearch.report import benchmarks, compare, evaluations, published, released, render
from cvresearch.report import results as reading
from cvresearch.report import runs as taking

COLUMNS = (
    'experiment',
    'model',
    'data',
    'parameters',
    'epochs',
    'weights',
    'seeds',
    'test top-1 of each (%)',
    'mean',
    'sd',
    'n_seen',
)
RELEASED = 'released'


def results(runs: Sequence[str | Path]) -> list[dict]:
    """Returns one row per configuration: the test accuracies of its seeds, mean and deviation.

    Where a run averages its weights the accuracies are the average's. An experiment is named as its folders are,
    `NAME_seed0`; a setting of a sweep, `seed=0,size=28`, as all of it but the seed, or else as the sweep's folder is.

    Args:
      runs: folders with config.json and run.json; what is no finished run is named on standard error.

    Raises:
      UserError: none is a finished run.
    """
    groups: dict[str, list[tuple[dict, dict, Path]]] = {}
    for config, card, path in taking.take(runs, _finished):
        data = {key: value for key, value in config['data'].items() if key != 'fold'}
        same = {**config, 'data': data, 'seed': None, 'extended_from': card.get('extended_from')}
        key = json.dumps(same, sort_keys=True)
        groups.setdefault(key, []).append((config, card, path))
    rows = []
    for group in groups.values():
        repeats = [(config['seed'], config['data'].get('fold', 0)) for config, _, _ in group]
        group = [run for _, run in sorted(zip(repeats, group, strict=True), key=lambda pair: pair[0])]
        config, card, path = group[0]
        reading.check_seeds(str(path), repeats)
        average = config.get('average', {}).get('name', 'none')  # older records have no such key
        tests = [_test(config, run) for _, run, _ in group]
        accuracies = [test['top1'] for test in tests]
        rows.append(
            {
                'experiment': taking.experiment(path),
                'model': config['model']['name'],
                'data': config['data']['name'],
                'parameters': card['params'],
                'epochs': _epochs(config['epochs'], [run for _, run, _ in group]),
                'weights': 'raw' if average == 'none' else average,
                'seeds': ', '.join(_repeat(config) for config, _, _ in group),
                'test top-1 of each (%)': ', '.join(f'{accuracy:.1f}' for accuracy in accuracies),
                'mean': f'{statistics.mean(accuracies):.2f}',
                # Of the sample: n - 1. One run has none.
                'sd': f'{statistics.stdev(accuracies):.2f}' if len(accuracies) > 1 else None,
                'n_seen': min(test['n_seen'] for test in tests),
            }
        )
    return sorted(rows, key=lambda row: (row['data'], float(row['mean'])))


def _finished(path: Path) -> tuple[dict, dict, Path]:
    config, card = taking.finished(path)
    taking.refuse_multi_label(path, card)
    test = _test(config.to_dict(), card)
    _ = float(test['top1']), int(test['n_seen']), card['params']  # a card without them is damaged
    return config.to_dict(), card, path


def _test(config: dict, card: dict) -> dict:
    average = config.get('average', {}).get('name', 'none')  # older records have no such key
    return card['final']['test' if average == 'none' else f'test_{average}']


def _epochs(planned: float, cards: list[dict]) -> float | str:
    """Returns the epochs of runs of one configuration, and what made them other runs than ones as long.

    A range, from the fewest to the most, where they stopped early; in brackets, from what they were extended.
    """
    epochs = {round(card['stopped_early']['epoch'], 1) if 'stopped_early' in card else planned for card in cards}
    shown = min(epochs) if len(epochs) == 1 else f'{min(epochs)} to {max(epochs)}'
    extended = ', '.join(f'{before:g}' for before in cards[0].get('extended_from', ()))
    return f'{shown:g} (extended from {extended})' if extended else shown


def _repeat(config: dict) -> str:
    fold = f' fold {config["data"].get("fold", 0)}' if config['data'].get('folds') else ''
    return f'{config["seed"]}{fold}'


def benchmark_table(name: str, runs: Sequence[str | Path], style: str, unmeasured: bool = True) -> str:
    """Returns what was published for one data set, and what the runs found (report/benchmarks.py)."""
    table, others = benchmarks.compare(name, reading.take(runs) if runs else [], unmeasured)
    if others:
        data = ', '.join(sorted({result.data for result in others}))
        print(f'left out: {len(others)} results on other data ({data}) than {name}', file=sys.stderr)
    return render.render(table, style)


def published_table(name: str, runs: Sequence[str | Path], style: str) -> str:
    """Returns a published or described table with what the runs found.

    Raises:
      UserError: an unknown table, a file that does not describe one, runs that disagree on the protocol.
    """
    title, lines = published.described(local(name)) if name.endswith('.toml') else (name, published.table(name))
    runs, measured = evaluations.split(runs)
    table, strangers = compare.compare(title, lines, reading.take(runs) if runs else [], measured)
    for result in strangers:
        print(f'left out: {result.path}, a run of {result.model}, which {title} does not have', file=sys.stderr)
    return render.render(table, style)


def released_table(folders: Sequence[str | Path], style: str) -> str:
    """Returns the table of all nets of other libraries, with the evaluations in some folders.

    Raises:
      UserError: a folder that holds a run, or nothing.
    """
    runs, measured = evaluations.split(folders)
    if runs:
        raise UserError(f'{runs[0]} holds no evaluation of weights; expected what `evaluate --weights --out` left')
    return render.render(released.table(measured), style)


def main(argv: list[str]) -> int:
    """Prints a table; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='table and workdirs',
        places=('runs',),
        buckets=('runs',),
        repeated=('runs',),
        switches=dict(
            list='name the published tables',
            measured='of a data set leave out the published rows that no run stands beside',
        ),
        runs='folders of finished runs',
        format='text (default), markdown, csv, latex or html',
    )
    if options.list:
        print('\n'.join([*published.facts(), *benchmarks.names(), RELEASED]))
        return 0
    # --runs A B C: the first comes with the flag, the others as arguments after the table's name.
    named = bool(options.rest) and _is_table(options.rest[0], alone=len(options.rest) == 1)
    name, rest = (options.rest[0], options.rest[1:]) if named else ('results', options.rest)
    runs: list[str | Path] = [*at_hand.read_all([*options.runs, *rest])]
    style = options.format or 'text'
    if name.endswith('.json'):
        rows = read_measurement(local(name))
        columns = tuple(dict.fromkeys(column for row in rows for column in row))
        _print([dict.fromkeys(columns) | row for row in rows], columns, style, local(name).stem)
        return 0
    if name in benchmarks.names():
        print(benchmark_table(name, runs, style, not options.measured))
        return 0
    if name == RELEASED:
        print(released_table(runs, style))
        return 0
    if name != 'results':
        print(published_table(name, runs, style))
        return 0
    if not runs:
        raise UserError('expected the name of a table (--list shows them) or the folders of finished runs')
    _print(results(runs), COLUMNS, style, 'Results')
    return 0


def _is_table(word: str, alone: bool) -> bool:
    """Whether the first argument names a table, and is not the first of FOLDER/*, such as a sweep.json."""
    if is_bucket(word):
        return False
    path = local(word)
    if word in (*published.facts(), *benchmarks.names(), RELEASED) or not path.exists():
        return True
    return (
        (word == 'results' and not (path / 'config.json').exists())
        or path.suffix == '.toml'
        or (path.suffix == '.json' and path.is_file() and alone)
    )


def _print(rows: list[dict], columns: tuple[str, ...], style: str, title: str) -> None:
    text = tables.render(rows, columns, style)
    print(render.page(title, text) if style == 'html' else text)
