"""A sweep on one HTML page that needs nothing else: tables, curves, configurations, differences."""

import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base import escape
from cvresearch.base.records import METRICS, metric_of
from cvresearch.report import plots, render
from cvresearch.report.compare import Cell, Table
from cvresearch.report.runs import REPEATS, RunRecord, by_recipe, differing, of_folders

MOST_CURVES = 8  # more cannot be told apart


def page(folder: Path) -> str:
    """Returns the report of the runs in a folder.

    Raises:
      UserError: there are none.
    """
    runs = of_folders([folder])
    split = 'minival' if any(run.last('minival') is not None for run in runs) else 'test'
    rows = [row for run in runs for row in run.rows]
    groups = dict(sorted(by_recipe(runs).items(), key=lambda item: -_mean(item[1], split)))
    parts = [
        f'<h1>Sweep {escape.html(Path(folder).name)}</h1>',
        f'<p>{len(runs)} runs, {sum(run.card.get("status") == "finished" for run in runs)} finished; '
        f'ordered by {METRICS[metric_of(rows)]} on {split}.</p>',
        render.html_table(_recipes(groups, split)),
        *_pictures(runs, groups, split),
        render.html_table(_runs(runs, split)),
        '<h2>What all runs share</h2>',
        f'<pre>{escape.html_block(_shared(runs))}</pre>',
        '<h2>Commands and machines</h2>',
        f'<pre>{escape.html_block(_origins(runs))}</pre>',
    ]
    return render.page(f'Sweep {Path(folder).name}', '\n'.join(parts))


def _metric(groups: dict[str, list[RunRecord]]) -> str:
    return METRICS[metric_of(row for group in groups.values() for run in group for row in run.rows)]


def _mean(group: Sequence[RunRecord], split: str) -> float:
    values = [value for run in group if (value := run.last(split)) is not None]
    return statistics.mean(values) if values else -1.0


def _recipes(groups: dict[str, list[RunRecord]], split: str) -> Table:
    rows = []
    for i, (name, group) in enumerate(groups.items()):
        values = [value for run in group if (value := run.last(split)) is not None]
        mean = f'{statistics.mean(values):.2f}' if values else '-'
        sd = f'{statistics.stdev(values):.2f}' if len(values) > 1 else '-'
        rows.append(
            (
                Cell(name),
                Cell(mean, number=True, best=not i),
                Cell(sd, number=True),
                Cell(str(len(values)), number=True),
                Cell(f'{group[0].card["params"]:,}' if 'params' in group[0].card else '-', number=True),
            )
        )
    repeats = 'folds' if any(run.config.get('data.folds') for group in groups.values() for run in group) else 'seeds'
    columns = ('settings', f'{split} {_metric(groups)} (%)', 'sd', repeats, 'parameters')
    return Table(f'Settings, {repeats} together', columns, tuple(rows), ('sd: of the sample',))


def _runs(runs: list[RunRecord], split: str) -> Table:
    keys = differing(runs)
    rows = []
    for run in runs:
        last, loss = run.last(split), run.last(split, 'loss')
        rows.append(
            (
                Cell(run.name),
                Cell(run.card.get('status', 'new')),
                *(Cell(str(run.config.get(key))) for key in keys),
                Cell(str(run.rows[-1]['step']) if run.rows else '-', number=True),
                Cell(f'{last:.2f}' if last is not None else '-', number=True),
                Cell(f'{loss:.4f}' if loss is not None else '-', number=True),
                Cell(f'{run.card["wall_time_s"]:.1f}' if 'wall_time_s' in run.card else '-', number=True),
            )
        )
    metric = METRICS[metric_of(row for run in runs for row in run.rows)]
    columns = ('run', 'state', *keys, 'step', f'{split} {metric} (%)', f'{split} loss', 'seconds')
    return Table('Runs, and what differs between them', columns, tuple(rows), ())


def _pictures(runs: list[RunRecord], groups: dict[str, list[RunRecord]], split: str) -> list[str]:
    shown = dict(list(groups.items())[:MOST_CURVES])
    metric, drawn = metric_of(row for run in runs for row in run.rows), []
    if any(run.rows for run in runs):
        drawn.append(
            (
                f'{METRICS[metric]} on {split}: mean over seeds or folds, band from lowest to highest'
                + f'; the best {MOST_CURVES} of {len(groups)}' * (len(groups) > MOST_CURVES),
                lambda axes: plots.curves(
                    axes, {name: [r.rows for r in group] for name, group in shown.items()}, split, metric
                ),
            )
        )
    keys = [key for key in differing(runs) if key not in REPEATS]
    trials = [{**run.config, metric: run.last(split)} for run in runs]
    if keys and any(trial[metric] is not None for trial in trials):
        drawn.append(
            (
                f'Settings and {METRICS[metric]} on {split}; the best is the thick line',
                lambda axes: plots.parallel(axes, trials, keys, metric),
            )
        )
    return [f'<figure>{_svg(draw)}<figcaption>{escape.html(caption)}</figcaption></figure>' for caption, draw in drawn]


def _svg(draw) -> str:
    out = io.StringIO()
    plots.written(draw, out, 'svg', 6.4, 3.6)
    return out.getvalue()[out.getvalue().index('<svg') :]  # within HTML neither the XML line nor the doctype


def _shared(runs: list[RunRecord]) -> str:
    differ = set(differing(runs))
    return json.dumps({key: value for key, value in runs[0].config.items() if key not in differ}, indent=1, default=str)


def _origins(runs: list[RunRecord]) -> str:
    lines = []
    for run in runs:
        card = run.card
        lines.append(
            f'{card.get("command", run.name)}\n    revision {card.get("revision")}, '
            f'{card.get("devices")}, params sha256 {card.get("params_sha256")}'
        )
    return '\n'.join(lines)
