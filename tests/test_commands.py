"""The one table of commands: help by subject, former names, and what is no command."""

import importlib
from pathlib import Path

import pytest

from cvresearch import cli
from cvresearch.base.errors import UserError

FORMER = sorted(path.stem for path in Path('cvresearch/former').glob('[a-z]*.py') if path.stem != 'ledger')


def test_help_has_a_line_for_each_command_below_its_subject(capsys):
    assert cli.main(['--help']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {f'{subject}:' for subject in cli.SUBJECTS} < {*lines} and max(map(len, lines)) <= 100
    assert [line[:23].strip() for line in lines if line.startswith('  ')] == [*cli.COMMANDS]


def test_the_first_word_alone_shows_what_may_follow(capsys):
    assert cli.main(['report']) == cli.BAD_INPUT and cli.main(['report', '--help']) == 0
    said = capsys.readouterr().out
    assert 'report tables' in said and 'data prepare' not in said and 'usage: cvresearch report VERB' in said


def test_a_launcher_is_a_command_but_for_studies():
    """A study makes a record of the documentation anew: its page prints `python -m launch.NAME`."""
    texts = {path.stem: path.read_text() for path in Path('launch').glob('*.py')}
    programs = {name for name, text in texts.items() if '\ndef main(' in text and 'docs/records' not in text}
    commands = {module for module, _ in cli.COMMANDS.values() if module.startswith('launch.')}
    assert {f'launch.{name}' for name in programs} == commands


@pytest.mark.parametrize(('argv', 'nearest'), [(['evaluat'], 'evaluate'), (['report', 'tabels'], 'report tables')])
def test_what_is_no_command_is_one_line_with_the_nearest(argv, nearest):
    with pytest.raises(UserError, match=f"unknown command 'cvresearch {' '.join(argv)}'; did you mean {nearest}"):
        cli.main(argv)


@pytest.mark.parametrize('words', cli.COMMANDS)
def test_every_command_refuses_a_flag_that_it_does_not_have(words, monkeypatch):
    monkeypatch.setattr('sys.argv', ['cvresearch'])
    with pytest.raises(UserError, match='unknown flag --nonsense'):
        cli.main([*words.split(), '--nonsense', '1'])


@pytest.mark.parametrize('name', FORMER)
def test_a_former_module_is_the_command_and_says_its_name(name, capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['cvresearch'])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f'cvresearch.{name}').main(['--help'])
    said = capsys.readouterr()
    (words,) = [words for words in cli.COMMANDS if said.err == f'note: this command is now: cvresearch {words}\n']
    assert not end.value.code and said.out and name in (*words.split(), 'benchmark_ensemble', 'pictures')


@pytest.mark.parametrize('words', cli.FORMER)
def test_former_words_are_the_command_and_say_its_name(words, capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['cvresearch'])
    with pytest.raises(SystemExit):
        cli.main([*words.split(), '--help'])
    assert capsys.readouterr().err == f'note: this command is now: cvresearch {cli.FORMER[words]}\n'
