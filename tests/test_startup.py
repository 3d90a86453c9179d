"""A run imports nothing heavy that it does not use, whatever is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

# Each takes a tenth of a second to some seconds. The first two are of other libraries, and need not be installed.
FOREIGN = ('torch', 'tensorflow')
HEAVY = (
    *FOREIGN,
    'torchvision',
    'tensorflow_datasets',
    'tensorboard',
    'keras',
    'timm',
    'matplotlib',
    'sklearn',
    'mlxtend',
    'optuna',
    'pandas',
    'scipy',
    'h5py',
    'clu',
    'onnx',
    'huggingface_hub',
)
TRAIN = """
import sys
from cvresearch import main
flags = ['--config', 'configs/lenet5_fake.py:smoke', '--config.mesh.data=1', '--workdir', sys.argv[1]]
assert main.main(flags) == 0
print('IMPORTED', *[name for name in sys.argv[2:] if name in sys.modules])
"""


def test_a_run_of_lenet_5_imports_nothing_heavy(tmp_path, monkeypatch):
    for name in FOREIGN:  # installed, as far as an import sees
        package = tmp_path / 'site' / name / '__init__.py'
        package.parent.mkdir(parents=True)
        package.touch()
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'site'), prepend=':')
    command = [sys.executable, '-c', TRAIN, tmp_path / 'run', *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.splitlines()[-1:] == ['IMPORTED'], done.stdout + done.stderr


def test_the_command_line_is_read_without_jax():
    """A misspelt flag is said at once, not after seconds of imports."""
    code = 'import sys; from cvresearch import main; print(*[name for name in sys.argv[1:] if name in sys.modules])'
    command = [sys.executable, '-c', code, 'jax', 'flax', 'numpy', 'orbax', 'cv2', 'tensorboardX', *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert not done.stdout.split()


@pytest.mark.parametrize(('before', 'expected'), [('pass', 'False True True'), ('import jax', 'True True False')])
def test_the_collector_rests_during_a_fresh_process_s_imports_alone(before, expected):
    code = f"""
import gc
from cvresearch.base import cli
{before}
try:
    with cli.importing():
        during = gc.isenabled()
        raise ImportError
except ImportError:
    print(during, gc.isenabled(), gc.get_freeze_count() > 0)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == expected, done.stderr
