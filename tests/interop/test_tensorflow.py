"""SavedModels and TFLite files, where there is TensorFlow: in this Python, or in CVRESEARCH_TENSORFLOW_PYTHON's.

That Python needs this project's requirements too. Without any the test is skipped, with a line that says so.
"""

import importlib.util
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine import classifiers
from cvresearch.interop import export, exports
from cvresearch.interop.classifier import Classifier, Provenance
from tests.interop.nets import relative_error, small_net

ROOT = Path(__file__).parents[2]
# Read where this package is not.
READ = """
import importlib.util
import numpy as np, tensorflow as tf
assert importlib.util.find_spec('cvresearch') is None
images = np.load('images.npy')
saved = tf.saved_model.load('saved').signatures['serving_default']
found = {f'saved{n}': saved(images=tf.constant(images[:n]))['logits'].numpy() for n in (1, 3)}
lite = tf.lite.Interpreter('net.tflite').get_signature_runner('serving_default')
found['lite'] = np.concatenate([lite(images=images[n : n + 1])['logits'] for n in range(3)])
np.savez('logits.npz', **found)
"""


def python_with_tensorflow(capsys):
    """Returns a Python with TensorFlow and JAX, or skips."""
    named = os.environ.get('CVRESEARCH_TENSORFLOW_PYTHON')
    found = named or (sys.executable if importlib.util.find_spec('tensorflow') else None)
    if found and subprocess.run([found, '-c', 'import flax, tensorflow'], capture_output=True).returncode == 0:
        return found
    with capsys.disabled():
        print('\nNOT TESTED: SavedModel and TFLite, as no TensorFlow is beside JAX (set CVRESEARCH_TENSORFLOW_PYTHON)')
    pytest.skip('no TensorFlow beside JAX')


def test_savedmodel_and_tflite_of_raw_pixels_give_our_logits(tmp_path, capsys):
    python = python_with_tensorflow(capsys)
    module, variables, _ = small_net('shufflenet_v2_x0_5', num_classes=3)
    prepared = Preprocessing(crop=64, resize=64, mean=(0.1, 0.5, 0.7), std=(0.2, 0.3, 0.4))
    provenance = Provenance('file', 'file:x', 'shufflenet_v2_x0_5', '')
    net = Classifier(module, variables, prepared, ('a', 'b', 'c'), provenance)
    exports.export(net, 'torchvision', tmp_path / 'net.pth')
    weights = ['--weights', f'file:{tmp_path}/net.pth#torchvision/shufflenet_v2_x0_5', '--uint8']
    environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'}
    for form, name in (('savedmodel', 'saved'), ('tflite', 'net.tflite')):
        words = ['-m', 'cvresearch', 'export', *weights, '--to', form, '--out', str(tmp_path / name)]
        subprocess.run([python, *words], check=True, cwd=ROOT, env=environment)
    images = np.random.default_rng(0).integers(0, 256, (3, *net.input_shape), np.uint8)
    np.save(tmp_path / 'images.npy', images)
    subprocess.run([python, '-c', READ], check=True, cwd=tmp_path, env=environment)
    expected = np.asarray(classifiers.load(weights[1]).logits(images))
    found = np.load(tmp_path / 'logits.npz')
    for name, count in (('saved1', 1), ('saved3', 3), ('lite', 3)):
        assert relative_error(found[name], expected[:count]) <= 1e-5, name
    assert '"a"' in (tmp_path / 'saved' / 'cvresearch.json').read_text()
    assert '"a"' in (tmp_path / 'net.tflite.json').read_text()


@pytest.mark.parametrize(('form', 'name'), [('savedmodel', 'saved'), ('tflite', 'net.tflite')])
def test_a_full_disk_leaves_nothing(form, name, tmp_path, capsys):
    """A limit on the size of files stands for it."""
    python = python_with_tensorflow(capsys)
    run = ROOT / 'tests' / 'engine' / 'data' / 'runs' / 'densenet_one_optimizer_group'
    words = f'-m cvresearch export --weights run:{run} --to {form} --out {tmp_path / name}'.split()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))  # noqa: E731
    environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'}
    done = subprocess.run([python, *words], capture_output=True, text=True, cwd=ROOT, env=environment, preexec_fn=limit)
    said = [line for line in done.stderr.splitlines() if line.startswith(('error', 'Traceback'))]
    assert done.returncode == 1 and len(said) == 1 and said[0].startswith(f'error: cannot write {tmp_path / name}: ')
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec('tensorflow') is not None, reason='TensorFlow is installed here')
@pytest.mark.parametrize('form', ['savedmodel', 'tflite'])
def test_without_tensorflow_the_extra_is_said(form, tmp_path):
    with pytest.raises(UserError, match=r"needs the package tensorflow; pip install 'cvresearch\[tensorflow\]'"):
        export.main(['--weights', 'file:none.npz#torchvision/alexnet', '--to', form, '--out', f'{tmp_path}/a.tflite'])
    assert not os.listdir(tmp_path)
