"""Makes a notebook of a page of docs/tutorials: python -m tests.docs.notebook PAGE.md... [--check] [--run].

The text becomes Markdown cells, each block in Python a cell of code, each block of the shell a cell of %%bash. With
--check nothing is written, and a notebook that is not made of its page as it is now is an error. With --run nothing is
written either: each notebook is run from its first cell to its last by Jupyter's own kernel, in a folder like a clone.
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from cvresearch.base import cli
from cvresearch.base.errors import UserError
from cvresearch.base.workdir import write_atomically
from tests.docs import pages
from tests.docs.pages import Block

FENCE = re.compile(r'^```(\w*)\n(.*?)^```\n?', re.S | re.M)
LARGEST = 400_000  # bytes of a notebook with its outputs
BEGIN = '%matplotlib inline'  # shows the figure that a cell ends in


def notebook(page: Path) -> str:
    """Returns the notebook of a page, as nbformat 4.5."""
    link = rf'\s+The\s+page\s+is\s+also\s+\[a\s+notebook\]\({page.stem}\.ipynb\)\.'
    cells, text, end = [], re.sub(link, '', page.read_text()), 0
    for match in FENCE.finditer(text):
        cells += [_cell('markdown', text[end : match.start()])]
        language, code = match.groups()
        if language == 'text':
            cells += [_cell('markdown', match[0])]
        else:
            cells += [_cell('code', f'%%bash\n{code}' if language == 'bash' else code)]
        end = match.end()
    cells += [_cell('markdown', text[end:])]
    cells.insert(1, _cell('code', BEGIN))
    kept = [cell for cell in cells if cell['source']]
    for number, cell in enumerate(kept):
        cell['id'] = f'cell-{number}'
    kernel = dict(display_name='Python 3', language='python', name='python3')
    made = dict(cells=kept, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    return json.dumps(made, indent=1, ensure_ascii=False) + '\n'


def blocks(file: Path) -> list[Block]:
    """Returns the code of a notebook as the blocks of a page."""
    found = []
    for cell in json.loads(file.read_text())['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'code' and source != BEGIN:
            code = source.removeprefix('%%bash\n')
            found.append(Block('bash' if code != source else 'python', f'{code}\n'))
    return found


def executed(file: Path, folder: Path) -> str:
    """Returns a notebook with its outputs, run in a folder that becomes like a clone of this repository.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell fails; the text has its code and its output.
    """
    import nbclient
    import nbformat

    pages.clone(folder)
    os.environ |= {
        'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),  # of this Python, for %%bash
        'PYTHONPATH': str(pages.ROOT),
        'IPYTHONDIR': f'{folder}/.ipython',
        'JUPYTER_RUNTIME_DIR': f'{folder}/.jupyter',
    }
    notebook = nbformat.read(file, as_version=4)
    resources = {'metadata': {'path': str(folder)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3', resources=resources).execute()
    return nbformat.writes(notebook)


def _cell(kind: str, text: str) -> dict:
    source = text.strip('\n').splitlines(keepends=True)
    code = dict(execution_count=None, outputs=[]) if kind == 'code' else {}
    return dict(cell_type=kind, id='', metadata={}, source=source, **code)


def main(argv: list[str]) -> int:
    """Writes or checks notebooks; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='pages',
        switches=dict(check='compare, and write nothing', run='run the notebooks, and write nothing'),
    )
    for page in map(Path, options.rest):
        file, made = page.with_suffix('.ipynb'), notebook(page)
        if options.run:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                size = len(executed(file, Path(folder)))
            if size > LARGEST:
                raise UserError(f'{file} with its outputs has {size:,} bytes, more than {LARGEST:,}')
            print(f'{file.name}: ran in {time.monotonic() - began:.0f} s; {size:,} bytes with outputs')
        elif not options.check:
            write_atomically(file, made)
        elif not file.exists() or file.read_text() != made:
            raise UserError(f'{file} is not made of {page} as it is; run python -m tests.docs.notebook {page}')
    return 0


if __name__ == '__main__':
    cli.run(main)
