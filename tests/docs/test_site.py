"""The site: built without warnings and without a network, every page within reach and with a next step."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path('docs')
PAGES = sorted(path for path in DOCS.rglob('*.md'))


def test_every_page_is_in_the_index_and_in_the_navigation():
    index, navigation = (DOCS / 'index.md').read_text(), Path('mkdocs.yml').read_text(encoding='utf-8')
    for page in PAGES:
        name = str(page.relative_to(DOCS))
        assert f': {name}' in navigation, f'{name} is not in the navigation of mkdocs.yml'
        assert name == 'index.md' or f']({name})' in index, f'docs/index.md has no link to {name}'


def test_anchors_of_links_are_headings():
    for page in [Path('README.md'), *PAGES]:
        for target, anchor in re.findall(r'\]\((?!https?:)([^)#]*)#([^)]+)\)', page.read_text()):
            path = page.parent / target if target else page
            headings = re.findall(r'^#+ (.*)$', path.read_text(), re.M)
            slugs = [re.sub(r'[^\w\- ]', '', heading).strip().lower().replace(' ', '-') for heading in headings]
            assert anchor in slugs, f'{page}: {target}#{anchor}'


@pytest.mark.skipif(not importlib.util.find_spec('material'), reason="the site needs pip install 'cvresearch[docs]'")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path / 'site')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / 'site').rglob('*.html'))
    assert len(pages) > len(PAGES) and (tmp_path / 'site/search/search_index.json').exists()
    fetched = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="https?://(?!github)[^"]*"')
    assert not [path for path in pages if [tag for tag in fetched.findall(path.read_text()) if 'canonical' not in tag]]
