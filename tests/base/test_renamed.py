"""Older names of keys: on a command line, in an experiment file, in a sweep, in the files of runs."""

import json

import pytest

from cvresearch.base import config as configs
from cvresearch.base import overrides
from cvresearch.base.errors import UserError
from cvresearch.engine import arguments
from launch import plan

DIGITS = 'configs/lenet5_mnist5k.py'
FILE = """
from configs import common

def get_config(arg=''):
    c = common.mnist5k(epochs=3)
    c.model = dict(name='lenet5')
    c.augment.mixup = 1
    c.optimizer = dict(name='sgd', clip_norm=1.0, freeze=('conv1',))
    c.accumulate = 2
    c.batch_norm.precise_batches = 3
    return common.finish(c, arg)
"""


@pytest.fixture(autouse=True)
def said_anew():
    overrides.note.cache_clear()  # it is said once in a process


@pytest.mark.parametrize(('old', 'new'), configs.RENAMED.items())
def test_every_new_name_is_a_key_and_no_older_one_is(old, new):
    outside = configs.load(DIGITS).to_dict()
    for key, there in ((new, True), (old, False)):
        group, _, last = key.rpartition('.')
        name = {'optimizer': 'sgd', 'batch_norm': 'batch_norm'}.get(group)
        takes = arguments.takes(group, name) if group else outside
        assert (last in takes) is there


@pytest.mark.parametrize(
    ('old', 'text', 'value'),
    [
        ('augment.mixup', '0.2', 0.2),
        ('augment.mix_per_example', 'true', True),
        ('accumulate', '2', 2),
        ('frozen', 'train', 'train'),
        ('optimizer.freeze', "('conv1',)", ('conv1',)),
        ('optimizer.clip_norm', '1', 1),
        ('batch_norm.precise_batches', '3', 3),
    ],
)
def test_an_older_name_on_a_command_line_works_and_the_new_one_is_said(capsys, old, text, value):
    new = configs.RENAMED[old]
    assert configs.flatten(configs.load(DIGITS, {old: text}))[new] == value
    assert f'config.{old} is now config.{new}' in capsys.readouterr().err


def test_an_older_name_is_taken_away_too_and_a_key_by_both_names_is_refused():
    assert 'mixup' not in configs.load(DIGITS, {'augment.mixup': None}).mixing
    with pytest.raises(UserError, match=r'config\.augment\.mixup is the older name of config\.mixing\.mixup; give one'):
        configs.load(DIGITS, {'augment.mixup': '0.2', 'mixing.mixup': '0.3'})


def test_an_experiment_file_with_older_names_means_what_it_did(tmp_path, capsys):
    file = tmp_path / 'mine.py'
    file.write_text(FILE)
    config = configs.load(str(file))
    assert config.is_locked and config.mixing.mixup == 1.0 and type(config.mixing.mixup) is float
    assert dict(config.optimizer) == {'name': 'sgd'} and config.precise_batches == 3
    assert dict(config.updates) == dict(accumulate=2, frozen='inference', clip_norm=1.0, freeze=('conv1',))
    assert 'accumulate' not in config and 'mixup' not in config.augment
    assert 'sets optimizer.clip_norm, which is now updates.clip_norm' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('c.accumulate = c.accumulate * 2', 'accumulate is now updates.accumulate'),
        ('c.augment.mixup += 0.1', 'augment.mixup is now mixing.mixup'),
        ('c.accumulate = "two"', 'mine.py: '),
    ],
)
def test_an_experiment_file_that_reads_an_older_name_is_told_the_new_one(tmp_path, line, message):
    file = tmp_path / 'mine.py'
    file.write_text(FILE.replace('c.augment.mixup = 1', line).replace('    c.accumulate = 2\n', ''))
    with pytest.raises(UserError, match=message):
        configs.load(str(file))


def test_a_run_of_older_names_is_the_same_configuration():
    new = configs.load(DIGITS, {'updates.sam': '0.05', 'updates.accumulate': '2', 'mixing.mixup': '0.2'}).to_dict()
    old = json.loads(json.dumps(new))
    old['optimizer']['sam'], old['augment'] = 0.05, old['augment'] | {'mixup': 0.2, 'cutmix': 0.0}
    old['augment']['mix_per_example'], old['batch_norm']['precise_batches'] = False, 0
    old |= {'accumulate': 2, 'frozen': 'inference'}
    for key in ('updates', 'mixing', 'precise_batches'):
        del old[key]
    assert configs.differences(json.dumps(old), json.dumps(new)) == []
    old['accumulate'] = 4
    assert configs.differences(json.dumps(old), json.dumps(new)) == ['updates.accumulate: 4 -> 2']


def test_a_sweep_over_an_older_name_keeps_its_names(tmp_path):
    runs = plan.runs_of(DIGITS, {}, [{'augment.mixup': value} for value in (0.1, 0.2)], tmp_path)
    assert [(run.name, run.config.mixing.mixup) for run in runs] == [('mixup=0.1', 0.1), ('mixup=0.2', 0.2)]
