"""Runs the code of pages of docs/tutorials as a reader would: python -m tests.docs.pages [PAGE...] [--pictures].

Prints what each block prints; with --json, a list of these texts for each page. With --pictures the files that a page
makes replace its pictures in docs/pictures/tutorials.

Bash runs the shell blocks. Its `cvresearch` and `python -m` are small programs that ask this process to run the
command, so that JAX is started once. Blocks in Python share one set of names on each page.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cvresearch.base import cli
from cvresearch.base.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted((ROOT / 'docs/tutorials').glob('*.md'))
PICTURES = ROOT / 'docs/pictures/tutorials'
SHIM = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    line.sendall(json.dumps(dict(program=os.path.basename(sys.argv[0]), argv=sys.argv[1:], cwd=os.getcwd())).encode())
    line.shutdown(socket.SHUT_WR)
    done = json.loads(line.makefile().read())
sys.stdout.write(done['out'])
sys.stderr.write(done['err'])
sys.exit(done['code'])
"""


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
      language: 'bash', 'python' or 'text'.
      code: what is between the fences.
    """

    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page, in order."""
    return [Block(*match) for match in re.findall(r'^```(\w*)\n(.*?)^```$', page.read_text('utf-8'), re.S | re.M)]


def pictures(page: Path) -> list[str]:
    """Returns the names of the pictures that a page makes and shows."""
    return re.findall(r'\]\(\.\./pictures/tutorials/([^)]+)\)', page.read_text(encoding='utf-8'))


def keep(picture: Path, place: Path) -> None:
    """Copies a picture; a PNG with at most 1,200 columns and 256 colours, which a page does not need more of."""
    if picture.suffix == '.png':
        image = Image.open(picture).convert('RGB')
        image.thumbnail((1200, 4000), Image.Resampling.LANCZOS)
        image.quantize(256, dither=Image.Dither.NONE).save(place, optimize=True)
    else:
        shutil.copy(picture, place)


def clone(folder: Path) -> None:
    """Makes a folder look like a clone of this repository in which nothing was run yet."""
    for path in ROOT.iterdir():
        if path.name not in ('runs', '.git'):
            (folder / path.name).symlink_to(path)


def run(page: Path, folder: Path) -> list[str]:
    """Runs the blocks of a page in a folder; returns what each printed, '' of a block of text.

    Raises:
      RuntimeError: a shell block fails; the text is its output.
      Exception: as a Python block raises.
    """
    clone(folder)
    names: dict = {'__name__': '__main__'}
    printed = []
    with contextlib.chdir(folder):
        for block in blocks(page):
            if block.language == 'bash':
                printed.append(_bash(block.code, folder))
            elif block.language == 'python':
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile(block.code, str(page), 'exec'), names)
                printed.append(out.getvalue())
            elif block.language == 'text':
                printed.append('')
            else:
                raise RuntimeError(f'{page}: a block of {block.language or "no language"}; use bash, python or text')
    return printed


def _bash(code: str, folder: Path) -> str:
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as server:
        address = f'{place}/socket'
        server.bind(address)
        server.listen()
        server.settimeout(0.05)
        for name in ('cvresearch', 'python'):
            shim = Path(place, name)
            shim.write_text(SHIM.format(python=sys.executable, address=address), encoding='utf-8')
            shim.chmod(0o755)
        path = os.pathsep.join([place, os.environ['PATH']])
        with tempfile.TemporaryFile('w+', encoding='utf-8') as output:
            process = subprocess.Popen(
                ['bash', '-euo', 'pipefail', '-c', code],
                cwd=folder,
                env=os.environ | {'PATH': path},
                text=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            while process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    _answer(server.accept()[0])
            output.seek(0)
            text = output.read()
    if process.returncode:
        raise RuntimeError(f'exit code {process.returncode} of\n{code}\n{text}')
    return text


def _answer(line: socket.socket) -> None:
    """Runs the command that a shim asks for, and sends back what it printed and its exit code."""
    line.setblocking(True)
    with line, line.makefile() as asked:
        call = json.loads(asked.read())
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(call['cwd']):
            try:
                code = _main(call['program'], call['argv']) or 0
            except UserError as error:
                print(f'error: {error}', file=sys.stderr)
                code = error.code
            except SystemExit as ended:
                code = ended.code or 0
        line.sendall(json.dumps(dict(out=out.getvalue(), err=err.getvalue(), code=code)).encode())


def _main(program: str, argv: list[str]) -> int:
    if program == 'cvresearch':
        return importlib.import_module('cvresearch.cli').main(argv)
    if argv[0] != '-m':
        raise UserError(f'python {argv[0]}: a page runs python -m MODULE alone')
    module = argv[1]
    if importlib.util.find_spec(module).submodule_search_locations:
        module += '.__main__'
    return importlib.import_module(module).main(argv[2:])


def main(argv: list[str]) -> int:
    """Runs pages and prints what they print; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='pages',
        switches=dict(pictures='keep the pictures that pages make', json='print a list of texts for each page'),
    )
    for page in [Path(name).resolve() for name in options.rest] or TUTORIALS:
        with tempfile.TemporaryDirectory() as folder:
            printed = run(page, Path(folder))
            missing = [name for name in pictures(page) if not Path(folder, name).is_file()]
            if missing:
                raise UserError(f'{page.name} shows {missing[0]}, and its commands make no such picture')
            if options.json:
                print(json.dumps(printed))
            else:
                for block, text in zip(blocks(page), printed, strict=True):
                    print(f'----- {page.name}\n{block.code}-----\n{text}')
            for name in pictures(page) if options.pictures else ():
                keep(Path(folder, name), PICTURES / name)
    return 0


if __name__ == '__main__':
    cli.run(main)
