"""Augmentation on the device, against Pillow and against counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvresearch.base.errors import UserError
from cvresearch.engine import augment

KEYS = jax.random.split(jax.random.key(0), 400)
IMAGES = np.random.default_rng(0).integers(1, 256, (400, 12, 12, 3)).astype(np.uint8)


def test_resize_is_pillows_up_to_rounding():
    smooth = np.stack([np.asarray(Image.fromarray(image).resize((24, 24), Image.BICUBIC)) for image in IMAGES[:4]])
    ours = augment.Augment(resize=9).images(smooth, KEYS[:4])
    theirs = [np.asarray(Image.fromarray(image).resize((9, 9), Image.BILINEAR)) for image in smooth]
    assert np.abs(np.asarray(ours, int) - np.stack(theirs)).max() <= 1


@pytest.mark.parametrize(('border', 'mode'), [('black', 'constant'), ('reflect', 'reflect'), ('edge', 'edge')])
def test_shift_cuts_out_of_the_padded_image_and_reaches_every_place(border, mode):
    shifted = np.asarray(augment.Augment(shift=2, border=border).images(IMAGES, KEYS))
    places = set()
    for image, result in zip(IMAGES, shifted, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode=mode)
        found = [(y, x) for y in range(5) for x in range(5) if (padded[y : y + 12, x : x + 12] == result).all()]
        assert found
        places |= set(found)
    assert len(places) == 25


def test_cutout_is_a_square_cut_off_at_the_border():
    ones = jnp.ones((400, 12, 12, 3))
    erased = np.asarray(augment.Augment(cutout=4).erase(ones, KEYS))[..., 0] == 0
    sizes = erased.sum(axis=(1, 2))
    assert sizes.max() == 16 and sizes.min() == 4 and set(sizes) <= {a * b for a in (2, 3, 4) for b in (2, 3, 4)}
    boxes = [np.ptp(np.nonzero(image), axis=1) + 1 for image in erased]
    assert all(height * width == size for (height, width), size in zip(boxes, sizes, strict=True))


def test_erasing_draws_rectangles_of_the_papers_sizes_with_its_probability():
    ones = jnp.ones((400, 32, 32, 3))
    erased = np.asarray(augment.Augment(erasing=0.25).erase(ones, KEYS))[..., 0] == 0
    sizes = erased.sum(axis=(1, 2))
    assert 65 < (sizes > 0).sum() < 135  # 100, and four deviations
    boxes = np.array([np.ptp(np.nonzero(image), axis=1) + 1 for image in erased[sizes > 0]])
    np.testing.assert_array_equal(boxes.prod(axis=1), sizes[sizes > 0])
    shares, ratios = boxes.prod(axis=1) / 1024, boxes[:, 0] / boxes[:, 1]
    assert 0.01 < shares.min() < 0.1 and 0.25 < shares.max() < 0.36  # sides are rounded
    assert 0.2 < ratios.min() < 0.6 and 1.7 < ratios.max() < 4


def test_erasing_keeps_to_the_area_and_the_ratio_that_it_is_given():
    ones = jnp.ones((400, 40, 40, 1))
    erasing = augment.Augment(erasing=1.0, erasing_area=(0.3, 0.5), erasing_ratio=(1.5, 2.0))
    erased = np.asarray(erasing.erase(ones, KEYS))[..., 0] == 0
    boxes = np.array([np.ptp(np.nonzero(image), axis=1) + 1 for image in erased])
    shares, ratios = boxes.prod(axis=1) / 1600, boxes[:, 0] / boxes[:, 1]
    assert 0.28 < shares.min() < 0.33 and 0.45 < shares.max() < 0.53  # sides are rounded
    assert 1.4 < ratios.min() < 1.6 and 1.9 < ratios.max() < 2.1


@pytest.mark.parametrize(
    ('knobs', 'message'),
    [
        (dict(cutout=-1), 'expected at least 0'),
        (dict(erasing=1.5), 'expected a probability'),
        (dict(border='mirror'), 'unknown augment.border'),
        (dict(erasing_area=(0.4, 0.2)), 'the smaller first'),
        (dict(erasing_area=(0.1, 1.2)), 'erasing_area is'),
        (dict(erasing_ratio=(0, 2)), 'above 0'),
    ],
)
def test_mistakes(knobs, message):
    with pytest.raises(UserError, match=message):
        augment.make(knobs)
