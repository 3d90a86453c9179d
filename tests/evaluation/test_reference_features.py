"""Features equal those of torchvision and timm with the same weights (tests/goldens/features.py)."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from cvresearch.data.preprocessing import Preprocessing
from cvresearch.evaluation import feature_files
from cvresearch.interop import conversion
from cvresearch.interop.classifier import Classifier, Provenance, default_names
from tests.goldens import seeded

GOLDEN = Path(__file__).parent.parent / 'goldens' / 'files' / 'features.npz'
FACTS = json.loads(str(np.load(GOLDEN)['meta']))
EACH = ('torchvision/alexnet', 'timm/resnet18')  # in every run of the tests; the others take longer to compile


def pixels(side):
    return np.clip(128 + 60 * seeded.image((2, side, side, 3)), 0, 255).astype(np.uint8)


def net_of(name):
    facts = FACTS[name]
    tensors = {key: seeded.tensor(key, tuple(shape), facts['variance']) for key, shape in facts['shapes'].items()}
    module, variables = conversion.to_variables(tensors, name)
    prepare = Preprocessing(crop=facts['side'], resize=facts['side'])
    origin = Provenance('file', f'file:net#{name}', name.partition('/')[2], '0' * 64, name)
    return Classifier(module, variables, prepare, default_names(1000), origin)


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[] if name in EACH else [pytest.mark.slow]) for name in FACTS]
)
def test_features_are_the_references_before_its_last_layer_and_after_its_rectifiers(name):
    golden = {key.partition(' ')[2]: values for key, values in np.load(GOLDEN).items() if key.startswith(f'{name} ')}
    ours = jax.jit(feature_files.function(net_of(name), list(golden)))(pixels(FACTS[name]['side']))
    for key, theirs in golden.items():
        assert ours[key].shape == theirs.shape
        assert np.abs(ours[key] - theirs).max() <= 1e-4 * np.abs(theirs).max(), key
    assert 'penultimate' in golden
