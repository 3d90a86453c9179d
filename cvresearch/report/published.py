"""Published tables as lines that a run can be set beside. The facts are in paper_tables.csv.

Every figure there has an evidence: 'verified: SOURCE', or 'recalled' where it was not checked
against an opened copy. Which of our variants a row is stands in matches.toml.
"""

import csv
import dataclasses
import functools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from cvresearch.base.config import RENAMED
from cvresearch.base.errors import UserError, lookup
from cvresearch.models import registry

HERE = Path(__file__).parent
SINGLE = 'single'  # one view of an image: the centre crop, or the whole of a small image
# What a column of a paper is: (pattern, metric), the rest of its name being the group.
METRICS = (
    (r'top-1 test', 'top1 of the test server'),
    (r'top-5 test', 'top5 of the test server'),
    (r'top-1( val)?', 'top1'),
    (r'top-5( val)?', 'top5'),
    (r'(max )?accuracy|(CIFAR-100?|CIFAR-10) test|test', 'top1'),
)
ROW_FACTS = {'params': 'params', 'FLOPs': 'macs', 'mult-adds': 'macs', 'MAdds': 'macs', 'cost': 'macs'}
SCALES = {'M': 1e6, 'B': 1e9, 'Bn ops': 1e9}
MARKS = {
    'v': 'verified in public text of the paper or its repository',
    'r': 'recalled, not checked against an opened copy',
    'l': 'one source of low confidence',
    'd': 'to be distrusted, and not compared: the evidence says why',
}
ACCURACIES = ('% accuracy', '% error', '% points')


@dataclasses.dataclass(frozen=True)
class Figure:
    """A published number.

    Attributes:
      text: as printed.
      unit: '% accuracy', '% error', 'M', ...
      evidence: 'verified: ...', 'recalled', ...
    """

    text: str
    unit: str
    evidence: str

    @property
    def value(self) -> float | None:
        """The number; None where the paper gives a bound ('>60')."""
        return float(self.text) if self.text[0] not in '<>' else None

    @property
    def mark(self) -> str:
        """How sure the number is: a key of MARKS."""
        if 'DISTRUST' in self.evidence:
            return 'd'
        if 'LOW CONFIDENCE' in self.evidence:
            return 'l'
        return 'v' if self.evidence.startswith('verified') else 'r'


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a table: a net in one setting.

    Attributes:
      label: as the paper has it, with the column's name where the columns are nets or data sets.
      protocol: how the paper evaluated, in its words.
      paper: the published figures by metric: 'top1', 'top5', 'params', 'macs', or the paper's own column.
      model: our variant; None where the row is no net of ours and never has a run.
      data: the data set that a run must be of.
      views: how a run must look at an image: 'single', '10-crop', ...
      group: what sets this line apart from others of its row: a data set, a kind of net.
      where: values of the configuration that a run must have, by dotted key.
    """

    label: str
    protocol: str
    paper: Mapping[str, Figure]
    model: str | None = None
    data: str = 'imagenet'
    views: str = SINGLE
    group: str = ''
    where: Mapping[str, object] = dataclasses.field(default_factory=dict)


@functools.cache
def facts() -> dict[str, list[dict]]:
    """Returns the rows of paper_tables.csv by table."""
    rows_of: dict[str, list[dict]] = {}
    with open(HERE / 'paper_tables.csv', encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
            rows_of.setdefault(row['table_id'], []).append(row)
    return rows_of


@functools.cache
def _matches() -> dict[str, dict]:
    return tomllib.loads((HERE / 'matches.toml').read_text(encoding='utf-8'))


def table(name: str) -> list[Line]:
    """Returns the lines of a published table, 'ResNet-T3'.

    Raises:
      UserError: no such table; the message names the nearest.
    """
    entries = lookup('table', facts(), name)
    cells: dict[tuple[str, str, str], dict[str, Figure]] = {}
    of_rows: list[tuple[str, str, str, Figure]] = []
    for entry in entries:
        figure = Figure(entry['value'], entry['unit'], entry['evidence'])
        metric, group = _column(entry['column'], entry['unit'])
        if group is None:
            of_rows.append((entry['row'], entry['protocol'], metric, figure))
            continue
        key = _cell(cells, entry['row'], group, entry['protocol'], metric)
        cells.setdefault(key, {})[metric] = figure
    for row, protocol, metric, figure in of_rows:
        same = [key for key in cells if key[0] == row]
        exact = [key for key in same if key[2] == protocol]
        for key in exact or same or [(row, '', protocol)]:
            cells.setdefault(key, {})[metric] = figure
    return [_line(name, row, group, protocol, paper) for (row, group, protocol), paper in cells.items()]


def described(path: Path) -> tuple[str, list[Line]]:
    """Returns the title and the lines of a table that a user describes in a TOML file.

        title = "LeNet-5 and its contemporaries"
        data = "mnist5k"            # of all rows that do not say otherwise
        [[rows]]
        label = "LeNet-5"
        model = "lenet5"            # a variant of the catalogue
        where = {"optimizer.name" = "adamw"}            # a row's own runs, where that is not enough
        paper = {top1 = 98.9, unit = "% accuracy", evidence = "verified: ..."}      # if published

    Raises:
      UserError: not TOML, a missing or unknown key, an unknown model.
    """
    try:
        text = tomllib.loads(path.read_text(encoding='utf-8'))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f'{path} is not TOML: {error}') from error
    rows = text.pop('rows', [])
    common = {key: text.pop(key) for key in ('data', 'views', 'protocol') if key in text}
    title = text.pop('title', path.stem)
    if text or not rows:
        columns = ', '.join(text) or 'no rows'
        raise UserError(f'{path}: expected title, data, views, protocol and [[rows]]; got {columns}')
    return title, [_described_line(path, common | row) for row in rows]


def _described_line(path: Path, row: dict) -> Line:
    known = {'label', 'model', 'data', 'views', 'protocol', 'where', 'paper'}
    if extra := row.keys() - known:
        raise UserError(f'{path}: a row has no key {min(extra)!r}; expected {", ".join(sorted(known))}')
    if 'model' not in row or 'data' not in row:
        raise UserError(f'{path}: row {row.get("label", row)!r} needs a model and data')
    registry.variant(row['model'])
    paper = dict(row.get('paper', {}))
    unit, evidence = paper.pop('unit', '% accuracy'), paper.pop('evidence', 'recalled')
    figures = {metric: Figure(str(value), unit, evidence) for metric, value in paper.items()}
    views = row.get('views', SINGLE)
    where = {RENAMED.get(str(key), str(key)): value for key, value in row.get('where', {}).items()}
    return Line(
        row.get('label', row['model']),
        row.get('protocol', f'{row["data"]} test, {views} view'),
        figures,
        row['model'],
        row['data'],
        views,
        where=where,
    )


def _column(column: str, unit: str) -> tuple[str, str | None]:
    """Returns the metric of a paper's column and its group; no group for a fact of the whole row."""
    if column in ROW_FACTS:
        return ROW_FACTS[column], None
    if unit not in ACCURACIES:
        return column, None
    for pattern, metric in METRICS:
        if re.fullmatch(pattern, column):
            return metric, ''
        if match := re.fullmatch(rf'(.*) (?:{pattern})|(?:{pattern}) (.*)', column):
            return metric, next(text for text in (match[1], match[match.lastindex or 1]) if text)
    return 'top1', column


