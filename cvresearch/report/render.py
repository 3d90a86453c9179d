"""Tables with evidence marks as text, Markdown, CSV, HTML and LaTeX (booktabs)."""

import csv
import io
from collections.abc import Callable

from cvresearch.base import escape
from cvresearch.base.errors import lookup
from cvresearch.report.compare import Cell, Table

_SUPERSCRIPT = {'v': 'ᵛ', 'r': 'ʳ', 'l': 'ˡ', 'd': 'ᵈ', '': ''}
STYLE = (
    'body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#111}table{border-collapse:collapse;margin:1em 0}'
    'caption{text-align:left;font-weight:600}th,td{padding:.2em .6em;text-align:left;vertical-align:top}'
    'thead{border-top:2px solid;border-bottom:1px solid}tbody{border-bottom:2px solid}'
    '.n{text-align:right;font-variant-numeric:tabular-nums;white-space:pre}figure{margin:1em 0}pre{overflow:auto}'
)


def render(table: Table, style: str) -> str:
    """Returns a table in a style.

    Raises:
      UserError: an unknown style.
    """
    return lookup('format', STYLES, style)(table)


def _padding(table: Table) -> list[int]:
    """Returns the most decimals in each column: shorter numbers are filled up, so that the points align."""
    return [
        max((len(row[i].text.partition('.')[2]) for row in table.rows if row[i].number), default=0)
        for i in range(len(table.columns))
    ]


def _filled(cell: Cell, decimals: int, digit: str, point: str) -> str:
    """Returns what fills a number up to `decimals` decimals."""
    if not cell.number or cell.text == '-' or not decimals:
        return ''
    _, dot, after = cell.text.partition('.')
    return ('' if dot else point) + digit * (decimals - len(after))


def _plain(cell: Cell, decimals: int) -> str:
    mark = _SUPERSCRIPT[cell.mark]
    room = ' ' if cell.number and not mark else ''
    return f'{cell.text}{_filled(cell, decimals, " ", " ")}{mark}{room}' if cell.number else escape.line(cell.text)


def _text(table: Table) -> str:
    padding = _padding(table)
    lines = [[_plain(cell, p) for cell, p in zip(row, padding, strict=True)] for row in table.rows]
    widths = [max([len(name), *(len(line[i]) for line in lines)]) for i, name in enumerate(table.columns)]
    numbers = [any(row[i].number for row in table.rows) for i in range(len(widths))]

    def joined(line):
        cells = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numbers, strict=True))
        return '  '.join(cells).rstrip()

    head = joined(table.columns)
    return '\n'.join([escape.line(table.title), head, '-' * len(head), *map(joined, lines), *table.notes])


def _markdown(table: Table) -> str:
    def cell(c: Cell) -> str:
        text = escape.markdown(c.text) + _SUPERSCRIPT[c.mark]
        return f'**{text}**' if c.best else text

    numbers = [any(row[i].number for row in table.rows) for i in range(len(table.columns))]
    rule = ['---:' if n else '---' for n in numbers]
    lines = [list(map(escape.markdown, table.columns)), rule, *([cell(c) for c in row] for row in table.rows)]
    body = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'**{escape.markdown(table.title)}**\n\n{body}\n\n' + '; '.join(table.notes)


def _csv(table: Table) -> str:
    """Bare numbers; what is not known is empty; the evidence has columns of its own."""
    marked = [any(row[i].mark for row in table.rows) for i in range(len(table.columns))]
    head = [name for i, column in enumerate(table.columns) for name in (column, f'{column}: evidence')[: 1 + marked[i]]]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(map(escape.csv, head))
    for row in table.rows:
        cells = []
        for i, cell in enumerate(row):
            text = '' if cell.text == '-' else cell.text.replace(',', '') if cell.number else cell.full or cell.text
            cells += [escape.csv(text), escape.csv(cell.note)][: 1 + marked[i]]
        writer.writerow(cells)
    return out.getvalue().rstrip('\n')


def html_table(table: Table) -> str:
    """Returns the <table> element."""
    padding = _padding(table)

    def cell(c: Cell, decimals: int) -> str:
        text = escape.html(c.text) + _filled(c, decimals, '\u2007', '\u2008')
        text = f'<b>{text}</b>' if c.best else text
        mark = f'<sup title="{escape.html(c.note)}">{c.mark}</sup>' if c.mark else ''
        return f'<td{" class=n" if c.number else ""}>{text}{mark}</td>'

    numbers = [any(row[i].number for row in table.rows) for i in range(len(table.columns))]
    head = ''.join(
        f'<th{" class=n" if n else ""}>{escape.html(name)}</th>' for name, n in zip(table.columns, numbers, strict=True)
    )
    rows = ''.join(f'<tr>{"".join(map(cell, row, padding))}</tr>\n' for row in table.rows)
    notes = escape.html('; '.join(table.notes))
    return (
        f'<table><caption>{escape.html(table.title)}</caption><thead><tr>{head}</tr></thead>\n'
        f'<tbody>{rows}</tbody></table><p>{notes}</p>'
    )


def page(title: str, body: str) -> str:
    """Returns a whole HTML document that needs nothing else."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape.html(title)}</title>'
        f'<style>{STYLE}</style></head><body>\n{body}\n</body></html>'
    )


def _html(table: Table) -> str:
    return page(table.title, html_table(table))


def _latex(table: Table) -> str:
    r"""Needs \usepackage{booktabs}. Marks take no room, so that the digits stay aligned."""
    padding = _padding(table)

    def cell(c: Cell, decimals: int) -> str:
        if c.text == '-':
            return '--'
        text = c.text if c.number else escape.latex(c.text)
        if c.number and text[0] in '+-<>':
            text = f'${text[0]}${text[1:]}'
        text = rf'\textbf{{{text}}}' if c.best else text
        fill = _filled(c, decimals, '0', '.')
        mark = rf'\rlap{{\textsuperscript{{{c.mark}}}}}' if c.mark else ''
        return text + (rf'\phantom{{{fill}}}' if fill else '') + mark

    numbers = [any(row[i].number for row in table.rows) for i in range(len(table.columns))]
    align = ''.join('r' if n else 'l' for n in numbers)
    head = ' & '.join(rf'\textnormal{{{escape.latex(name)}}}' for name in table.columns)
    body = [' & '.join(map(cell, row, padding)) + r' \\' for row in table.rows]
    notes = escape.latex('; '.join(table.notes))
    return '\n'.join(
        [
            f'% {escape.line(table.title)}',
            escape.OTHER_SCRIPT,
            rf'\begin{{tabular}}{{{align}}}',
            r'\toprule',
            head + r' \\',
            r'\midrule',
            *body,
            r'\bottomrule',
            rf'\multicolumn{{{len(numbers)}}}{{l}}{{\footnotesize {notes}}}',
            r'\end{tabular}',
        ]
    )


STYLES: dict[str, Callable[[Table], str]] = {
    'text': _text,
    'markdown': _markdown,
    'csv': _csv,
    'latex': _latex,
    'html': _html,
}
