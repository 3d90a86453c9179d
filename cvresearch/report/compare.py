"""Tables that set published figures and our runs side by side."""

import dataclasses
from collections.abc import Sequence

from cvresearch.models import registry
from cvresearch.report.evaluations import Evaluation, beside
from cvresearch.report.published import MARKS, Figure, Line
from cvresearch.report.results import Measured, Result, assign, measured

NAMES = {'top1': 'top-1', 'top5': 'top-5', 'params': 'parameters', 'macs': 'multiply-adds'}


@dataclasses.dataclass(frozen=True)
class Cell:
    """What stands in one place of a table.

    Attributes:
      text: '-' where nothing is known.
      mark: of the evidence, '' for what is ours.
      number: whether it is aligned on its decimal point.
      best: whether it is the best of its column.
      note: the evidence in full.
      full: what CSV has in place of a shortened text.
    """

    text: str = '-'
    mark: str = ''
    number: bool = False
    best: bool = False
    note: str = ''
    full: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns, lines of cells, and the notes below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]


def compare(
    title: str, lines: Sequence[Line], results: Sequence[Result], evaluations: Sequence[Evaluation] = ()
) -> tuple[Table, list[Result]]:
    """Returns a table and the results whose net it does not have.

    One row per line: parameters, multiply-adds, then for each metric the paper's figure, ours (mean over
    the seeds), the difference, the deviation; seeds, images counted in each evaluation, the protocol. Where released
    weights were measured, these too, a row for each that fits a line.

    Raises:
      UserError: runs that disagree on the protocol.
    """
    of_lines, strangers = assign(lines, results)
    measures = [measured(line.label, group) for line, group in zip(lines, of_lines, strict=True)]
    used = [name for name in ('top1', 'top5') if any(name in line.paper for line in lines)] or ['top1']
    other = list(dict.fromkeys(name for line in lines for name in line.paper if name not in used))
    columns: dict[str, list[Cell]] = {'net': [Cell(line.label) for line in lines]}
    columns['parameters'] = [_count(line, ours, 'params') for line, ours in zip(lines, measures, strict=True)]
    columns['multiply-adds'] = [_count(line, ours, 'macs') for line, ours in zip(lines, measures, strict=True)]
    for name in other:
        figures = [line.paper.get(name) for line in lines]
        columns[_title(name, figures)] = list(map(paper_cell, figures))
    for name in used:
        columns |= _metric(name, lines, measures)
    columns['seeds'] = [Cell(str(m.seeds), number=True) if m else Cell(number=True) for m in measures]
    columns['images'] = [Cell(f'{m.n_seen:,}', number=True) if m else Cell(number=True) for m in measures]
    columns['protocol'] = [
        Cell(f'{line.protocol}; ours: {m.protocol}' if m and m.protocol not in line.protocol else line.protocol)
        for line, m in zip(lines, measures, strict=True)
    ]
    if evaluations:
        columns = _with_released(columns, lines, evaluations, used)
    return Table(title, tuple(columns), tuple(zip(*columns.values(), strict=True)), notes(lines)), strangers


def _with_released(
    columns: dict[str, list[Cell]], lines: Sequence[Line], evaluations: Sequence[Evaluation], metrics: Sequence[str]
) -> dict[str, list[Cell]]:
    """Returns the columns with the ones of released weights, and each row as often as weights fit its line."""
    pairs = beside(lines, evaluations)
    columns = {name: [cells[number] for number, _ in pairs] for name, cells in columns.items()}
    released = [evaluation for _, evaluation in pairs]
    columns['released weights'] = [Cell(answer.record['reference']) if answer else Cell() for answer in released]
    for metric in metrics:
        errors = any(line.paper[metric].unit == '% error' for line in lines if metric in line.paper)
        values = [answer.record[metric] if answer else None for answer in released]
        columns[f'released weights, measured: {NAMES[metric]}'] = [
            Cell(number=True) if value is None else Cell(f'{100 - value if errors else value:.2f}', number=True)
            for value in values
        ]
    cells = zip(*map(measured_cells, released), strict=True)
    names = (f'released weights: {name}' for name in ('images', 'protocol', 'digest'))
    return columns | {name: list(column) for name, column in zip(names, cells, strict=True)}


def measured_cells(evaluation: Evaluation | None) -> list[Cell]:
    """Returns the images, the protocol and the digest of an evaluation."""
    if evaluation is None:
        return [Cell(number=True), Cell(), Cell()]
    digest = evaluation.record['digest']
    return [
        Cell(f'{evaluation.record["n_seen"]:,}', number=True),
        Cell(evaluation.protocol),
        Cell(digest[:12], full=digest),
    ]


def _metric(name: str, lines: Sequence[Line], measures: Sequence[Measured | None]) -> dict[str, list[Cell]]:
    figures = [line.paper.get(name) for line in lines]
    errors = any(figure and figure.unit == '% error' for figure in figures)
    what = f'{NAMES[name]} {"error" if errors else "accuracy"} (%)'
    ours = [(100 - m.mean[name] if errors else m.mean[name]) if m else None for m in measures]
    groups = [(line.group, line.protocol) for line in lines]  # what may be compared
    papers = [figure.value if figure else None for figure in figures]
    best_paper = _best(papers, groups, errors)
    best_ours = _best(ours, groups, errors)
    blank = Cell(number=True)
    return {
        f'{what}, paper': [dataclasses.replace(paper_cell(f), best=i in best_paper) for i, f in enumerate(figures)],
        f'ours {NAMES[name]}': [
            blank if value is None else Cell(f'{value:.2f}', number=True, best=i in best_ours)
            for i, value in enumerate(ours)
        ],
        f'difference {NAMES[name]}': [
            blank if value is None or paper is None else Cell(f'{value - paper:+.2f}', number=True)
            for value, paper in zip(ours, papers, strict=True)
        ],
        f'sd {NAMES[name]}': [
            blank if m is None or m.deviation[name] is None else Cell(f'{m.deviation[name]:.2f}', number=True)
            for m in measures
        ],
    }


def _best(values: Sequence[float | None], groups: Sequence[tuple], lowest: bool) -> set[int]:
    """Returns where the best of each group of at least two values stands."""
    places: set[int] = set()
    for group in set(groups):
        known = {i: value for i, value in enumerate(values) if groups[i] == group and value is not None}
        if len(known) > 1:
            best = (min if lowest else max)(known.values())
            places |= {i for i, value in known.items() if value == best}
    return places


def paper_cell(figure: Figure | None) -> Cell:
    """Returns a published figure with its evidence."""
    if figure is None:
        return Cell(number=True)
    return Cell(figure.text, mark=figure.mark, number=True, note=figure.evidence)


def _count(line: Line, ours: Measured | None, what: str) -> Cell:
    """Returns the parameters of the net that was trained, or else, like the multiply-adds, the catalogue's count."""
    if line.model is None:
        return Cell(number=True)
    value = ours.params if ours and what == 'params' else getattr(registry.variant(line.model), what)
    return Cell(number=True) if value is None else Cell(f'{value:,}', number=True)


def _title(name: str, figures: Sequence[Figure | None]) -> str:
    unit = next(figure.unit for figure in figures if figure)
    return f'{NAMES.get(name, name)}, paper ({unit})'


def notes(lines: Sequence[Line]) -> tuple[str, ...]:
    """Returns what is said below a table: the marks of its figures, and what is ours."""
    marks = sorted({figure.mark for line in lines for figure in line.paper.values()}, key=list(MARKS).index)
    return (*(f'{mark}: {MARKS[mark]}' for mark in marks), 'ours: mean over the seeds; sd: of the sample; -: no run')
