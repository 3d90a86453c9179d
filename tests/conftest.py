"""What all tests share."""

import os
import shutil
import tempfile

# Before JAX is imported anywhere. Eight host devices, so that sharding is tested on any machine;
# one thread each would be another program, so the number of threads is left alone.
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=8')
os.environ['JAX_PLATFORMS'] = 'cpu'
# Many tests compile the same small programs: the second time they are read from here.
COMPILED = None
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    COMPILED = os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='cvresearch-tests-')
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

import pytest

from cvresearch.base import config as configs

SMOKE = 'configs/lenet5_fake.py:smoke'


def pytest_unconfigure():
    """The process that made the folder removes it, after those that it started."""
    if COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture
def smoke():
    """Returns a function that loads the smallest training there is, with overrides."""

    def load(**overrides):
        base = {'mesh.data': '1', 'model.name': 'softmax_regression'}
        return configs.load(SMOKE, base | {key.replace('__', '.'): str(value) for key, value in overrides.items()})

    return load
