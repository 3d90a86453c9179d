"""Whether a run would start, said before it is started: the real programs in environments that are broken."""

import os
import re
import socket
import subprocess
import sys

import pytest

from cvresearch import main
from cvresearch.base.errors import BAD_INPUT, FAILED
from cvresearch.engine import doctor
from tests.environment import DEVICES, xla_flags

SMOKE = ['--config', 'configs/lenet5_fake.py:smoke', '--config.model.name=softmax_regression', '--config.mesh.data=1']
LINE = re.compile(r'(ok|warning|WRONG) +(\w+) +\S.*')


@pytest.fixture
def quick(monkeypatch):
    """The devices are those of this process: no other is started."""
    monkeypatch.setattr(doctor, '_devices', lambda: [(doctor.OK, 'of the tests')])


def findings(out):
    *lines, last = out.splitlines()
    assert all(LINE.fullmatch(line) for line in lines) and last.startswith('A run would')
    return {(match[2], match[1]): line for line in lines for match in [LINE.fullmatch(line)]}


def test_a_run_that_would_start_is_a_line_each_and_nothing_is_left(quick, capsys, tmp_path):
    assert doctor.main([*SMOKE, '--workdir', str(tmp_path / 'run')]) == 0
    found = findings(capsys.readouterr().out)
    names = [name for name, _ in found]
    assert sorted(names) == sorted(
        ['host', 'packages', 'environment', 'devices', 'memory', 'disk', 'clock', 'cache', 'run', 'data']
    )
    assert 'train 1,024, test 256' in found['data', 'ok'] and not list(tmp_path.iterdir())


def wrong(argv, capsys):
    assert doctor.main(argv) == FAILED
    (line,) = [line for (_, verdict), line in findings(capsys.readouterr().out).items() if verdict == doctor.WRONG]
    return line


@pytest.mark.parametrize(
    ('flag', 'said'),
    [
        ('--config.batch_size=2000', 'more than the'),
        ('--config.model.name=lenet7', 'lenet5'),
    ],
)
def test_what_stops_a_run_is_said_as_the_run_says_it(flag, said, quick, capsys):
    assert said in wrong([*SMOKE, flag], capsys)


def test_a_folder_of_another_run_and_one_that_takes_no_files(quick, capsys, tmp_path):
    assert main.main([*SMOKE, '--workdir', str(tmp_path / 'run')]) == 0
    capsys.readouterr()
    assert doctor.main([*SMOKE, '--workdir', str(tmp_path / 'run')]) == 0
    capsys.readouterr()
    assert 'seed: 0 -> 1' in wrong([*SMOKE, '--config.seed=1', '--workdir', str(tmp_path / 'run')], capsys)
    assert 'takes no files' in wrong(['--workdir', '/proc/no/run'], capsys)


def test_a_command_that_is_wrong_has_a_code_of_its_own():
    done = subprocess.run([sys.executable, '-m', 'cvresearch', 'doctor', '--config', 'no.py'], capture_output=True)
    assert done.returncode == BAD_INPUT and done.stderr.startswith(b'error: no config file')


@pytest.mark.parametrize(
    ('name', 'value', 'said'),
    [
        ('JAX_ENABLE_X64', '1', 'WRONG    environment  JAX_ENABLE_X64 is set'),
        ('XLA_FLAGS', '--xla_no_such_flag=1', 'xla_no_such_flag'),  # JAX ends the process
        ('JAX_PLATFORMS', 'cpu,tqu', 'tqu'),
    ],
)
def test_an_environment_that_jax_does_not_start_in_is_named_and_the_rest_is_still_looked_at(name, value, said):
    done = subprocess.run(
        [sys.executable, '-m', 'cvresearch', 'doctor'], capture_output=True, text=True, env=os.environ | {name: value}
    )
    assert done.returncode == FAILED and done.stderr == ''
    assert any(said in line and line.startswith('WRONG') for line in done.stdout.splitlines())
    assert 'clock' in done.stdout


def hosts(second):
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    common = [
        sys.executable,
        '-m',
        'cvresearch',
        'doctor',
        *SMOKE[:3],
        '--hosts',
        '2',
        '--patience',
        '60',
        '--coordinator',
        f'127.0.0.1:{port}',
    ]
    environment = os.environ | {'XLA_FLAGS': xla_flags(f'{DEVICES}2')}
    started = [
        subprocess.Popen([*common, '--host', str(host), *more], stdout=subprocess.PIPE, text=True, env=environment)
        for host, more in enumerate([[], second])
    ]
    return [(process.communicate(timeout=240)[0], process.returncode) for process in started]


def test_two_hosts_meet_and_one_of_other_data_is_found():
    (first, code), (second, other) = hosts(['--config.data.test=96'])
    for out in (first, second):
        assert 'ok       hosts        2 hosts, 4 devices, 2 of them here' in out
    assert 'WRONG    data         they differ from those of host 0: ' in second
    assert 'wrong on 1 of 2 hosts' in first and code == other == FAILED
