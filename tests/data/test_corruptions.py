"""ImageNet-C's corruptions against another implementation, and that they are functions of (seed, index).

`imagenet_c.npz`: every sixteenth pixel of what the package imagecorruptions 1.1.2 (the authors' code, for any size)
makes of 224x224 pixels of scikit-learn's flower.jpg; where it draws random numbers, the mean, the deviation and the
root mean square distance from the clean image.
"""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from cvresearch.base.errors import UserError
from cvresearch.data import corruptions
from cvresearch.data.bundled import fake
from cvresearch.objectives.scores import ALEXNET_ERRORS

IMAGE = load_sample_image('flower.jpg')[100:324, 200:424]
GOLDEN = np.load(Path(__file__).parent / 'imagenet_c.npz')


@pytest.mark.parametrize('key', GOLDEN.files)
def test_corruptions_are_those_of_the_authors_code(key):
    name, severity = key.split('/')
    found, expected = corruptions.corrupt(IMAGE, name, int(severity)), GOLDEN[key]
    if expected.ndim == 3:  # nothing is random: equal but for the rounding of floats
        assert np.abs(found[::16, ::16].astype(int) - expected).max() <= (8 if name == 'jpeg_compression' else 1)
    else:
        found = found.astype(np.float64)
        distance = np.sqrt(((found - IMAGE) ** 2).mean())
        np.testing.assert_allclose([found.mean(), found.std(), distance], expected, rtol=0.06)


@pytest.mark.parametrize('name', [*corruptions.CORRUPTIONS, *corruptions.EXTRA])
def test_an_image_is_a_function_of_seed_and_index_and_severities_grow(name):
    image = IMAGE[::4, ::4]
    one = corruptions.corrupt(image, name, 5, seed=1, index=7)
    assert one.shape == image.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, corruptions.corrupt(image, name, 5, seed=1, index=7))
    deterministic = f'{name}/1' in GOLDEN.files and GOLDEN[f'{name}/1'].ndim == 3
    for other in (dict(seed=2, index=7), dict(seed=1, index=8)):
        assert np.array_equal(one, corruptions.corrupt(image, name, 5, **other)) == deterministic
    far = [np.abs(corruptions.corrupt(image, name, s).astype(int) - image).mean() for s in (1, 5)]
    assert 0 < far[0] < far[1] or name in ('saturate', 'elastic_transform')


def test_mce_is_over_these_corruptions():
    assert list(corruptions.CORRUPTIONS) == list(ALEXNET_ERRORS)


def test_corrupted_examples_do_not_depend_on_the_batch():
    base = fake(image_size=24, train=8, test=8).splits['test']
    examples = corruptions.Corrupted(base, 'gaussian_noise', 3, seed=5)
    together, labels = examples.take(np.arange(8))
    np.testing.assert_array_equal(together[[6, 2]], examples.take(np.array([6, 2]))[0])
    np.testing.assert_array_equal(examples[3].image, together[3])
    assert (labels == base.take(np.arange(8))[1]).all() and len(examples) == 8


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match='did you mean fog'):
        corruptions.corrupt(IMAGE, 'fogg', 1)
    with pytest.raises(UserError, match='expected 1 to 5'):
        corruptions.corrupt(IMAGE, 'fog', 6)
