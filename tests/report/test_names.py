"""Names of any characters: LaTeX compiles and prints them, pictures draw them, pages hold no tag of theirs."""

import os
import shutil
import subprocess
import warnings
import xml.etree.ElementTree

import pytest
from matplotlib import pyplot

from cvresearch.base import escape
from cvresearch.base.tables import render
from cvresearch.report import balls, plots, sweep_page
from cvresearch.report.compare import Cell, Table
from cvresearch.report.render import STYLES
from cvresearch.report.runs import RunRecord
from tests.base.test_names import NAMES, Reader

SIZE = 'paperwidth=60cm,paperheight=90cm,margin=1cm'
DOCUMENT = rf'\documentclass{{article}}\usepackage[{SIZE}]{{geometry}}\usepackage{{booktabs}}'


def compiled(tmp_path, *parts):
    """Returns the words of a PDF, or its page alone where no program reads it."""
    if not shutil.which('pdflatex'):
        pytest.skip('LATEX NOT CHECKED: no pdflatex (apt-get install texlive-latex-recommended)')
    text = '\n\n'.join((DOCUMENT, r'\begin{document}', *parts, r'\end{document}'))
    (tmp_path / 'names.tex').write_text(text)
    done = subprocess.run(
        ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'names.tex'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors='replace',
        timeout=120,
        env=os.environ | {'max_print_line': '1000'},
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert 'Missing character' not in (tmp_path / 'names.log').read_text(errors='replace')


def test_latex_of_any_name_compiles(tmp_path):
    rows = [{f'top-1 of {name} (%)': name, 'n': 1} | {'net': name} for name in NAMES]
    default = render([{'test top-1 of each (%)': '98.4', 'a_b': 1}], ('test top-1 of each (%)', 'a_b'), 'latex')
    tables = [render([row], tuple(row), 'latex') for row in rows]
    of_papers = [
        STYLES['latex'](Table(name, ('net', name), ((Cell(name), Cell('+0.1', number=True)),), (name,)))
        for name in NAMES
    ]
    compiled(tmp_path, default, *tables, *of_papers)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('a_b', r'a\_b'),
        ('Café', r'Caf\'{e}'),
        ('Cafe\u0301', r'Caf\'{e}'),
        ('日', r'\otherscript{日}{[U+65E5]}'),
        ('[0]*', '{[}0{]}{*}'),
        ('a--b', 'a-{}-b'),
        ('\\', r'\textbackslash{}'),
        ('<"', r'\textless{}\textquotedblright{}'),
    ],
)
def test_latex_of_a_name(name, text):
    assert escape.latex(name) == text


def drawn(tmp_path, draw):
    """Writes a picture in three formats; returns the texts of the SVG, which must be XML."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for end in ('png', 'pdf', 'svg'):
            plots.saved(draw, tmp_path / f'a.{end}')
    texts = [node.text for node in xml.etree.ElementTree.parse(tmp_path / 'a.svg').iter() if node.tag.endswith('text')]
    return [' '.join((text or '').split()) for text in texts]


def test_pictures_show_any_name(tmp_path, capsys):
    names = [name for name in NAMES if name.strip()]
    shown = {' '.join(escape.line(name).split()) for name in names}
    rows = [{'split': 'test', 'epoch': float(e), 'top1': 90.0 + e} for e in range(3)]
    assert shown <= set(drawn(tmp_path, lambda axes: plots.curves(axes, {name: [rows] for name in names})))
    trials = [{name: name for name in names} | {'top1': 1.0}, dict.fromkeys(names, 'b') | {'top1': 2.0}]
    texts = drawn(tmp_path, lambda axes: plots.parallel(axes, trials, names))
    assert all(sum(text == name for text in texts) >= 1 + ('.' not in name) for name in shown)
    points = [dict(name=name, family='a', top1=50.0 + i, macs=10, params=10) for i, name in enumerate(names)]
    assert shown <= set(drawn(tmp_path, lambda axes: balls.draw(axes, points)))


def test_a_page_of_a_sweep_has_no_tag_of_a_name(monkeypatch, smoke):
    config = smoke()
    name = '<script>alert("$1")</script>'
    runs = [RunRecord(f'{name}{i}', {'model.name': name, 'seed': i}, {'command': name}, [], config) for i in range(2)]
    monkeypatch.setattr(sweep_page, 'of_folders', lambda folders: runs)
    assert 'script' not in Reader(sweep_page.page(name)).tags


POINTS = [
    dict(
        name=f'a_net_with_a_long_name_{i}',
        family='a',
        top1=50.0 + i,
        macs=10.0**i,
        params=10**i,
        series=f'series {i % 3}',
    )
    for i in range(8)
]


@pytest.mark.parametrize('name', ['short', 'a name of eighty characters ' * 3])
@pytest.mark.parametrize('size', [(3.4, 2.4), (2.0, 2.0), (7.0, 4.0)])
def test_names_of_balls_stay_inside_the_frame(name, size):
    with pyplot.rc_context(plots.PAPER):
        figure, axes = pyplot.subplots(figsize=size)
        balls.draw(axes, [*POINTS, POINTS[-1] | {'name': name}])
        figure.canvas.draw()
        frame, page = axes.get_window_extent().padded(0.5), figure.bbox.padded(0.5)
        boxes = [text.get_window_extent() for text in axes.texts]
        legend = axes.get_legend().get_window_extent()
        pyplot.close(figure)
    assert len(boxes) == 10
    for box in boxes:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    assert page.y0 <= legend.y0 and legend.y1 <= page.y1 and not legend.overlaps(axes.get_window_extent().padded(-1))


def test_names_that_have_room_cover_nothing():
    with pyplot.rc_context(plots.PAPER):
        figure, axes = pyplot.subplots(figsize=(7, 4))
        balls.draw(axes, POINTS)
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in axes.texts]
        pyplot.close(figure)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
