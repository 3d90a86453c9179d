"""Commands that documents print, as a reader's shell has them, and whether the programs take them.

    python -m tests.printed REVISION    prints each command in the documents of a revision, for tests/printed_before.txt

Bash reads each block with `python`, `pytest` and the rest replaced by functions that write down their arguments, so
that loops, variables, globs and quotes are as in a reader's shell.
"""

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from cvresearch import cli as verbs
from cvresearch.base import cli
from cvresearch.base import config as configs

STUBS = """
note() { printf '%s\\0' "$@" >> COMMANDS; printf '\\n\\0' >> COMMANDS; }
python() {
  note python "$@"; [ "$1" != -c ] || { echo site; return; }
  workdir "$@"
}
workdir() { while [ $# -gt 0 ]; do [ "$1" != --workdir ] || mkdir -p "$2"; shift; done; }
cvresearch() { note cvresearch "$@"; workdir "$@"; }
.venv/bin/python() { note python "$@"; }
python3() { note python "$@"; }; .venv/bin/pip() { note pip "$@"; }; pip() { note pip "$@"; }
pytest() { note pytest "$@"; }; ruff() { note ruff "$@"; }; pre-commit() { note pre-commit "$@"; }
basedpyright() { note basedpyright "$@"; }; tensorboard() { note tensorboard "$@"; }
mkdocs() { note mkdocs "$@"; }; source() { :; }; cp() { :; }; apt-get() { note apt-get "$@"; }
set -eu
"""
QUICK = re.compile(
    r'(launch\.|cvresearch )sweep .*(--dry-run|--status)|launch\.report |cvresearch summary |'
    r'cvresearch report (tables|plots|sweep) '
)
PLACEHOLDERS = {'FILE.svg', 'FILE', 'DIR', 'NAME'}
# These parse arguments themselves.
OTHERS = ('tests.stamps', 'tests.peers.', 'tests.reference', 'tests.engine.mesh_curves', 'venv', 'pytest')
PARSE = cli.parse


class ParsedError(Exception):
    """A program has read its command line, and is not to go on."""


def blocks(text: str) -> list[str]:
    """Returns the shell blocks of a document, and the commands within its sentences as one."""
    sentences = re.sub(r'```.*?```|<!--.*?-->', '', text, flags=re.S)
    inline = [' '.join(match.split()) for match in re.findall(r'`(python -m [^`]*)`', sentences)]
    # What a reader fills in.
    inline = [re.sub(r'\[|\]|\.\.\.', '', command) for command in inline if '>>' not in command]
    return [*re.findall(r'```(?:bash|sh|console)\n(.*?)```', text, re.S), '\n'.join(inline)]


def expanded(block: str, folder: Path) -> list[list[str]]:
    """Returns the commands of a block as bash runs them in a folder, each a list of words."""
    log = folder / 'COMMANDS'
    log.write_text('')
    done = subprocess.run(['bash', '-c', STUBS + block], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f'{done.stderr}\nin\n{block}'
    return [command.strip('\0').split('\0') for command in log.read_text().split('\0\n\0') if command.strip('\0')]


def checked_parse(argv, *arguments, **options):
    """Parses as the program does, and stops there, once the experiment that is named loads."""
    found = PARSE(argv, *arguments, **options)
    if getattr(found, 'config', None) and found.config != 'CONFIG':
        configs.load(found.config, found.overrides)
    raise ParsedError


def check(words: Sequence[str], monkeypatch: pytest.MonkeyPatch, run: bool = True) -> None:
    """Fails if a command would be refused: an unknown module, flag, file, experiment or key.

    Args:
      words: the command.
      monkeypatch: pytest's.
      run: commands of seconds are run rather than parsed.
    """
    program, *rest = words
    if program == 'pytest':
        files = [word for i, word in enumerate(rest) if not word.startswith('-') and rest[i - 1] != '-m']
        assert all(Path(word).exists() for word in files if word), words
        return
    if program == 'python' and rest[0] == '-m':
        spec = importlib.util.find_spec(rest[1])
        assert spec, words
        if rest[1].startswith('cvresearch') and spec.submodule_search_locations:  # a room's name is the first word
            program, rest = 'cvresearch', [*rest[1].split('.')[1:], *rest[2:]]
    if program == 'python' and rest[0] not in ('-c', '-m'):
        assert Path(rest[0]).is_file(), words
    if program == 'cvresearch':
        main, argv = verbs.main, rest
    elif program == 'python' and rest[0] == '-m':
        module, argv = rest[1], rest[2:]
        if module.startswith(OTHERS):
            return
        main = importlib.import_module(module).main
    else:
        return
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'argv', sys.argv)  # which `cvresearch` sets
        if run and QUICK.search(f'{" ".join(words)} ') and not PLACEHOLDERS & set(argv):
            assert main(argv) == 0, words
            return
        patch.setattr(cli, 'parse', checked_parse)
        with pytest.raises(ParsedError):
            main(argv)


def of_revision(revision: str) -> dict[str, str]:
    """Returns {command: document} of README and docs of a revision, comments of generated tables included."""
    git = lambda *words: subprocess.run(['git', *words], capture_output=True, text=True, check=True).stdout  # noqa: E731
    found: dict[str, str] = {}
    for name in git('ls-tree', '-r', '--name-only', revision).splitlines():
        if not re.fullmatch(r'(docs/.*|README|WORKSPACE|CONTRIBUTING)\.md', name):
            continue
        # What a page left out after its first command.
        text = git('show', f'{revision}:{name}').replace('sweep ... ', 'sweep --config CONFIG --workdir DIR ')
        tables = re.findall(r'<!-- generated by: (.*?) -->', text)
        for block in [*blocks(text), *tables]:
            block = re.sub(r'\[(--[\w ]+)\]', r'\1', re.sub(r'^\.\.\.$|>> .*', '', block, flags=re.M))
            with tempfile.TemporaryDirectory() as folder:
                for words in expanded(block, Path(folder)):
                    # A pattern stays one, for the shell of whoever runs the list.
                    quoted = [word if re.fullmatch(r'[\w./*\[\]-]+', word) else shlex.quote(word) for word in words]
                    found.setdefault(' '.join(quoted), name)
    return found


def main(argv: list[str]) -> int:
    """Prints the commands of a revision; returns the exit code."""
    options = cli.parse(argv, __doc__, required=(), positional='revision')
    print(*of_revision(options.rest[0]), sep='\n')
    return 0


if __name__ == '__main__':
    cli.run(main)
