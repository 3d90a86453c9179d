"""The plan for one card, with other processes in place of trainings: what is passed over, what is told to stop."""

import sys
from pathlib import Path

import pytest

from cvresearch.base import config as configs
from cvresearch.base.errors import PREEMPTED, UserError
from launch import devices, one_card

SAVES = (
    'import signal, sys, time, pathlib; '
    'signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({path!r}).write_text("saved"), sys.exit(75))); '
    'time.sleep(60)'
)


def stage(name, code, done):
    return one_card.Stage(name, (sys.executable, '-c', code), done)


def test_a_process_is_told_to_stop_in_time_and_the_rest_waits(tmp_path, capfd):
    record, saved, never = (tmp_path / name for name in ('first.json', 'saved', 'never'))
    plan = [
        stage('first', f'open({str(record)!r}, "w")', record),
        stage('second', SAVES.format(path=str(saved)), tmp_path / 'second'),
        stage('third', f'open({str(never)!r}, "w")', tmp_path / 'third'),
    ]
    assert one_card.go(plan, seconds=9.0, grace=4.0) == PREEMPTED
    assert record.exists() and saved.read_text() == 'saved' and not never.exists()
    assert 'third: no time left' in capfd.readouterr().out
    assert one_card.go(plan[:1], seconds=9.0, grace=4.0) == 0
    assert 'first: done before' in capfd.readouterr().out


def test_a_failure_is_the_exit_code_and_does_not_end_the_plan(tmp_path):
    record = tmp_path / 'b.json'
    plan = [stage('a', 'exit(3)', tmp_path / 'a.json'), stage('b', f'open({str(record)!r}, "w")', record)]
    assert one_card.go(plan, 180.0) == 3 and record.exists()


def test_the_plan_is_of_the_papers_own_length_and_the_speed_ends_before_the_time_is_up(tmp_path):
    speed, *seeds = one_card.stages(tmp_path, 3, 600.0)
    assert speed.command[1:] == (
        str(one_card.SPEED), '--record', str(tmp_path / 'speed.json'), '--minutes', '8.0', '--card', 'h100'
    )  # fmt: skip
    assert one_card.SPEED.is_file() and len(seeds) == 3
    config = configs.load(one_card.RECIPE)
    assert config.epochs == 300 and config.augment.erasing == 0.5 and config.model.name == 'resnet20_cifar10'


def test_without_a_card_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, 'gpus', lambda: [])
    with pytest.raises(UserError, match='no NVIDIA card'):
        one_card.main(['--workdir', str(tmp_path / 'new')])
    assert not Path(tmp_path / 'new').exists()
