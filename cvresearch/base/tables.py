"""Tables as text, Markdown, CSV or LaTeX (booktabs), from rows that are dicts."""

import csv
import io
from collections.abc import Sequence

from cvresearch.base.errors import lookup

_LATEX = str.maketrans({'_': r'\_', '%': r'\%', '&': r'\&', '#': r'\#', '$': r'\$', '{': r'\{', '}': r'\}',
                        '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '\\': r'\textbackslash{}'})  # fmt: skip


def render(rows: Sequence[dict], columns: Sequence[str], style: str = 'text') -> str:
    """Returns the rows as a table.

    Args:
      rows: values by column; None is a dash, numbers are aligned to the right.
      columns: which, in order.
      style: 'text', 'markdown', 'csv' or 'latex'. In CSV numbers are bare; elsewhere integers
        have thousands separators.

    Raises:
      UserError: an unknown style.
    """
    return lookup('format', STYLES, style)(rows, columns)


def latex_escaped(text: str) -> str:
    """Returns text that LaTeX prints as it is."""
    return text.translate(_LATEX)


def _cell(value) -> str:
    if value is None:
        return '-'
    return f'{value:,}' if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _right(rows: Sequence[dict], column: str) -> bool:
    values = [row[column] for row in rows if row[column] not in (None, '')]
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _text(rows: Sequence[dict], columns: Sequence[str]) -> str:
    cells = [list(columns), *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [_right(rows, column) for column in columns]
    lines = ['  '.join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
             for line in cells]  # fmt: skip
    return '\n'.join([lines[0], '-' * max(map(len, lines)), *lines[1:]])


def _markdown(rows: Sequence[dict], columns: Sequence[str]) -> str:
    rule = ['---:' if _right(rows, column) else '---' for column in columns]
    lines = [list(columns), rule, *([_cell(row[column]).replace('|', r'\|') for column in columns] for row in rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _csv(rows: Sequence[dict], columns: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows({key: '' if row[key] is None else row[key] for key in columns} for row in rows)
    return out.getvalue().rstrip('\n')


def _latex(rows: Sequence[dict], columns: Sequence[str]) -> str:
    align = ''.join('r' if _right(rows, column) else 'l' for column in columns)
    head = [column.replace('_', ' ') for column in columns]
    lines = [head, *([latex_escaped(_cell(row[column])) for column in columns] for row in rows)]
    body = [' & '.join(line) + r' \\' for line in lines]
    return '\n'.join([rf'\begin{{tabular}}{{{align}}}', r'\toprule', body[0], r'\midrule', *body[1:],
                      r'\bottomrule', r'\end{tabular}'])  # fmt: skip


STYLES = {'text': _text, 'markdown': _markdown, 'csv': _csv, 'latex': _latex}
