"""Notebooks are made of pages, so that the test that runs a page runs its notebook."""

import json

import pytest

from cvresearch.base.errors import UserError
from tests.docs import notebook, pages

NOTEBOOKS = sorted((pages.ROOT / 'docs/tutorials').glob('*.ipynb'))


def test_there_is_one():
    assert [file.stem for file in NOTEBOOKS] == ['look_inside']


@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_made_of_its_page_and_has_its_code(file):
    page = file.with_suffix('.md')
    assert notebook.main([str(page), '--check']) == 0
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
