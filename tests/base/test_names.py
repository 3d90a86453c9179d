"""Paths as users write them, and names of any characters as each reader of a format gets them back."""

import csv
import html.parser
import io
import os
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from cvresearch.base import cli, escape, paths, tables
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.base.workdir import claim
from cvresearch.data import locations
from cvresearch.evaluation.runs import Run
from cvresearch.interop import weight_files

NAMES = (
    'a_b',
    '_a_',
    '__init__',
    '*a*',
    'a|b',
    '`x`',
    '<b>x</b>',
    '<script>alert(1)</script>',
    '&amp; x',
    '[a](b)',
    'a\\b',
    'a\\*b',
    '~~x~~',
    '$x$',
    '50 % & more',
    '# h',
    '{x}',
    'x^2',
    '"q"',
    "it's",
    'Café',
    '日本',
    '🎉',
    'a\nb',
    'a\tb',
    '[0]',
    '*',
    '--x',
    '=1+1',
    '@x',
    '+x',
    '-x',
    'a,b',
    '%',
    '\\',
    '$',
    "?`!`''",
    'ﬁ',
    'e\u0301',
    '\udcff.jpg',
    '\x01',
    '\u202eevil',
    ' x ',
    '',
)


def test_home_folders_are_expanded_and_other_names_left(monkeypatch):
    monkeypatch.setenv('HOME', '/home/ada')
    assert paths.local('~/x') == Path('/home/ada/x') and paths.local('~root/x') == Path(os.path.expanduser('~root/x'))
    assert paths.local(paths.local('./~')) == Path('~').absolute()
    for name in ('a~b', 'mixup=0,label_smoothing=0', '日本 $x', 'a:b/c'):
        assert paths.local(name) == Path(name)


@pytest.mark.parametrize(
    'text', ['gs://b/x', 'S3://b', 'file:///x', 'https://a/b', 'hdfs://x/y', 'az+x://a', '~nobody-here/x']
)
def test_what_is_no_path_of_this_machine_is_refused_before_anything_is_made(text, tmp_path, monkeypatch, smoke):
    config = smoke()
    monkeypatch.chdir(tmp_path)
    uses = [
        lambda: claim(text, config).__enter__(),
        lambda: weight_files.read(text),
        lambda: configs.load(f'{text}/x.py:smoke'),
        lambda: cli.parse(['--out', text], '', places=('out',), out=''),
        lambda: cli.parse(['--runs', 'a', '--runs', text], '', places=('runs',), repeated=('runs',), runs=''),
    ]
    if not paths.is_bucket(text):  # runs and data in a bucket are read
        uses += [lambda: Run.open(text), lambda: locations.places('mnist', text)]
    for use in uses:
        with pytest.raises(UserError, match=r'this machine|no user') as error:
            use()
        assert '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_path_object_has_lost_a_slash_and_is_refused_all_the_same():
    with pytest.raises(UserError, match='buckets'):
        paths.local(Path('gs://bucket/x'))


def test_a_comma_is_part_of_a_name_unless_all_parts_are_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a', 'b', 'mixup=0,label_smoothing=0', 'mixup=0', 'label_smoothing=0'):
        (tmp_path / name).mkdir()
    assert paths.listed(['mixup=0,label_smoothing=0', 'a,b', 'a,c'], '--control') == [
        Path('mixup=0,label_smoothing=0'),
        Path('a'),
        Path('b'),
        Path('a,c'),
    ]


def test_the_same_place_is_found_by_link_and_by_another_way_to_it(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'link').symlink_to('a')
    given = [tmp_path / 'a', tmp_path / 'b', tmp_path / 'link', tmp_path / 'b' / '..' / 'a']
    assert paths.once(given) == (given[:2], given[2:])


def test_a_folder_of_experiments_may_have_a_colon_in_its_name(tmp_path):
    folder = tmp_path / 'lab: new'
    folder.mkdir()
    text = 'from ml_collections import ConfigDict\ndef get_config(arg): return ConfigDict(dict(a=arg))\n'
    (folder / 'x.py').write_text(text)
    assert configs.load(f'{folder}/x.py:p,q').a == 'p,q' and configs.load(f'{folder}/x.py').a == ''


@pytest.mark.parametrize('name', NAMES)
def test_markdown_gives_back_the_name(name):
    text = tables.render([{'net': name, 'n': 1}], ('net', 'n'), 'markdown')
    reader = MarkdownIt('commonmark').enable(['table', 'strikethrough'])
    cells = [token.children for token in reader.parse(text) if token.type == 'inline']
    assert all(child.type in ('text', 'text_special') for child in cells[2])
    assert ''.join(child.content for child in cells[2]) == escape.line(name).strip() and len(cells) == 4


@pytest.mark.parametrize('name', NAMES)
def test_csv_gives_back_the_name_and_no_formula(name):
    out = tables.render([{'net': name, 'x': '-0.5'}], ('net', 'x'), 'csv').encode().decode()
    head, row = csv.reader(io.StringIO(out))
    assert head == ['net', 'x'] and row[1] == '-0.5' and row[0].lstrip("'")[:1] == escape.csv(name).lstrip("'")[:1]
    assert row[0][:1] not in ('=', '+', '-', '@')
    if name.isprintable() and name[:1] not in ('=', '+', '-', '@'):
        assert row[0] == name


class Reader(html.parser.HTMLParser):
    """Keeps the tags and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize('name', NAMES)
def test_html_gives_back_the_name_and_no_tag(name):
    read = Reader(tables.render([{'net': name}], ('net',), 'html').encode().decode())
    assert read.tags == ['table', 'thead', 'tr', 'th', 'tbody', 'tr', 'td']
    assert escape.line(name) in ''.join(read.texts)


def test_what_no_file_can_hold_shows_its_number():
    assert escape.line('\udcff\x01a\r\nb\u202e') == '\\xff\\x01a b\\u202e'
