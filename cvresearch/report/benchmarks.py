"""A data set for which many have published a result: their rows and our runs of it in one table.

The published rows are in a CSV file; benchmarks.toml says which of our runs may stand beside which row. A row that no
run fits has dashes; a recipe of ours that fits no row has a line of its own, and a dash for the paper.
"""

import csv
import functools
import math
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal

from cvresearch.models import registry
from cvresearch.report import runs
from cvresearch.report.compare import Cell, Table, notes, paper_cell
from cvresearch.report.published import HERE, SINGLE, Figure, Line
from cvresearch.report.results import Measured, Result, by_recipe, measured

COLUMNS = (
    'net',
    'paper',
    'ours',
    'difference',
    'sd',
    'seeds',
    'n_seen',
    'two standard errors',
    'parameters',
    'epochs planned',
    'minutes',
    'experiment',
    'preprocessing, paper',
    'source',
)
Row = tuple[Line | None, list[Result]]  # a published line and the seeds of one recipe; either may be missing


@functools.cache
def _benchmarks() -> dict[str, dict]:
    return tomllib.loads((HERE / 'benchmarks.toml').read_text(encoding='utf-8'))


def names() -> list[str]:
    """Returns the data sets that have such a table."""
    return list(_benchmarks())


@functools.cache
def lines(name: str) -> list[Line]:
    """Returns what was published for a data set, in the order of its file; `group` is the source of a line."""
    described = _benchmarks()[name]
    with open(HERE / described['file'], encoding='utf-8', newline='') as file:
        facts = list(csv.DictReader(file))
    published = []
    for fact in facts:
        figure = Figure(f'{Decimal(fact["accuracy"]).scaleb(2):f}', '% accuracy', fact['evidence'])
        match = next((row for row in described['rows'] if _names(row, fact)), {})
        published.append(
            Line(
                fact['model'],
                fact['preprocessing'],
                {'top1': figure},
                match.get('model'),
                described['data'],
                group=fact['source'],
                where=described['where'] | match.get('where', {}),
            )
        )
    return published


def _names(row: Mapping, fact: Mapping) -> bool:
    return row['row'] == fact['model'] and row.get('source', fact['source']) == fact['source']


def compare(name: str, results: Sequence[Result], unmeasured: bool = True) -> tuple[Table, list[Result]]:
    """Returns the table of a data set, and the results on other data.

    Lines with runs come first, from the lowest accuracy to the highest, then the other published ones. `ours` is the
    mean over the seeds of one recipe, in percent of the test images. `two standard errors` are of that mean, by seeds
    and test images together: 2 * sqrt(sd**2 / seeds + p * (100 - p) / n_seen). `minutes` are the wall time of a run,
    the mean over the seeds. Where several recipes fit a published row, it has a line for each. A row to be distrusted
    has no difference. Without `unmeasured` the published rows that no run stands beside are left out.

    Raises:
      UserError: two runs of one recipe have the same seed, or saw different numbers of images.
    """
    data, absent = _benchmarks()[name]['data'], _benchmarks()[name]['absent']
    on_data = [result for result in results if result.data == data and result.views == SINGLE]
    rows: list[Row] = []
    for recipe in by_recipe(on_data):
        fitting = [line for line in lines(name) if fits(line, recipe[0], absent)]
        rows += [(line, recipe) for line in fitting] or [(None, recipe)]
    with_runs = {id(line) for line, _ in rows}
    rows.sort(key=lambda row: statistics.mean(result.values['top1'] for result in row[1]))
    cells = [_row(line, recipe) for line, recipe in rows]
    cells += [_row(line, []) for line in lines(name) if unmeasured and id(line) not in with_runs]
    table = Table(name, COLUMNS, tuple(cells), notes(lines(name)))
    return table, [result for result in results if result.data != data]


def fits(line: Line, result: Result, absent: dict[str, object]) -> bool:
    """Whether a run may stand beside a published line: its net and settings are the line's.

    A key of the net that the run's configuration does not have counts as the net's default, others as `absent` says.
    """
    if line.model != result.model or result.data != line.data:
        return False
    defaults = absent | {f'model.{key}': value for key, value in registry.arguments_of(result.model).items()}
    return all(_plain(result.config.get(key, defaults.get(key))) == value for key, value in line.where.items())


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _row(line: Line | None, recipe: Sequence[Result]) -> tuple[Cell, ...]:
    """Returns the cells of COLUMNS, for a published line, the seeds of a recipe, or both."""
    experiment = runs.experiment(recipe[0].path) if recipe else '-'
    ours = measured(experiment, recipe)
    figure = line.paper['top1'] if line else None
    published = figure.value if figure and figure.mark != 'd' else None
    difference = '-' if ours is None or published is None else f'{round(ours.mean["top1"] - published, 2) + 0.0:+.2f}'
    deviation = ours.deviation['top1'] if ours else None
    numbers = [
        f'{ours.mean["top1"]:.2f}' if ours else '-',
        difference,
        '-' if deviation is None else f'{deviation:.2f}',
        str(ours.seeds) if ours else '-',
        f'{ours.n_seen:,}' if ours else '-',
        f'{2 * standard_error(ours):.2f}' if ours else '-',
        f'{ours.params:,}' if ours else '-',
        f'{recipe[0].config["epochs"]:g}' if recipe else '-',
        _minutes(recipe),
    ]
    return (
        Cell(line.label if line else experiment),
        paper_cell(figure),
        *(Cell(text, number=True) for text in numbers),
        Cell(experiment),
        Cell(line.protocol if line else '-'),
        Cell(line.group if line else '-'),
    )


def _minutes(recipe: Sequence[Result]) -> str:
    known = [result.seconds / 60 for result in recipe if result.seconds is not None]
    return f'{statistics.mean(known):.1f}' if known else '-'


def standard_error(ours: Measured) -> float:
    """Returns the standard error of a mean accuracy, in points: of the seeds and of the test images together."""
    accuracy, deviation = ours.mean['top1'], ours.deviation['top1'] or 0.0
    return math.sqrt(deviation**2 / ours.seeds + accuracy * (100 - accuracy) / ours.n_seen)
