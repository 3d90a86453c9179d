"""Augmentation on the device, against Pillow and against counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cvresearch.base.errors import UserError
from cvresearch.data import operations
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


@pytest.mark.parametrize(('degrees', 'shear', 'scale'), [(30, (10, -7), (1.2, 0.9)), (90, (0, 0), (1, 1))])
def test_turned_sheared_and_stretched_images_are_pillows_up_to_rounding(degrees, shear, scale):
    image = np.asarray(Image.fromarray(IMAGES[0]).resize((28, 28), Image.BICUBIC))
    inverse = operations.inverse_affine((14, 14), degrees, scale=scale, shear=shear)
    theirs = np.asarray(operations.affine(Image.fromarray(image), inverse, smooth=True), int)
    numbers = [tuple(map(jnp.float32, pair)) for pair in (shear, scale)]
    ours = augment.sampled(image, augment.inverse_affine(jnp.float32(degrees), *numbers), 'constant')
    inside = ndimage.binary_erosion(theirs.any(-1), iterations=2)  # at its rim Pillow mixes no black
    assert np.abs(np.asarray(ours, int) - theirs)[inside].max() <= 2 and inside.mean() > 0.5


def test_turns_reach_the_largest_angle_either_way_and_no_farther():
    line = np.zeros((400, 41, 41, 1), np.uint8)
    line[:, 20, 20:] = 255  # to the right of the centre
    turned = np.asarray(augment.Augment(rotate=30.0).images(line, KEYS), float)[..., 0]
    y, x = np.mgrid[-20:21, -20:21]
    angles = np.degrees(np.arctan2((turned * y).sum((1, 2)), (turned * x).sum((1, 2))))
    assert -31 < angles.min() < -27 and 27 < angles.max() < 31 and abs(angles.mean()) < 4
