"""Photographs as torchvision and timm show them to their nets: the same pixels, and the same answers in an evaluation.

The records are of tests/goldens/transforms.py. On 200 photographs, with JPEGs: tests/peers/released.py.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from cvresearch.data import preprocessing
from cvresearch.engine import classifiers
from cvresearch.evaluation import measure
from cvresearch.interop import hub, weight_files
from cvresearch.models import registry
from tests.goldens import photographs, seeded

GOLDENS = Path(photographs.__file__).parent
PREPARATIONS = json.loads((GOLDENS / 'transforms.json').read_text())['preparations']
CONFIG = json.loads((GOLDENS / 'timm_preprocessing.json').read_text())['nets']['resnet18.a1_in1k']['config']


@pytest.fixture(scope='module')
def files():
    return photographs.cut(20)


def preparation(reference, change=None):
    if change:
        return hub.preprocessing_of(CONFIG | {'pretrained_cfg': CONFIG['pretrained_cfg'] | change})[0]
    return preprocessing.of(reference, registry.variant(registry.reference(reference).variant).input_shape[0])[0]


@pytest.mark.parametrize('case', PREPARATIONS, ids=lambda case: f'{case["reference"]}{case.get("change", "")}')
def test_the_pixels_are_the_librarys_own(files, case):
    prepare = preparation(case['reference'], case.get('change'))
    found = [hashlib.sha256(prepare.pixels(data).tobytes()).hexdigest()[:16] for data in files.values()]
    assert found == case['pixels']
    if 'torchvision/inception' not in case['reference']:  # that net normalizes once more, by itself
        assert (list(prepare.mean), list(prepare.std)) == (case['mean'], case['std'])


@pytest.mark.parametrize('reference', ['torchvision/squeezenet1_1', 'timm/mnasnet_small.lamb_in1k'])
def test_an_evaluation_gives_each_photograph_the_librarys_logits(files, tmp_path, reference):
    golden, library = np.load(GOLDENS / 'files' / 'transforms.npz'), reference.partition('/')[0]
    shapes = json.loads(str(np.load(GOLDENS / 'files' / f'{reference.partition(".")[0]}.npz')['meta']))['shapes']
    weight_files.write(tmp_path / 'net.pth', {key: seeded.tensor(key, tuple(shape)) for key, shape in shapes.items()})
    photographs.write(tmp_path / 'photographs', files)
    found = measure.measure(
        classifiers.load(f'file:{tmp_path}/net.pth#{reference}'),
        {'name': 'image_folder', 'root': str(tmp_path / 'photographs'), 'every': 1},
    )
    order = found.labels  # a photograph's class is its number
    assert sorted(order) == list(range(20))
    off = np.abs(found.logits[:, :40] - golden[f'{library}_first'][order]).max()
    assert off < 1e-3 * golden[f'{library}_max']
    assert found.predicted.tolist() == golden[f'{library}_top1'][order].tolist()
