"""Tables as text, Markdown, CSV, HTML or LaTeX (booktabs), from rows that are dicts."""

import csv
import io
import json
from collections.abc import Mapping, Sequence

from cvresearch.base import escape
from cvresearch.base.errors import lookup


def render(rows: Sequence[dict], columns: Sequence[str], style: str = 'text') -> str:
    """Returns the rows as a table.

    Args:
      rows: values by column; None is a dash, numbers are aligned to the right.
      columns: which, in order.
      style: 'text', 'markdown', 'csv', 'html' (the element) or 'latex' (needs booktabs). In CSV numbers are bare;
        elsewhere integers have thousands separators.

    Raises:
      UserError: an unknown style.
    """
    return lookup('format', STYLES, style)(rows, columns)


def of_one(result: Mapping[str, object], style: str = 'text') -> str:
    """Returns one result as a table with a row for each of its values; with the style 'json', as one line of JSON."""
    if style == 'json':
        return json.dumps(result)
    return render([dict(what=key, value=str(value)) for key, value in result.items()], ('what', 'value'), style)


def _cell(value) -> str:
    if value is None:
        return '-'
    return f'{value:,}' if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _right(rows: Sequence[dict], column: str) -> bool:
    values = [row[column] for row in rows if row[column] not in (None, '')]
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _lines(rows: Sequence[dict], columns: Sequence[str]) -> list[list]:
    return [list(columns), *([row[column] for column in columns] for row in rows)]


def _text(rows: Sequence[dict], columns: Sequence[str]) -> str:
    cells = [[escape.line(_cell(value)) for value in line] for line in _lines(rows, columns)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [_right(rows, column) for column in columns]
    lines = [
        '  '.join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in cells
    ]
    return '\n'.join([lines[0], '-' * max(map(len, lines)), *lines[1:]])


def _markdown(rows: Sequence[dict], columns: Sequence[str]) -> str:
    rule = ['---:' if _right(rows, column) else '---' for column in columns]
    head, *body = [[escape.markdown(_cell(value)) for value in line] for line in _lines(rows, columns)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in [head, rule, *body])


def _csv(rows: Sequence[dict], columns: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    for values in _lines(rows, columns):
        writer.writerow(['' if v is None else escape.csv(v) if isinstance(v, str) else v for v in values])
    return out.getvalue().rstrip('\n')


def _latex(rows: Sequence[dict], columns: Sequence[str]) -> str:
    align = ''.join('r' if _right(rows, column) else 'l' for column in columns)
    head = [column.replace('_', ' ') for column in columns]
    lines = [head, *_lines(rows, columns)[1:]]
    body = [' & '.join(escape.latex(_cell(value)) for value in line) + r' \\' for line in lines]
    return '\n'.join(
        [
            escape.OTHER_SCRIPT,
            rf'\begin{{tabular}}{{{align}}}',
            r'\toprule',
            body[0],
            r'\midrule',
            *body[1:],
            r'\bottomrule',
            r'\end{tabular}',
        ]
    )


def _html(rows: Sequence[dict], columns: Sequence[str]) -> str:
    head, *body = [[escape.html(_cell(value)) for value in line] for line in _lines(rows, columns)]
    kinds = [' class=n' if _right(rows, column) else '' for column in columns]

    def line(cells: Sequence[str], tag: str) -> str:
        inner = ''.join(f'<{tag}{kind}>{cell}</{tag}>' for cell, kind in zip(cells, kinds, strict=True))
        return f'<tr>{inner}</tr>'

    rest = '\n'.join(line(cells, 'td') for cells in body)
    return f'<table><thead>{line(head, "th")}</thead>\n<tbody>{rest}</tbody></table>'


STYLES = {'text': _text, 'markdown': _markdown, 'csv': _csv, 'latex': _latex, 'html': _html}
