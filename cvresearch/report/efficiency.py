"""The training compute that nets need to reach a level: cvresearch report efficiency RUN... [--level TOP1].

"AI and efficiency" (Hernandez & Brown 2020, arXiv:2005.04305) in small: training compute is 3 x multiply-adds x images,
a multiply-add counted once, up to the first evaluation at which a run has the level; by default the level is what
--reference, lenet5, has at its end, mean over the seeds of its best recipe. One row for each recipe, seeds together;
`density` is top-1 per million parameters (Canziani et al. 2017, arXiv:1605.07678, figure 10). Below it stands OpenAI's
own table.
`cvresearch report plots balls --runs RUN... --x latency_ms` draws accuracy against cost, measured or counted.
"""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base import cli, tables
from cvresearch.base.errors import UserError
from cvresearch.report import ours, runs
from cvresearch.report.published import HERE
from cvresearch.report.results import Result, by_recipe, take

PASSES = 3  # a forward and a backward pass, in forward passes
COLUMNS = (
    'net', 'experiment', 'data', 'seeds', 'top-1', 'parameters', 'multiply-adds', 'density', 'reached by',
    'epochs to it', 'compute (10^12 multiply-adds)', 'times less',
)  # fmt: skip
PUBLISHED = {'net': 'net', 'level': 'level', 'teraflop_s_days': 'teraflop/s-days', 'times_less': 'times less'}


def level_of(results: Sequence[Result], reference: str) -> float:
    """Returns the mean top-1 of the runs of a net, percent; of several recipes, the best one's.

    Raises:
      UserError: none is of that net.
    """
    recipes = by_recipe([result for result in results if result.model == reference])
    if not recipes:
        there = ', '.join(sorted({result.model for result in results}))
        raise UserError(f'none of the runs is of {reference}; give --level, or --reference as one of {there}')
    return max(statistics.mean(result.values['top1'] for result in recipe) for recipe in recipes)


def reached(result: Result, level: float) -> tuple[int, float] | None:
    """Returns the images that a run had trained on when an evaluation first had the level, and the epoch; else None."""
    run = runs.read(result.path)
    for row in run.rows:
        if row['split'] == result.split and row.get('top1', 0) >= level:
            return row['step'] * run.config['batch_size'], row['epoch']
    return None


def rows(results: Sequence[Result], level: float) -> list[dict]:
    """Returns the table, from the least compute to the most; nets that do not reach the level come last.

    Where several recipes train one net, each has a row. Means are over the seeds that reach the level.
    """
    table = []
    for group in by_recipe(results):
        first, top1 = group[0], statistics.mean(result.values['top1'] for result in group)
        macs = ours.macs(first)
        there = [place for result in group if (place := reached(result, level))]
        compute = statistics.mean(PASSES * macs * images for images, _ in there) if there and macs else None
        table.append(
            {
                'net': first.model,
                'experiment': runs.experiment(first.path),
                'data': first.data,
                'seeds': len(group),
                'top-1': f'{top1:.2f}',
                'parameters': first.params,
                'multiply-adds': macs,
                'density': f'{1e6 * top1 / first.params:,.0f}',
                'reached by': f'{len(there)} of {len(group)}',
                'epochs to it': f'{statistics.mean(epoch for _, epoch in there):.1f}' if there else None,
                'compute': compute,
            }
        )
    table.sort(key=lambda row: (row['compute'] is None, row['compute'] or -float(row['top-1'])))
    return table


def compared(table: list[dict], reference: str) -> list[dict]:
    """Returns the rows with how many times less compute each needed than the best recipe of the reference."""
    base = next((row['compute'] for row in table if row['net'] == reference and row['compute']), None)
    for row in table:
        compute = row.pop('compute')
        row[COLUMNS[-2]] = f'{compute / 1e12:.3g}' if compute else None
        row['times less'] = f'{base / compute:.2g}' if base and compute else None
    return table


def published() -> list[dict]:
    """Returns OpenAI's table."""
    with open(HERE / 'efficiency.csv', encoding='utf-8', newline='') as file:
        return [{title: row[key] for key, title in PUBLISHED.items()} for row in csv.DictReader(file)]


def main(argv: list[str]) -> int:
    """Prints both tables; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='folders of finished runs',
        level='top-1 in percent that counts as reached; that of --reference by default',
        reference='net that the others are compared with; lenet5 by default',
        format='text (default), markdown, csv, latex or html',
    )
    if not options.rest:
        raise UserError('expected folders of finished runs')
    results = take([Path(path) for path in options.rest])
    if len({result.data for result in results}) > 1:
        raise UserError('the runs are on several data sets; compare nets on one')
    reference = options.reference or 'lenet5'
    level = _level(options.level) if options.level else level_of(results, reference)
    style = options.format or 'text'
    print(tables.render(compared(rows(results, level), reference), COLUMNS, style))
    print(f'\nLevel: {level:.2f} % top-1. OpenAI, training compute to one level on ImageNet:\n')
    print(tables.render(published(), tuple(PUBLISHED.values()), style))
    return 0


def _level(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise UserError(f'--level is {text!r}; expected percent of top-1, such as 89.5')
    return value
