"""Chains of generations: each learns from the one before, and no kill makes one twice or another."""

import signal
import subprocess
import sys
import time

import pytest

from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from launch import chain

SPEC = 'tests/launch/tiny_chain.py'


def launch(folder):
    return subprocess.Popen(
        [sys.executable, '-m', 'launch.chain', '--config', SPEC, '--workdir', str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def digests(folder):
    return [read_card(folder / f'generation{number}')['params_sha256'] for number in range(3)]


def test_a_chain_that_is_killed_in_every_generation_is_the_chain_left_alone(tmp_path):
    alone, folder = tmp_path / 'alone', tmp_path / 'killed'
    process = launch(alone)
    printed = process.communicate(timeout=500)[0]
    assert process.returncode == 0, printed
    assert printed.count('finished') >= 3 and 'soft_labels' in printed
    sources = [alone / 'generation0', alone / 'labels1' / 'labels.npz', alone / 'generation1']
    assert all(path.exists() for path in sources)
    assert read_card(alone / 'generation2')['init']['name'] == f'run:{alone}/generation1'
    for place in ('generation0/config.json', 'labels1', 'generation1/config.json'):
        process = launch(folder)
        end = time.monotonic() + 300
        while not (folder / place).exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = launch(folder)
    assert finished.communicate(timeout=500)[0] and finished.returncode == 0
    assert digests(folder) == digests(alone)
    before = [read_card(folder / f'generation{number}') for number in range(3)]
    assert launch(folder).wait(500) == 0
    assert [read_card(folder / f'generation{number}') for number in range(3)] == before


def test_a_first_generation_that_needs_a_teacher_is_refused(tmp_path):
    with pytest.raises(UserError, match='generation 0 of chain'):
        chain.generations(f'{SPEC}:first', {}, tmp_path)


def test_curriculum_labeling_takes_a_fifth_more_of_each_class_each_time(tmp_path):
    first, *students = chain.generations('configs/few_labels.py:curriculum', {}, tmp_path)
    assert first.config.method.name == 'supervised'
    assert [run.config.unlabelled.best for run in students] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert all(run.config.unlabelled.hard and not run.config.init.weights for run in students)  # restarted


def test_a_file_without_generations_is_one_line(tmp_path):
    with pytest.raises(UserError, match='defines no chain'):
        chain.generations('configs/lenet5_fake.py', {}, tmp_path)


def test_two_at_one_chain_are_refused(tmp_path):
    with chain.alone(tmp_path), pytest.raises(UserError, match='another process'), chain.alone(tmp_path):
        pass
