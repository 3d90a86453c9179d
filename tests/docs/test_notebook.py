"""Notebooks are made of pages, and run from their first cell to their last."""

import json
import os
import subprocess
import sys

import pytest

from cvresearch.base.errors import UserError
from tests import environment
from tests.docs import notebook, pages

NOTEBOOKS = [page.with_suffix('.ipynb') for page in pages.TUTORIALS]
CHEAP = 'ship_it'  # the others have the mark "slow"


@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_made_of_its_page_and_has_its_code(file):
    page = file.with_suffix('.md')
    assert notebook.main([str(page), '--check']) == 0
    assert file.stat().st_size < 40_000 and page.read_text().count(f']({file.name})') == 1
    assert notebook.blocks(file) == [block for block in pages.blocks(page) if block.language != 'text']
    cells = json.loads(file.read_text())['cells']
    assert len({cell['id'] for cell in cells}) == len(cells)


def test_a_page_that_has_changed_is_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# A\n\n```bash\nls\n```\n\nb\n\n```python\n1\n```\n\n```text\n1\n```\n')
    notebook.main([str(page)])
    kinds = [cell['cell_type'] for cell in json.loads((tmp_path / 'page.ipynb').read_text())['cells']]
    assert kinds == ['markdown', 'code', 'code', 'markdown', 'code', 'markdown']
    page.write_text(page.read_text().replace('ls', 'pwd'))
    with pytest.raises(UserError, match=r'page.ipynb is not made of .*page.md as it is'):
        notebook.main([str(page), '--check'])


@pytest.mark.parametrize(
    'file',
    [pytest.param(file, marks=() if file.stem == CHEAP else pytest.mark.slow, id=file.stem) for file in NOTEBOOKS],
)
def test_a_notebook_runs(file):
    one_device = os.environ | {'XLA_FLAGS': environment.xla_flags()}  # as a reader has
    command = [sys.executable, '-m', 'tests.docs.notebook', '--run', str(file.with_suffix('.md'))]
    done = subprocess.run(command, cwd=pages.ROOT, env=one_device, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'ran in' in done.stdout
