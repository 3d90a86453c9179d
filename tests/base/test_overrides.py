"""What a person types first: hints, names that change, one size for all images. Each complaint as it was made."""

import pytest

from cvresearch.base import config as configs
from cvresearch.base import overrides
from cvresearch.base.cli import parse
from cvresearch.base.errors import UserError
from cvresearch.engine.experiment import Experiment

DIGITS, PHOTOS = 'configs/lenet5_mnist5k.py', 'configs/folder.py'


@pytest.mark.parametrize('key', ['lr', 'learning_rate'])
def test_what_other_libraries_call_it_is_hinted(key):
    with pytest.raises(UserError, match=r'did you mean schedule\.peak\?'):
        configs.load(DIGITS, {key: '0.1'})


def test_a_key_without_its_config_is_hinted():
    with pytest.raises(UserError, match=r'write --config\.epochs=3'):
        parse(['--epochs', '3'], '', config='experiment')


def test_an_unknown_key_is_one_short_line():
    with pytest.raises(UserError) as error:
        configs.load(PHOTOS, {'nonsense_key': '1'})
    assert len(str(error.value)) < 300 and '\n' not in str(error.value)


def test_one_override_sets_the_size_of_all_images():
    config = configs.load(PHOTOS, {'image_size': '64'})
    assert config.transform.train.crop.size == config.transform.eval.crop.size == 64
    assert config.transform.eval.crop.resize == 73  # 110 of 96, times 64 / 96


def test_what_the_file_says_for_another_constructor_is_dropped_and_told(capsys):
    overrides.note.cache_clear()  # it is said once in a process
    config = configs.load(DIGITS, {'optimizer.name': 'sgd', 'optimizer.momentum': '0.8'})
    assert dict(config.optimizer) == {'name': 'sgd', 'momentum': 0.8}
    assert 'optimizer is sgd, not adamw' in capsys.readouterr().err


def test_a_lone_weight_decay_is_another_rule_s_and_its_new_value_is_said(capsys):
    overrides.note.cache_clear()
    config = configs.load(DIGITS, {'optimizer.name': 'lion'})  # AdamW's, at its default, which is Lion's too
    assert dict(config.optimizer) == {'name': 'lion', 'weight_decay': 0.01}
    assert 'dropped' not in capsys.readouterr().err
    config = configs.load(DIGITS, {'optimizer.name': 'sgd'})
    assert dict(config.optimizer) == {'name': 'sgd'}
    assert 'for adamw is dropped (weight_decay=0.01, now 0.0)' in capsys.readouterr().err


def test_a_knob_that_the_file_does_not_mention_can_be_set_and_a_wrong_one_is_refused():
    assert configs.load(PHOTOS, {'transform.eval.flip': '0.5'}).transform.eval.flip == 0.5
    with pytest.raises(UserError, match="takes no argument 'blur'"):
        configs.load(PHOTOS, {'transform.train.blur': '1'})


@pytest.mark.parametrize(('key', 'text'), [('early_stopping.patience', 'x'), ('sampling.power', 'x')])
def test_arguments_of_stopping_and_sampling_are_checked_when_typed(key, text):
    names = {'early_stopping.name': 'patience', 'sampling.name': 'power'}
    with pytest.raises(UserError, match='expected'):
        configs.load(DIGITS, {**names, key: text})


def test_one_cycle_with_a_warm_up_is_refused():
    with pytest.raises(UserError, match='a rise of its own'):
        Experiment.from_config(configs.load(DIGITS, {'schedule.name': 'one_cycle', 'mesh.data': '1'}))
