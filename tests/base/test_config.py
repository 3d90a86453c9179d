"""Experiment files: every one loads, locks, takes :smoke and overrides; mistakes are named."""

from pathlib import Path

import pytest

from cvresearch.base import config as configs
from cvresearch.base.errors import UserError

FILES = sorted(str(path) for path in Path('configs').glob('*.py') if path.stem not in ('__init__', 'common'))


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('argument', ['', ':smoke'])
def test_every_file_loads_locked_and_survives_json(file, argument):
    config = configs.load(file + argument)
    assert config.is_locked
    assert configs.differences(configs.to_json(config), configs.to_json(configs.load(file + argument))) == []


@pytest.mark.parametrize('file', FILES)
def test_every_file_names_its_own_command_and_a_smoke_run_is_shorter(file):
    assert f'--config {file}' in Path(file).read_text(encoding='utf-8')
    assert configs.load(f'{file}:smoke').epochs < configs.load(file).epochs


@pytest.mark.parametrize(
    ('key', 'text', 'value'),
    [
        ('seed', '7', 7),
        ('epochs', '3', 3.0),
        ('augment.flip', 'true', True),
        ('normalize.mean', '(0.5,)', (0.5,)),
        ('optimizer.name', 'sgd', 'sgd'),
        ('optimizer.b1', '0.8', 0.8),  # not in the file, but an argument of the constructor
    ],
)
def test_override_keeps_the_type(key, text, value):
    flat = configs.flatten(configs.load(FILES[0], {key: text}))
    assert flat[key] == value and type(flat[key]) is type(value)


@pytest.mark.parametrize(
    ('key', 'text', 'message'),
    [
        ('sed', '1', "unknown config key 'sed'; did you mean seed"),
        ('mixing.mixpu', '1', 'did you mean mixup'),
        ('seed.x', '1', "unknown config key 'seed'"),
        ('epochs', 'ten', "config.epochs: got 'ten' (str), expected float"),
        ('seed', '1.5', "config.seed: got '1.5' (float), expected int"),
        ('optimizer', 'sgd', 'config.optimizer is a group'),
    ],
)
def test_override_mistakes(key, text, message):
    with pytest.raises(UserError) as error:
        configs.load(FILES[0], {key: text})
    assert message in str(error.value)


def test_differences_name_the_keys():
    old, new = (configs.to_json(configs.load(FILES[0], {'seed': seed})) for seed in '01')
    assert configs.differences(old, new) == ['seed: 0 -> 1']
