"""Our nets give the reference implementations' logits, and their statistics after a training pass."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from cvresearch.interop import conversion
from cvresearch.models import registry
from tests.goldens import seeded

FILES = Path(__file__).parent.parent / 'goldens' / 'files'
HUGE = 100_000_000  # parameters: all VGGs
NAMES = [str(path.relative_to(FILES).with_suffix('')) for path in sorted(FILES.glob('*/*.npz'))]


def load(name):
    """Returns (meta, logits, seeded tensors) of a golden file."""
    golden = np.load(FILES / f'{name}.npz')
    meta = json.loads(str(golden['meta']))
    variance = meta.get('variance', 1.0)
    tensors = {key: seeded.tensor(key, tuple(shape), variance) for key, shape in meta['shapes'].items()}
    return meta, golden['logits'], tensors


def relative_error(ours, theirs):
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def cost(name):
    """Orders references by how long their tests take: by the parameters of the variant."""
    return registry.variant(registry.reference(name).variant).params or 0


def smallest_of_each_family():
    """One variant a family runs in every test run, if it is not huge; the rest under the marker `all_variants`."""
    seen, marked = set(), []
    for name in sorted(NAMES, key=cost):
        family = registry.variant(registry.reference(name).variant).module.__module__
        marks = [pytest.mark.all_variants] if family in seen or cost(name) > HUGE else []
        seen.add(family)
        marked.append(pytest.param(name, marks=marks))
    return marked


@pytest.mark.parametrize('name', smallest_of_each_family())
def test_logits_equal_the_reference(name):
    meta, logits, tensors = load(name)
    module, variables = conversion.to_variables(tensors, name)
    images = seeded.image((len(logits), *meta['image_shape']))
    ours = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images)
    assert relative_error(np.asarray(ours), logits) <= 1e-4


@pytest.mark.parametrize('name', [p for p in smallest_of_each_family() if not p.values[0].startswith('keras/')])
def test_statistics_after_a_training_pass_equal_the_reference(name):
    meta, _, tensors = load(name)
    if not meta['statistics']:
        pytest.skip('the net has no running statistics')
    module, variables = conversion.to_variables(tensors, name)
    images = seeded.image((4, *meta['image_shape']))
    arguments = {k: 0.0 for k in ('dropout', 'stochastic_depth') if hasattr(module, k)}
    module = module.clone(**arguments)

    def step(variables, images):
        _, changed = module.apply(
            variables, images, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)}
        )
        return changed['batch_stats']

    after = {**variables, 'batch_stats': jax.jit(step)(variables, images)}
    ours = conversion.to_tensors(after, name)
    for key, (first, second) in meta['statistics'].items():
        directions = seeded.image((2, ours[key].size), f'direction {key}')
        got = directions @ ours[key].astype(np.float64)
        scale = np.linalg.norm(ours[key]) * np.linalg.norm(directions, axis=1)
        assert np.all(np.abs(got - [first, second]) <= 1e-4 * scale), key


@pytest.mark.parametrize('name', smallest_of_each_family())
def test_export_gives_back_the_imported_tensors(name):
    _, _, tensors = load(name)
    _, variables = conversion.to_variables(tensors, name)
    back = conversion.to_tensors(variables, name)
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(back[key], tensor, strict=True)
