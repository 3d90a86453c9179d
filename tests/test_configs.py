"""Every experiment file is built, said without JAX, told what it costs, and fits its data; `:smoke` trains."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.models import registry

FILES = {path.stem: path for path in sorted(Path('configs').glob('*.py')) if path.stem not in ('__init__', 'common')}
TRAINING_IMAGES = {
    'imagenet': 1_281_167, 'cifar10': 50_000, 'cifar100': 50_000, 'mnist5k': 4_000, 'digits': 1_438, 'fake': 1_024,
}  # fmt: skip
SEPARABLE = (
    'mobilenet', 'mobilenet_v2', 'shufflenet', 'shufflenet_v2', 'nasnet', 'mnasnet', 'efficientnet', 'xception',
)  # fmt: skip


def arguments(file):
    """Returns the arguments that a file takes, as the message on a wrong one lists them."""
    with pytest.raises(UserError) as error:
        configs.load(f'{file}:?')
    return re.search(r'valid: (.*)', str(error.value))[1].split(', ')


def cost(config):
    """Returns 'images; device-hours', as docs/recipes.md defines them."""
    images = config.epochs * (TRAINING_IMAGES[config.data.name] - config.minival)
    if config.data.name not in ('imagenet', 'cifar10', 'cifar100'):
        return f'{images:,.0f} images'
    variant = registry.variant(config.model.name)
    size = config.transform.train.crop.size if config.transform else variant.input_shape[0]
    macs = variant.macs * (size / variant.input_shape[0]) ** 2
    separable = variant.module.__module__.rpartition('.')[2] in SEPARABLE
    per_second = min((6e12 if separable else 6e13) / (6 * macs), 20_000)
    return f'{images / 1e6:.3g} M images; {float(f"{images / per_second / 3600:.2g}"):,g} device-hours'


def test_every_architecture_of_the_zoo_has_a_recipe():
    found = set()
    for file in FILES.values():
        for argument in ('', *arguments(file)):
            found.add(configs.load(f'{file}:{argument}').model.name)
    assert set(registry.catalogue()) - found == set()


@pytest.mark.parametrize('name', FILES)
def test_docstring_says_the_paper_the_command_what_to_expect_and_what_it_costs(name):
    text = FILES[name].read_text().split('"""')[1]
    assert f'--config configs/{name}.py' in text and 'Expected' in text
    assert max(map(len, FILES[name].read_text().splitlines())) <= 120
    assert f'Cost: {cost(configs.load(str(FILES[name])))}' in text


@pytest.mark.parametrize('name', FILES)
def test_what_sweeps_is_in_the_file(name):
    settings = list(_module(name).sweep())
    assert len(settings) > 1
    for setting in settings:
        overrides = {key: str(value) for key, value in setting.items()}
        config = configs.flatten(configs.load(str(FILES[name]), overrides))
        assert all(str(config[key]) == str(value) for key, value in setting.items())


def test_all_are_printed_without_jax():
    code = (
        'import sys; from cvresearch.base import config; '
        'assert all("seed" in str(config.load(file)) for file in sys.argv[1:]); sys.exit("jax" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code, *map(str, FILES.values())]).returncode == 0


def _module(name):
    return importlib.import_module(f'configs.{name}')
