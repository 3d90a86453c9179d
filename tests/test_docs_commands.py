"""Every command printed in README and docs: bash expands it, its program takes it, its experiment loads.

Bash reads each block with `python`, `pytest` and the rest replaced by functions that write down their arguments, so
that loops, variables, globs and quotes are as a reader's shell has them. Commands of seconds are run.
"""

import importlib
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cvresearch.base import cli, plugins
from cvresearch.base import config as configs
from tests import reference

ROOT = Path(__file__).parent.parent
# Tutorials are run as a whole by tests/docs/test_tutorials.py.
PAGES = (path for path in sorted(Path('docs').glob('**/*.md')) if 'tutorials' not in path.parts)
DOCUMENTS = [Path('README.md'), Path('WORKSPACE.md'), Path('CONTRIBUTING.md'), *PAGES]
STUBS = """
note() { printf '%s\\0' "$@" >> COMMANDS; printf '\\n\\0' >> COMMANDS; }
python() {
  note python "$@"; [ "$1" != -c ] || { echo site; return; }
  while [ $# -gt 0 ]; do [ "$1" != --workdir ] || mkdir -p "$2"; shift; done
}
cvresearch() { note cvresearch "$@"; }
.venv/bin/python() { note python "$@"; }
python3() { note python "$@"; }; .venv/bin/pip() { note pip "$@"; }; pip() { note pip "$@"; }
pytest() { note pytest "$@"; }; ruff() { note ruff "$@"; }; pre-commit() { note pre-commit "$@"; }
set -eu
"""
QUICK = re.compile(
    r'launch\.sweep .*(--dry-run|--status)|(cvresearch\.(report\.(tables|figures)|inspect\.summary)|launch\.report) '
)
OTHERS = ('tests.stamps', 'tests.peers.', 'tests.engine.mesh_curves', 'venv', 'pytest')  # parse arguments themselves


class ParsedError(Exception):
    """A program has read its command line, and is not to go on."""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder as a reader's: the repository, some runs that were trained, and weights that were measured."""
    for path in ROOT.iterdir():
        if path.name not in ('runs', '.git'):
            (tmp_path / path.name).symlink_to(path)
    for name, seed in (('lenet5_mnist5k', 0), ('sweep/seed=0', 0), ('sweep/seed=1', 1)):
        shutil.copytree(ROOT / f'docs/records/lenet5_mnist5k_seed{seed}', tmp_path / 'runs' / name)
    (tmp_path / 'runs' / 'sweep.json').write_text('{}')
    evaluation = dict(
        net='net', model='resnet50', reference='torchvision/resnet50', digest='0', data='imagenet', split='test',
        protocol='centre', resolution=224, top1=76.1, top5=92.9, n_seen=50_000,
    )  # fmt: skip
    (tmp_path / 'measured/resnet50').mkdir(parents=True)
    (tmp_path / 'measured/resnet50/evaluation.json').write_text(json.dumps(evaluation))
    (tmp_path / 'my_lab').mkdir()
    document = (ROOT / 'docs/own_images.md').read_text()
    example = re.search(r'<!-- plugin example -->\n```python\n(.*?)```', document, re.S)
    (tmp_path / 'my_lab/nets.py').write_text(example[1])
    monkeypatch.setattr(plugins, '_LOADED', {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(path):
    """Returns the shell blocks of a document, and the commands within its sentences as one."""
    text = (ROOT / path).read_text()
    sentences = re.sub(r'```.*?```|<!--.*?-->', '', text, flags=re.S)
    inline = [' '.join(match.split()) for match in re.findall(r'`(python -m [^`]*)`', sentences)]
    # What a reader fills in.
    inline = [re.sub(r'\[|\]|\.\.\.', '', command) for command in inline if '>>' not in command]
    return [*re.findall(r'```(?:bash|sh|console)\n(.*?)```', text, re.S), '\n'.join(inline)]


def expanded(block, folder):
    """Returns the commands of a block as bash runs them, each a list of words."""
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


PARSE = cli.parse


def check(words, monkeypatch):
    """Fails if a command would be refused: an unknown module, flag, file, experiment or key."""
    program, *rest = words
    if program == 'pytest':
        files = [word for i, word in enumerate(rest) if not word.startswith('-') and rest[i - 1] != '-m']
        assert all(Path(word).exists() for word in files if word), words
        return
    if program == 'cvresearch':
        verb = max((words for words in reference.commands() if words.split() == rest[: len(words.split())]), key=len)
        program, rest = 'python', ['-m', reference.commands()[verb], *rest[len(verb.split()) :]]
    if program != 'python' or rest[0] == '-c':
        return
    if rest[0] != '-m':
        assert Path(rest[0]).is_file(), words
        return
    module, argv = rest[1], rest[2:]
    assert importlib.util.find_spec(module), words
    if module.startswith(OTHERS):
        return
    main = importlib.import_module(module).main
    if QUICK.search(' '.join([module, *argv, ''])) and not {'FILE.svg', 'FILE', 'DIR'} & set(argv):
        assert main(argv) == 0, words
        return
    with monkeypatch.context() as patch, pytest.raises(ParsedError):
        patch.setattr(cli, 'parse', checked_parse)
        main(argv)


@pytest.mark.parametrize('path', DOCUMENTS, ids=str)
def test_commands_are_ones_that_the_programs_take(path, clone, monkeypatch, capsys):
    for block in blocks(path):
        for words in expanded(block, clone):
            check(words, monkeypatch)


@pytest.mark.parametrize(
    'command',
    [
        'python -m cvresearch.nowhere', 'cvresearch nowhere', 'cvresearch train --lr 1',
        'python -m cvresearch.main --config configs/none.py --workdir DIR',
        'python -m cvresearch.main --config configs/lenet5_mnist5k.py --workdir DIR --config.lr=1',
        'python -m cvresearch.evaluate --workdirs DIR', 'python tests/nothing.py', 'pytest tests/nothing.py',
        'cvresearch report tables docs/tables/digits.toml --runs docs/records/*',
    ],
)  # fmt: skip
def test_a_command_that_fails_is_found(command, clone, monkeypatch, capsys):
    (words,) = expanded(command, clone)
    with pytest.raises((AssertionError, ValueError, cli.UserError, ModuleNotFoundError)):
        check(words, monkeypatch)
