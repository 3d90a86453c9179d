"""Tables in four styles from the same rows."""

from cvresearch.base.tables import render

ROWS = [dict(name='a_b', params=1234, ok=None), dict(name='c|d', params=5, ok='50 %')]
COLUMNS = ('name', 'params', 'ok')


def test_text_aligns_numbers():
    assert render(ROWS, COLUMNS).splitlines()[2:] == ['a_b    1,234  -', 'c|d        5  50 %']


def test_markdown_escapes():
    assert render(ROWS, COLUMNS, 'markdown').splitlines()[1:] == [
        '| --- | ---: | --- |',
        r'| a_b | 1,234 | - |',
        r'| c\|d | 5 | 50 % |',
    ]


def test_csv_has_bare_numbers():
    assert render(ROWS, COLUMNS, 'csv') == 'name,params,ok\na_b,1234,\nc|d,5,50 %'


def test_latex_escapes():
    assert r'a\_b & 1,234 & - \\' in render(ROWS, COLUMNS, 'latex')
    assert r'50 \%' in render(ROWS, COLUMNS, 'latex')
