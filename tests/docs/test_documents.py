"""Each block of code of each document is run: here, or where `documents.ELSEWHERE` says."""

import os
import re
import subprocess
import sys

import pytest

from tests import environment
from tests.docs import documents, pages

BLOCKS = [(document, block) for document in documents.DOCUMENTS for block in pages.blocks(document)]
RUN = sorted(
    {document for document, block in BLOCKS if block.language != 'text' and not documents.excused(document, block)}
)
ALONE = ('sweeps', 'recipes', 'observing')  # Python without a net


def test_each_block_has_a_language_and_each_excuse_a_block():
    assert {block.language for _, block in BLOCKS} <= {'bash', 'python', 'text'}
    assert not [
        part
        for part in documents.ELSEWHERE
        if not any(part in block.code or part == page.name for page, block in BLOCKS)
    ]


def test_files_that_excuses_name_exist():
    named = [name for why in documents.ELSEWHERE.values() for name in re.findall(r'(?:tests|docs|launch)/[\w./]+', why)]
    assert len(named) > 10 and not [name for name in named if not list(pages.ROOT.glob(f'{name.rstrip("./")}*'))]


@pytest.mark.slow
@pytest.mark.parametrize('document', RUN, ids=lambda document: document.stem)
def test_blocks_run(document):
    one_device = os.environ | {'XLA_FLAGS': environment.xla_flags()}  # as a reader has
    command = [sys.executable, '-m', 'tests.docs.documents', str(document)]
    done = subprocess.run(command, cwd=pages.ROOT, env=one_device, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'blocks ran' in done.stdout


@pytest.mark.parametrize('name', ALONE)
def test_python_without_a_net_runs(name):
    document = pages.ROOT / f'docs/{name}.md'
    names = {'c': documents.config()}
    for language, code in pages.blocks(document):
        if language == 'python':
            exec(compile(code, str(document), 'exec'), names)


def test_a_block_that_fails_is_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('```python\nnot_there\n```\n')
    (tmp_path / 'clone').mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, 'scene', lambda folder, runs: None)
        patch.setattr(pages, '_main', pages._main)
        with pytest.raises(NameError, match='not_there'):
            documents.run(page, tmp_path / 'clone')
