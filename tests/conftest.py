"""What all tests share."""

import shutil

from tests import environment

COMPILED = environment.fix()  # before JAX is imported anywhere

import jax
import pytest

from tests import shapes

shapes.check()  # before what it checks is imported

from cvresearch.base import config as configs
from cvresearch.base.memory import keep_freed_pages

keep_freed_pages()  # as every command does

SMOKE = 'configs/lenet5_fake.py:smoke'


def pytest_unconfigure():
    """The process that made the folder removes it, after those that it started."""
    if COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture
def float64():
    """JAX computes what is given in NumPy's numbers in 64 bits: what is compared does not hang on one rounding."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def smoke():
    """Returns a function that loads the smallest training there is, with overrides."""

    def load(**overrides):
        base = {'mesh.data': '1', 'model.name': 'softmax_regression'}
        return configs.load(SMOKE, base | {key.replace('__', '.'): str(value) for key, value in overrides.items()})

    return load
