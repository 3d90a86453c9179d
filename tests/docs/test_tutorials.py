"""Each tutorial is run as a reader would run it, prints what it says, and ends in a picture or a table."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests import environment
from tests.docs import pages


def masked(text):
    """Returns lines without their numbers, which differ between processors, and without rules and wide gaps."""
    lines = (re.sub(r'(?<![\w-])\d[\d.,]*', '#', line) for line in text.splitlines())
    return [' '.join(line.split()) for line in lines if line.strip() and set(line) != {'-'}]


def missing(shown, printed):
    """Returns the lines of a block of text that a page's commands did not print in this order; '...' is any."""
    left = iter(masked(printed))
    return [line for line in masked(shown) if line != '...' and line not in left]


@pytest.mark.parametrize('page', pages.TUTORIALS, ids=lambda page: page.stem)
def test_every_block_runs_and_prints_what_the_page_says(page):
    one_device = os.environ | {'XLA_FLAGS': environment.xla_flags()}  # as a reader has
    command = [sys.executable, '-m', 'tests.docs.pages', '--json', str(page)]
    done = subprocess.run(command, cwd=pages.ROOT, env=one_device, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = ''
    for block, text in zip(pages.blocks(page), json.loads(done.stdout.splitlines()[-1]), strict=True):
        if block.language == 'text':
            assert not missing(block.code, printed), printed
        else:
            printed = text


@pytest.mark.parametrize('page', pages.TUTORIALS, ids=lambda page: page.stem)
def test_a_page_ends_in_a_picture_or_a_table_and_a_next_step(page):
    following = page.read_text().partition('## Next')[2]
    tables = [code for language, code in pages.blocks(page) if language == 'text' and len(masked(code)) > 1]
    assert all((pages.PICTURES / name).stat().st_size > 1_000 for name in pages.pictures(page))
    assert pages.pictures(page) or tables
    assert '](' in following and '```' not in following


def test_a_block_that_fails_or_prints_something_else_is_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('```bash\ncvresearch trian\n```\n')
    (tmp_path / 'clone').mkdir()
    with pytest.raises(RuntimeError, match='did you mean train'):
        pages.run(page, tmp_path / 'clone')
    assert missing('top-1 95.2\n', 'step 3\ntop-1  94.9\n') == []
    assert missing('top-5 95.2\n', 'top-1 95.2\n') and missing('b\na\n', 'a\nb\n')
