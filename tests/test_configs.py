"""Every experiment file is built, said without JAX, told what it costs, and fits its data; `:smoke` trains."""

import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from configs import common
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.base.mesh import Layout, check_batch, fitting
from cvresearch.data import sources
from cvresearch.engine.experiment import Experiment
from cvresearch.models import registry
from tests import smokes

FILES = {path.stem: path for path in smokes.files()}
TRAINING_IMAGES = {
    'imagenet': 1_281_167, 'cifar10': 50_000, 'cifar100': 50_000, 'svhn': 73_257, 'fashion_mnist': 60_000,
    'mnist5k': 4_000, 'mnist500': 500, 'digits': 1_442, 'fake': 1_024, 'two_moons': 2_000,
}  # fmt: skip
SEPARABLE = (
    'mobilenet',
    'mobilenet_v2',
    'shufflenet',
    'shufflenet_v2',
    'nasnet',
    'mnasnet',
    'efficientnet',
    'xception',
)

QUICK = ('alexnet', 'mobilenetv1_100', 'resnet20_cifar10', 'efficientnet_mnist5k')


def arguments(file):
    """Returns the arguments that a file takes, as the message on a wrong one lists them."""
    with pytest.raises(UserError) as error:
        configs.load(f'{file}:?')
    return re.search(r'valid: (.*)', str(error.value))[1].split(', ')


def cost(config):
    """Returns 'images; device-hours', as docs/experiments.md defines them."""
    if config.data.name == 'image_folder':
        return f'{config.epochs:g} times the training images'
    labelled = config.data.get('labels') or config.data.get('train') or TRAINING_IMAGES[config.data.name]
    images = config.epochs * (labelled - config.minival)
    if config.data.name not in ('imagenet', 'cifar10', 'cifar100') or config.data.get('labels'):
        return f'{images:,.0f} images'
    variant = registry.variant(config.model.name)
    size = config.transform.train.crop.size if config.transform else variant.input_shape[0]
    macs = variant.macs * (size / variant.input_shape[0]) ** 2
    separable = variant.module.__module__.rpartition('.')[2] in SEPARABLE
    per_second = min((6e12 if separable else 6e13) / (6 * macs), 20_000)
    return f'{images / 1e6:.3g} M images; {float(f"{images / per_second / 3600:.2g}"):,g} device-hours'


@pytest.mark.parametrize('name', ['mnist5k', 'mnist500', 'digits', 'fake'])
def test_what_files_say_of_bundled_images_is_what_the_sources_give(name):
    count = TRAINING_IMAGES[name]  # of it are the costs
    for file in FILES.values():
        config = configs.load(str(file))
        if config.data.name != name or config.data.get('labels'):
            continue
        splits = sources.load(config.data).splits
        assert len(splits['train']) == count
        said = re.findall(r'([\d,]+) train, ([\d,]+) test', file.read_text())
        assert all(pair == tuple(f'{len(splits[split]):,}' for split in ('train', 'test')) for pair in said), file


def test_digits_are_split_as_scikit_learn_counts_them():
    in_class = np.bincount(load_digits().target)
    splits = sources.load({'name': 'digits'}).splits
    assert len(splits['test']) == sum(in_class // 5) == 355 and len(splits['train']) == sum(in_class) - 355 == 1_442


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


@pytest.mark.parametrize('devices', [1, 2, 4, 8, 256])
def test_every_file_runs_on_any_number_of_devices_as_it_is(devices):
    for name, file in FILES.items():
        config = configs.load(str(file))
        mesh = Layout.of_config(config, devices).mesh
        check_batch('batch_size', config.batch_size, mesh)
        most = max(n for n in range(1, devices + 1) if config.batch_size // config.updates.accumulate % n == 0)
        evaluated = fitting(config.eval_batch_size, mesh)
        assert mesh.size == most and evaluated % most == 0 and evaluated >= config.eval_batch_size, name


def test_all_are_printed_without_jax():
    code = (
        'import sys; from cvresearch.base import config; '
        'assert all("seed" in str(config.load(file)) for file in sys.argv[1:]); sys.exit("jax" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code, *map(str, FILES.values())]).returncode == 0


@pytest.mark.parametrize('name', FILES)
def test_net_schedule_and_optimizer_fit_the_data(name):
    config = configs.load(str(FILES[name]), {'mesh.data': '1'})
    Experiment.from_config(on_synthetic_data(config))


@pytest.mark.all_variants
@pytest.mark.parametrize('name', FILES)
def test_variants_fit_the_data(name):
    for argument in arguments(FILES[name]):
        if argument != 'smoke':
            Experiment.from_config(on_synthetic_data(configs.load(f'{FILES[name]}:{argument}', {'mesh.data': '1'})))


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name in QUICK else pytest.mark.all_variants) for name in FILES]
)
def test_smoke_run_trains(name, tmp_path):
    row = smokes.run(FILES[name], tmp_path)
    assert row['steps'] >= 4 and row['n_seen'] > 0
    assert all(math.isfinite(float(row[key])) for key in ('loss of the first steps', 'of the last', 'test loss'))


def test_list_of_smoke_runs_is_whole():
    text = Path('docs/smoke.md').read_text(encoding='utf-8')
    ran, waiting = re.findall(r'^\| (\w+) ', text, re.M)[1:], re.findall(r'`(\w+)`', text.partition('Not run yet')[2])
    assert sorted(ran + waiting) == sorted(FILES) and 'Failed' not in text


def on_synthetic_data(config):
    """Puts as many synthetic images in place of those that are not bundled, and a net where the weights decide."""
    config.model.name = config.model.name or 'resnet18'
    classes = {'image_folder': 5, 'imagenet': 1000, 'cifar10': 10, 'cifar100': 100, 'svhn': 10, 'fashion_mnist': 10}
    if config.data.name in classes:
        name, count = 'fake_photographs' if config.transform else 'fake', TRAINING_IMAGES.get(config.data.name, 1000)
        with config.unlocked():
            shape = common.array_shape(config.data) if config.data.name == 'fashion_mnist' else {}
            if config.unlabelled.name == 'images':
                config.unlabelled = dict(name='fake_photographs', ratio=1)
            labels = config.data.get('labels', 0)
            config.data = dict(name=name, **shape, classes=classes[config.data.name], train=count, labels=labels)
    return config


def _module(name):
    return importlib.import_module(f'configs.{name}')


@pytest.mark.parametrize('more', [{}, {'image_size': '32'}, {'transform.train.brightness': '0.4'}])
def test_the_transform_of_the_documents_is_enough(tmp_path, more):
    """A file that says of a transform what docs/data.md shows, and no more."""
    page = Path('docs/data.md').read_text('utf-8')
    snippet = [line for line in page.splitlines() if line.startswith('c.transform.')][:2]
    assert len(snippet) == 2
    lines = [
        'from configs import common',
        'def get_config(arg=""):',
        '    c = common.imagenet(epochs=1, batch_size=8)',
        '    c.data = dict(name="fake_photographs", classes=10, train=16, test=8)',
        '    c.model = dict(name="softmax_regression")',
        '    c.optimizer = dict(name="sgd")',
        '    c.schedule = dict(name="constant", peak=0.1)',
        *(f'    {line}' for line in snippet),
        '    return common.finish(c, arg)',
    ]
    file = tmp_path / 'snippet.py'
    file.write_text('\n'.join(lines))
    program = Experiment.from_config(configs.load(str(file), {'mesh.data': '1', **more}))
    assert program.source.facts.image_shape[0] == int(more.get('image_size', 224))
