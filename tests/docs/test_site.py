"""The site: built without warnings and without a network, every page within reach and with a next step."""

import json
import os
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


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_a_page_ends_in_a_next_step(page):
    text = page.read_text(encoding='utf-8')
    following = re.split(r'^#+ ', text.partition('\n## Next\n')[2], flags=re.M)[0]
    assert page == DOCS / 'index.md' or re.search(r'^- .*\]\((?!#).*\)', following, re.M), f'{page} leads nowhere'


def howtos():
    """Returns the pages that mkdocs.yml has under "How to", those for people from other libraries left out."""
    shelf = re.search(r'- How to:\n(.*?)\n  - ', Path('mkdocs.yml').read_text(encoding='utf-8'), re.S)[1]
    return [DOCS / name for name in re.findall(r': (\S+\.md)', shelf) if not name.startswith('coming_from/')]


@pytest.mark.parametrize('page', howtos(), ids=str)
def test_a_howto_begins_with_a_command(page):
    before, fence, after = page.read_text(encoding='utf-8').partition('\n```')
    assert fence and after.startswith('bash\n') and before.count('\n') < 12


def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path / 'site')]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {'NO_MKDOCS_2_WARNING': '1'})
    assert done.returncode == 0 and 'WARNING' not in done.stderr, done.stderr
    pages = list((tmp_path / 'site').rglob('*.html'))
    assert len(pages) > len(PAGES)
    fetched = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="https?://(?!github)[^"]*"')
    assert not [path for path in pages if [tag for tag in fetched.findall(path.read_text()) if 'canonical' not in tag]]
    check_links(tmp_path / 'site')
    entries = json.loads((tmp_path / 'site/search/search_index.json').read_text())['docs']
    found = {entry['location'] for entry in entries if 'discriminative' in entry['text'] + entry['title']}
    assert any(place.startswith('transfer/') for place in found)


def check_links(site):
    """Fails unless each link and picture of a site's pages leads to a file of the site, and each anchor to an id."""
    ids = {page: set(re.findall(r' id="([^"]+)"', page.read_text())) for page in site.rglob('*.html')}
    for page in ids.keys() - {site / '404.html'}:  # whose links are absolute
        for target in re.findall(r'(?:href|src)="(?!https?:|data:|mailto:|javascript:)([^"]+)"', page.read_text()):
            name, _, anchor = target.partition('#')
            path = (page.parent / name.partition('?')[0]).resolve() if name else page
            path = path / 'index.html' if path.is_dir() else path
            assert path.exists(), f'{page.relative_to(site)}: {target}'
            assert not anchor or path not in ids or anchor in ids[path] or 'codelineno' in anchor, (
                f'{page.relative_to(site)}: {target}'
            )


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / 'a.html').write_text('<a href="b.html#x">')
    (tmp_path / 'b.html').write_text('<p id="y">')
    with pytest.raises(AssertionError, match=r'b\.html#x'):
        check_links(tmp_path)