def _cell(cells: dict, row: str, group: str, protocol: str, metric: str) -> tuple[str, str, str]:
    """Returns the line of a figure: one that lacks it, whose protocol says the same in more or fewer words."""
    for key, paper in cells.items():
        alike = key[2].startswith(protocol) or protocol.startswith(key[2])
        if key[:2] == (row, group) and metric not in paper and alike:
            return key
    return row, group, protocol


def _line(table: str, row: str, group: str, protocol: str, paper: dict[str, Figure]) -> Line:
    match = _matches().get(table, {})
    label = f'{row}, {group}' if group else row
    model = match.get('rows', {}).get(f'{row} / {group}') or match.get('rows', {}).get(row)
    if model is None:
        return Line(label, protocol, paper, group=group)
    # What a column means, or the data set that the protocol begins with.
    meanings = [
        meaning
        for name, meaning in match.get('groups', {}).items()
        if name == group or re.match(rf'{re.escape(name)}\b(?!-)', protocol)
    ]
    views = match.get('views', SINGLE)
    fields = {'data': match.get('data', 'imagenet'), 'views': views[row] if isinstance(views, dict) else views}
    where = dict(match.get('where', {}).get(row, {}))
    for meaning in meanings:
        fields |= {key: value for key, value in meaning.items() if key != 'where'}
        where |= meaning.get('where', {})
    if fields['views'] == 'of the row':
        fields['views'] = views_of(protocol)
    return Line(label, protocol, paper, model, group=group, where=where, **fields)


def views_of(protocol: str) -> str:
    """Returns the name of the views that a paper's words describe: 'single', '10-crop', or the words themselves."""
    larger = re.search(r'test (?!224)\d|\b(320|512)\b', protocol)
    if re.search(r'\b1[- ]crop|single (crop|view)', protocol) and not larger:
        return SINGLE
    if match := re.search(r'\b(\d+)[- ]crop', protocol):
        return f'{match[1]}-crop'
    return protocol
