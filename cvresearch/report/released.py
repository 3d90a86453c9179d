"""The table of all nets of other libraries: what was published of their weights, and what was measured with them.

What the publishers of weights state themselves is in released.csv; for other nets it is the paper's figure of the
architecture, whoever trained the weights.
"""

import csv
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from cvresearch.models import registry
from cvresearch.report import published
from cvresearch.report.compare import Cell, Table, measured_cells, paper_cell
from cvresearch.report.evaluations import Evaluation
from cvresearch.report.published import HERE, MARKS, SINGLE, Figure


@functools.cache
def facts() -> dict[str, dict[str, Figure]]:
    """Returns what the publishers of weights state, by reference with its tag: 'torchvision/resnet50.IMAGENET1K_V1'."""
    with open(HERE / 'released.csv', encoding='utf-8', newline='') as file:
        return {
            row['reference']: {name: Figure(row[name], '% accuracy', row['evidence']) for name in ('top1', 'top5')}
            for row in csv.DictReader(file)
        }


@functools.cache
def papers() -> dict[str, tuple[str, dict[str, Figure]]]:
    """Returns the best proven single-view figures on ImageNet of each variant, and the table that they stand in."""
    best: dict[str, tuple[str, dict[str, Figure]]] = {}
    for table in published.facts():
        for line in published.table(table):
            top1 = line.paper.get('top1')
            fitting = (line.data, line.views) == ('imagenet', SINGLE) and not line.where
            if not line.model or not fitting or top1 is None or top1.value is None or top1.mark == 'd':
                continue
            before = best.get(line.model)
            if before is None or _rank(top1) < _rank(before[1]['top1']):
                best[line.model] = table, dict(line.paper)
    return best


def _rank(figure: Figure) -> int:
    return list(MARKS).index(figure.mark)


def table(evaluations: Sequence[Evaluation]) -> Table:
    """Returns all nets of other libraries whose weights are read, what was published, and what was measured."""
    rows, placed = [], set()
    for reference in registry.references():
        stated = {name: figures for name, figures in facts().items() if _net(name) == reference}
        model = registry.reference(reference).variant
        if not stated:
            source, figures = papers().get(model, ('-', {}))
            rows += _rows(reference, figures, source, _of(reference, evaluations, placed, lambda name: True))
        for name, figures in stated.items():
            rows += _rows(name, figures, 'its publisher', _of(reference, evaluations, placed, _same(name)))
    for evaluation in evaluations:
        if evaluation.path not in placed:
            rows += _rows(evaluation.record['reference'], {}, '-', [evaluation])
    columns = (
        'weights',
        'top-1 accuracy (%), published',
        'top-5 accuracy (%), published',
        'published by',
        'released weights, measured: top-1',
        'top-5',
        'images',
        'protocol',
        'digest',
    )
    marks = dict.fromkeys(cell.mark for row in rows for cell in row if cell.mark)
    notes = tuple(f'{mark}: {MARKS[mark]}' for mark in MARKS if mark in marks)
    return Table('Released weights', columns, tuple(rows), (*notes, '-: not known, or not measured'))


def _net(reference: str) -> str:
    return registry.current_name(reference).partition('.')[0]


def _same(name: str) -> Callable[[str], bool]:
    """Returns whether weights that an evaluation names are those; without a tag they are the first of their net."""
    first = next(other for other in facts() if _net(other) == _net(name)) == name
    return lambda other_name: other_name == name or (first and '.' not in other_name)


def _of(
    net: str, evaluations: Sequence[Evaluation], placed: set[Path], same: Callable[[str], bool]
) -> list[Evaluation]:
    fitting = []
    for evaluation in evaluations:
        current = registry.current_name(evaluation.record['reference'])
        if _net(current) == net and same(current):
            fitting.append(evaluation)
            placed.add(evaluation.path)
    return fitting


def _rows(
    name: str, figures: dict[str, Figure], source: str, evaluations: Sequence[Evaluation]
) -> list[tuple[Cell, ...]]:
    stated = (Cell(name), *(_as_accuracy(figures.get(metric)) for metric in ('top1', 'top5')), Cell(source))
    return [
        (
            *stated,
            *(Cell(f'{evaluation.record[m]:.2f}' if evaluation else '-', number=True) for m in ('top1', 'top5')),
            *measured_cells(evaluation),
        )
        for evaluation in evaluations or [None]
    ]


def _as_accuracy(figure: Figure | None) -> Cell:
    """Returns a published figure as an accuracy, with as many digits as were printed."""
    if figure is None or figure.unit == '% accuracy' or figure.value is None:
        return paper_cell(figure)
    digits = len(figure.text.partition('.')[2])
    return dataclasses.replace(paper_cell(figure), text=f'{100 - figure.value:.{digits}f}')
