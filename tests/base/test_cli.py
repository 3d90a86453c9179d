"""How programs end: exit codes, and what they print on the way."""

import subprocess
import sys

import pytest

from cvresearch import main
from cvresearch.base import cli
from cvresearch.base.errors import UserError

PIPED = 'set -o pipefail; "$0" "$@" | head -n 1'


def piped_into_head(*command):
    """Runs a program whose output is read for one line, and then no more."""
    return subprocess.run(['bash', '-c', PIPED, sys.executable, *command], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    'program',
    [
        ['cvresearch', 'report', 'tables', '--list'],
        ['cvresearch', 'report', 'tables', '--help'],
        ['launch.sweep', '--help'],
    ],
    ids=' '.join,
)
def test_output_that_nobody_reads_on_ends_the_program_silently(program):
    slow = 'import sys, time; print("first", flush=True); time.sleep(0.5); '  # until head is gone
    module, *arguments = program
    code = f'{slow}sys.argv = ["x", *{arguments!r}]; import runpy; runpy.run_module({module!r}, run_name="__main__")'
    done = piped_into_head('-c', code)
    assert (done.stdout, done.stderr, done.returncode) == ('first\n', '', 141)


def test_a_pipe_that_breaks_elsewhere_is_no_closed_output():
    code = 'from cvresearch.base import cli\ndef main(argv):\n raise BrokenPipeError("of a child")\ncli.run(main)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and 'BrokenPipeError: of a child' in done.stderr


def test_all_keys_are_printed_and_nothing_is_trained(capsys):
    assert main.main(['--config', 'configs/lenet5_mnist5k.py', '--print_config', '--config.epochs=3']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'epochs: 3.0' in lines and "model.name: 'lenet5'" in lines and lines == sorted(lines)


def test_errors_into_a_closed_pipe_keep_their_silence():
    main = 'def main(argv):\n time.sleep(0.5)\n raise errors.UserError("x")'
    code = f'import time\nfrom cvresearch.base import cli, errors\n{main}\ncli.run(main)'
    done = subprocess.run(
        ['bash', '-c', 'set -o pipefail; "$0" "$@" 2>&1 | true', sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr, done.returncode) == ('', '', 141)


def test_a_flag_given_twice_is_refused_and_one_for_several_is_not():
    said = dict(weights='nets', out='file')
    with pytest.raises(UserError, match='--out is given 2 times'):
        cli.parse(['--out', 'a', '--out=b'], None, required=(), **said)
    twice = cli.parse(['--weights', 'a', '--weights=b'], None, required=(), repeated=('weights',), **said)
    assert twice.weights == ['a', 'b']
