"""The wheel: everything that the programs need is in it, and nothing is read from a checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cvresearch.interop import conversion
from cvresearch.models import registry
from tests.environment import xla_flags

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel of the checkout, built without a network."""
    folder = tmp_path_factory.mktemp('wheel')
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, os.fsdecode(tracked).split('\0')):  # setuptools leaves its build folder where it builds
        if not name.startswith(('docs/', 'tests/')) and (ROOT / name).is_file():
            (folder / 'source' / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / 'source' / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '--no-index']
    subprocess.run([*pip, '--wheel-dir', folder, folder / 'source'], check=True, capture_output=True)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """Runs Python or a command in an environment that has the wheel and its dependencies, and no checkout."""
    folder = tmp_path_factory.mktemp('installed')
    venv.create(folder / 'env', symlinks=True)
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / 'site')
    # Folders on this path, unlike site-packages, are not searched for .pth files, which may name the checkout.
    path = os.pathsep.join([str(folder / 'site'), sysconfig.get_path('purelib')])
    environment = os.environ | {'PYTHONPATH': path, 'XLA_FLAGS': xla_flags()}

    def run(*arguments):
        return subprocess.run(
            [folder / 'env' / 'bin' / 'python', *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )

    return run


def test_the_package_is_the_wheels(installed):
    code = 'import sys, cvresearch, configs; print(cvresearch.__file__, configs.__file__, *sys.path)'
    found = installed('-c', code).stdout
    assert '/site/cvresearch/__init__.py' in found and '/site/configs/' in found
    assert str(ROOT / 'cvresearch') not in found and f' {ROOT} ' not in found


def test_every_module_and_table_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as file:
        packed = set(file.namelist())
    tracked = subprocess.run(['git', 'ls-files', 'cvresearch'], cwd=ROOT, capture_output=True, text=True).stdout
    missing = [name for name in tracked.split() if (ROOT / name).exists() and name not in packed]
    assert not missing


def test_an_installed_package_trains(installed):
    command = 'train', '--config', 'configs/lenet5_fake.py:smoke', '--workdir', 'run'
    done = installed('-m', 'cvresearch', *command)
    assert done.returncode == 0 and 'finished' in done.stdout + done.stderr, done.stderr


def test_an_installed_package_counts_a_net_against_its_facts(installed):
    done = installed('-m', 'cvresearch', 'summary', '--model', 'lenet5')
    assert done.returncode == 0 and '61,706' in done.stdout, done.stderr


def test_an_installed_package_predicts(installed, tmp_path):
    net = registry.build('squeezenet1_1', 1000)
    variables = net.init(jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
    conversion.save(tmp_path / 'net.safetensors', variables, 'torchvision/squeezenet1_1')
    Image.fromarray(np.full((300, 260, 3), 128, np.uint8)).save(tmp_path / 'grey.png')
    flags = '--model', 'squeezenet1_1', '--weights', tmp_path / 'net.safetensors', '--format', 'json'
    done = installed('-m', 'cvresearch', 'predict', *flags, tmp_path / 'grey.png')
    assert done.returncode == 0 and '"probability"' in done.stdout, done.stderr


def test_published_tables_are_at_hand_where_the_package_is_installed(installed):
    done = installed('-m', 'cvresearch', 'report', 'tables', '--list')
    assert done.returncode == 0 and 'ResNet' in done.stdout, done.stderr


def test_the_console_command_names_its_verbs_and_the_nearest_one(installed):
    start = 'from cvresearch.cli import start; start()'
    assert 'predict' in installed('-c', start, '--help').stdout
    wrong = installed('-c', start, 'evalute')
    assert wrong.returncode == 2 and 'did you mean evaluate' in wrong.stderr and wrong.stderr.count('\n') == 1


@pytest.mark.slow
def test_a_wheel_installs_into_an_empty_environment_with_all_that_it_needs(wheel, tmp_path):
    venv.create(tmp_path / 'env', with_pip=True)
    environment = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'XLA_FLAGS')}
    subprocess.run([tmp_path / 'env/bin/pip', 'install', '-q', wheel], check=True, env=environment)
    command = 'train', '--config', 'configs/lenet5_fake.py:smoke', '--workdir', 'run'
    subprocess.run([tmp_path / 'env/bin/cvresearch', *command], check=True, cwd=tmp_path, env=environment)
