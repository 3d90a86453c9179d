"""Every command printed in README and docs: bash expands it, its program takes it, its experiment loads.

Commands of seconds are run.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from cvresearch.base import cli, plugins
from tests import printed, reference

ROOT = Path(__file__).parent.parent
# Tutorials are run as a whole by tests/docs/test_tutorials.py.
PAGES = (path for path in sorted(Path('docs').glob('**/*.md')) if 'tutorials' not in path.parts)
DOCUMENTS = [Path('README.md'), Path('WORKSPACE.md'), Path('CONTRIBUTING.md'), *PAGES]


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
        net='net',
        model='resnet50',
        reference='torchvision/resnet50',
        digest='0',
        data='imagenet',
        split='test',
        protocol='centre',
        resolution=224,
        top1=76.1,
        top5=92.9,
        n_seen=50_000,
    )
    (tmp_path / 'measured/resnet50').mkdir(parents=True)
    (tmp_path / 'measured/resnet50/evaluation.json').write_text(json.dumps(evaluation))
    (tmp_path / 'my_lab').mkdir()
    document = (ROOT / 'docs/own_images.md').read_text()
    example = re.search(r'<!-- plugin example -->\n```python\n(.*?)```', document, re.S)
    (tmp_path / 'my_lab/nets.py').write_text(example[1])
    monkeypatch.setattr(plugins, '_LOADED', {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('path', DOCUMENTS, ids=str)
def test_commands_are_ones_that_the_programs_take(path, clone, monkeypatch, capsys):
    for block in printed.blocks((ROOT / path).read_text()):
        for words in printed.expanded(block, clone):
            printed.check(words, monkeypatch)


@pytest.mark.parametrize('path', DOCUMENTS, ids=str)
def test_commands_in_sentences_exist_with_their_flags(path):
    sentences = re.sub(r'```.*?```|<!--.*?-->', '', (ROOT / path).read_text(), flags=re.S)
    assert not [wrong for code in re.findall(r'`(cvresearch [^`]*)`', sentences) for wrong in reference.strangers(code)]


def test_commands_that_were_printed_before_work_or_name_their_successor(clone, monkeypatch, capsys):
    commands = printed.expanded((ROOT / 'tests/printed_before.txt').read_text(), clone)
    told, ended = {}, {}
    for words in commands:
        try:
            printed.check(words, monkeypatch, run=False)
        except SystemExit as end:  # a program that is gone, and says what came in its place
            if end.code:
                ended[' '.join(words)] = str(end)
        if 'note: this command is now: ' in (said := capsys.readouterr().err):
            told[' '.join(words)] = said
    assert len(commands) > 150 and len(told) > 30
    gone, now = 'python -m cvresearch.ledger', 'python -m tests.ledger'
    assert ended == {gone: f'{gone} is now {now}, in a checkout'}


@pytest.mark.parametrize(
    'command',
    [
        'python -m cvresearch.nowhere',
        'cvresearch nowhere',
        'cvresearch train --lr 1',
        'python -m cvresearch.main --config configs/none.py --workdir DIR',
        'python -m cvresearch.main --config configs/lenet5_mnist5k.py --workdir DIR --config.lr=1',
        'python -m cvresearch.evaluate --workdirs DIR',
        'python tests/nothing.py',
        'pytest tests/nothing.py',
        'cvresearch report tables docs/tables/digits.toml --runs docs/records/*',
    ],
)
def test_a_command_that_fails_is_found(command, clone, monkeypatch, capsys):
    (words,) = printed.expanded(command, clone)
    with pytest.raises((AssertionError, ValueError, cli.UserError, ModuleNotFoundError)):
        printed.check(words, monkeypatch)
