"""Sweeps on this machine: names, refusals, and a sweep that is killed twice."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base import sweeps
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from launch import local, plan
from launch.sweep import main

SPEC = 'tests/launch/tiny_sweep.py'
SMOKE = 'configs/lenet5_fake.py:smoke'


def launch(folder, spec, jobs=2):
    return subprocess.Popen(
        [sys.executable, '-m', 'launch.sweep', '--config', spec, '--workdir', str(folder), '--jobs', str(jobs)],
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(folder):
    """Returns {name of the run: its process} of what trains in a folder."""
    found = {}
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = path.read_bytes().decode().split('\0')
        except OSError:
            continue
        if 'cvresearch.main' in words and words[words.index('--workdir') + 1].startswith(str(folder)):
            found[Path(words[words.index('--workdir') + 1]).name] = int(path.parent.name)
    return found


def until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.02)
    return value


def cards(folder):
    return {path.parent.name: read_card(path.parent) for path in Path(folder).glob('*/run.json')}


@pytest.mark.parametrize('spec', [f'{SPEC}:few', pytest.param(SPEC, marks=pytest.mark.slow)])
def test_a_sweep_killed_twice_is_the_sweep_left_alone(spec, tmp_path):
    runs = plan.runs_of(spec, {}, configs.sweep_of(spec), tmp_path / 'alone')
    for run in runs:
        assert train.run(run.config, run.workdir) == 0
    alone = {name: card['params_sha256'] for name, card in cards(tmp_path / 'alone').items()}
    assert len(alone) == len(runs) == (4 if ':few' in spec else 12)

    folder = tmp_path / 'killed'
    launcher = launch(folder, spec)
    orphans = until(lambda: processes(folder) if len(processes(folder)) == 2 else None)
    launcher.kill()
    launcher.wait()
    assert all(Path(f'/proc/{pid}').exists() for pid in orphans.values())

    launcher = launch(folder, spec)
    name, pid = until(
        lambda: next(
            ((name, pid) for name, pid in processes(folder).items() if name not in orphans and name in cards(folder)),
            None,
        )
    )
    os.kill(pid, signal.SIGKILL)
    errors = launcher.communicate(timeout=500)[1]
    assert launcher.returncode == 0, errors
    assert f'{name} was interrupted and is continued' in errors

    after = cards(folder)
    assert {name: card['params_sha256'] for name, card in after.items()} == alone
    for run, card in after.items():
        assert [session.get('ended') for session in card['sessions']].count('finished') == 1
        assert len(card['sessions']) == (2 if run == name else 1), (run, name)

    done = launch(folder, spec)
    assert 'training' not in done.communicate(timeout=100)[1] and done.returncode == 0
    assert cards(folder) == after


@pytest.mark.parametrize(
    ('settings', 'names'),
    [
        ([{'seed': 0}, {'seed': 1}], ['seed=0', 'seed=1']),
        ([{'seed': 0, 'epochs': 2.0}, {'seed': 1, 'epochs': 2.0}], ['seed=0', 'seed=1']),
        ([{'model.name': 'mlp'}, {'data.name': 'fake'}], ['model.name=mlp', 'data.name=fake']),
        ([{'schedule.peak': 1e-4}, {'schedule.peak': 0.1234567}], ['peak=0.0001', 'peak=0.1234567']),
        ([{}], ['lenet5_fake']),
    ],
)
def test_a_run_is_named_by_what_differs(settings, names, tmp_path):
    assert [run.name for run in plan.runs_of(SMOKE, {}, settings, tmp_path)] == names


@pytest.mark.parametrize(
    ('settings', 'overrides', 'message'),
    [
        ([{'sed': 0}], {}, "unknown config key 'sed'; did you mean seed"),
        ([{'seed': 0}, {'seed': 0}], {}, "two runs are named 'seed=0'"),
        ([{'seed': 0.5}], {}, 'expected int'),
        ([{'seed': 0}], {'seed': '1'}, 'leave one of them out'),
        ([], {}, 'has no settings'),
    ],
)
def test_bad_sweeps_are_refused(settings, overrides, message, tmp_path):
    with pytest.raises(UserError, match=message):
        plan.runs_of(SMOKE, overrides, settings, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('file', 'text', 'message'),
    [
        ('config.json', '{"epochs": 1.0, "old_key": 3}', 'another configuration'),
        ('config.json', '{', 'is damaged'),
        ('photo.jpg', '', 'holds no run'),
    ],
)
def test_a_workdir_of_something_else_is_refused(file, text, message, tmp_path):
    path = tmp_path / 'seed=0' / file
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        plan.runs_of(SMOKE, {}, [{'seed': 0}, {'seed': 1}], tmp_path)
    assert path.read_text() == text and len(list(path.parent.iterdir())) == 1


def test_dry_run_prints_the_commands_and_writes_nothing(tmp_path, capsys):
    assert main(['--config', f'{SPEC}:few', '--workdir', str(tmp_path / 'x'), '--dry-run', '--config.epochs=2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0] == (
        f'python -m cvresearch.main --config {SPEC}:few --config.epochs=2 --config.schedule.peak=0.001 '
        f'--config.augment.shift=0 --config.seed=0 --workdir {tmp_path}/x/peak=0.001,seed=0'
    )
    assert not (tmp_path / 'x').exists()


def test_helpers_make_the_settings_that_they_say():
    assert sweeps.product({'a': [1, 2], 'b': [3]}, [{'c': 4}]) == [{'a': 1, 'b': 3, 'c': 4}, {'a': 2, 'b': 3, 'c': 4}]
    assert sweeps.zip({'a': [1, 2], 'b': [3, 4]}) == [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    space = {'lr': sweeps.log_uniform(1e-4, 1e-1), 'n': sweeps.integers(1, 4), 'x': sweeps.choice('p', 'q')}
    for draw in (sweeps.random, sweeps.sobol):
        drawn = draw(space, 64)
        assert len(drawn) == 64 and drawn == draw(space, 64) and drawn != draw(space, 64, seed=1)
        assert all(1e-4 <= s['lr'] <= 1e-1 for s in drawn) and {s['n'] for s in drawn} == {1, 2, 3, 4}
    # A Sobol sequence has, of 64 points, exactly one in each 64th of every axis (a (0, 6, 1)-net).
    logarithms = sorted((math.log10(s['lr']) + 4) / 3 for s in sweeps.sobol(space, 64))
    assert all(i / 64 - 1e-5 <= place <= (i + 1) / 64 + 1e-5 for i, place in enumerate(logarithms))
    for bad in (
        lambda: sweeps.zip({'a': [1], 'b': [1, 2]}),
        lambda: sweeps.product({'a': [1]}, {'a': [2]}),
        lambda: sweeps.product({'a': 'text'}),
        lambda: sweeps.log_uniform(0, 1),
    ):
        with pytest.raises(UserError):
            bad()


def test_manifest_says_what_the_sweep_is(tmp_path):
    runs = plan.runs_of(SMOKE, {}, [{'seed': 0}, {'seed': 1}], tmp_path)
    plan.write_manifest(tmp_path, SMOKE, {}, runs)
    assert json.loads((tmp_path / 'sweep.json').read_text())['runs'][1] == {'name': 'seed=1', 'seed': 1}


def test_extend_trains_on_what_is_there_and_begins_the_rest(tmp_path):
    spec, settings = f'{SPEC}:two', [{'seed': 0}, {'seed': 1}]
    (done, _) = plan.runs_of(spec, {}, settings, tmp_path)
    assert train.run(done.config, done.workdir) == 0
    longer = {'epochs': '2'}
    with pytest.raises(UserError, match='another configuration'):
        plan.runs_of(spec, longer, settings, tmp_path)
    runs = plan.runs_of(spec, longer, settings, tmp_path, extend=True)
    assert [run.state() for run in runs] == ['interrupted', 'new']
    assert ['--extend' in run.command() for run in runs] == [True, False]
    plan.write_manifest(tmp_path, spec, longer, runs)
    assert local.Local(runs, 2).go() == 0
    assert [card['step'] for card in cards(tmp_path).values()] == [32, 32]
    assert [run.state() for run in runs] == ['finished', 'finished'] and '--extend' not in runs[0].command()


def test_extend_is_not_for_a_population(tmp_path):
    with pytest.raises(UserError, match='not for a population'):
        main(['--config', f'{SPEC}:few', '--workdir', str(tmp_path), '--on', 'population', '--extend'])
