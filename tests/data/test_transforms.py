"""Transforms on the host, value by value against torchvision's (goldens/generate.py) and against arithmetic."""

import dataclasses
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from cvresearch.base.errors import UserError
from cvresearch.data import crops, operations, policies, transforms, windows
from cvresearch.data.prng import example_keys, normals, uniforms

GOLDEN = dict(np.load(Path(__file__).parent / 'goldens' / 'transforms.npz'))
DATA, IMAGE = GOLDEN['jpeg'].tobytes(), Image.fromarray(GOLDEN['pixels'])
HEIGHT, WIDTH = GOLDEN['pixels'].shape[:2]
MODES = {'nearest': 'nearest', 'bilinear': 'bilinear', 'bicubic': 'bicubic', 'lanczos': 'lanczos', 'area': 'box'}
SAME = dict(fast=False, antialias=True)  # as Pillow has it


def golden(pattern):
    return [name for name in GOLDEN if name.startswith(pattern)]


def test_random_resized_crop_takes_torchvisions_boxes():
    crop = crops.RandomResizedCrop(32)
    for (height, width), u, box in zip(GOLDEN['shapes'], GOLDEN['numbers'], GOLDEN['boxes'], strict=True):
        assert crop.plan(int(height), int(width), u.tolist()).box == tuple(box)


def test_erasing_takes_torchvisions_boxes():
    transform = transforms.Transform(crop=crops.Resize(64), erasing=1.0, erasing_area=(0.02, 0.6), fill='black')
    for u, (top, left, height, width) in zip(GOLDEN['numbers'], GOLDEN['erased'], strict=True):
        pixels, expected = (np.full((64, 64, 3), 200, np.uint8) for _ in range(2))
        transform._erase(pixels, [0.0, 0.0, 0.0, 0.0, 0.0, *u.tolist()])
        if (height, width) != (64, 64):  # torchvision's way of saying that nothing fitted
            expected[top : top + height, left : left + width] = 0
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize('mode', MODES)
def test_resize_and_centre_crop_and_resized_box_are_torchvisions(mode):
    transform = transforms.Transform(crop=crops.ResizeCenterCrop(20, resize=24), interpolation=mode, **SAME)
    np.testing.assert_array_equal(transform(DATA, {'crop': []}), GOLDEN[f'resize/{MODES[mode]}'])

    class Fixed(crops.Crop):
        def plan(self, height, width, u):
            return crops.Plan((5, 7, 25, 30), (20, 20))

    transform = dataclasses.replace(transform, crop=Fixed(20))
    np.testing.assert_array_equal(transform(DATA, {'crop': []}), GOLDEN[f'box/{MODES[mode]}'])


@pytest.mark.parametrize('name', golden('op/'))
def test_operation_is_torchvisions(name):
    _, operation, level, sign = name.split('/')
    side = HEIGHT if operation.endswith('Y') else WIDTH
    value = int(sign) * policies.magnitude(operation, int(level) / 9, side)
    ours = np.asarray(operations.OPERATIONS[operation](IMAGE, value, 0))
    np.testing.assert_array_equal(ours, GOLDEN[name])


@pytest.mark.parametrize('name', golden('magnitudes/'))
def test_magnitudes_are_torchvisions(name):
    _, kind, operation = name.split('/')
    expected = np.atleast_1d(GOLDEN[name])
    side = HEIGHT if operation.endswith('Y') else WIDTH
    strengths = np.linspace(0, 1, len(expected)) if len(expected) > 1 else [0.0]
    ours = [policies.magnitude(operation, strength, side, wide=kind == 'wide') for strength in strengths]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('learned_on', ['imagenet', 'cifar10', 'svhn'])
def test_auto_augment_is_torchvisions(learned_on):
    policy = policies.AutoAugment(learned_on=learned_on)
    for number, expected in enumerate(GOLDEN[f'policy/{learned_on}']):
        chances = [-1.0, -1.0]  # both operations, whatever their probability; the first with its sign turned
        ours = policy(IMAGE, [(number + 0.5) / 25, *chances, 0.0, 0.9])
        np.testing.assert_array_equal(np.asarray(ours), expected, err_msg=str(number))
    probabilities = [[part[1] for part in pair] for pair in policies.SUB_POLICIES[learned_on]]
    np.testing.assert_array_equal(probabilities, GOLDEN[f'chances/{learned_on}'])


def test_rand_and_trivial_augment_apply_what_their_numbers_say():
    choice = (policies.CHOICES.index('Solarize') + 0.5) / len(policies.CHOICES)
    rand = policies.RandAugment(layers=1, magnitude=15, bins=31)
    expected = operations.OPERATIONS['Solarize'](IMAGE, 127.5, 0)
    assert rand(IMAGE, [choice, 0.0, 0.0, 0.0]).tobytes() == expected.tobytes()
    trivial = policies.TrivialAugment(bins=31)
    assert trivial(IMAGE, [choice, 15.5 / 31, 0.0]).tobytes() == expected.tobytes()
    noisy = policies.RandAugment(layers=1, magnitude=15, bins=31, magnitude_std=3.0)
    assert noisy(IMAGE, [choice, 0.0, 0.5, 0.0]).tobytes() != expected.tobytes()


@pytest.mark.parametrize(
    ('name', 'enhancer'),
    [('brightness', ImageEnhance.Brightness), ('contrast', ImageEnhance.Contrast), ('saturation', ImageEnhance.Color)],
)
def test_colour_changes_are_torchvisions(name, enhancer):
    for factor, expected in zip((0.1, 0.7, 1.0, 1.6), GOLDEN[name], strict=True):
        np.testing.assert_array_equal(np.asarray(operations.blend(enhancer, IMAGE, factor - 1)), expected)


def test_hue_is_torchvisions():
    for turn, expected in zip((-0.5, -0.2, 0.1, 0.45), GOLDEN['hue'], strict=True):
        np.testing.assert_array_equal(np.asarray(operations.hue(IMAGE, turn)), expected)


def test_affine_is_torchvisions():
    cases = (25.0, (3, -5), 1.0, (0, 0)), (0.0, (0, 0), 1.3, (0, 0)), (0.0, (0, 0), 1.0, (20.0, -10.0)), (
        -110.0, (-4, 2), 0.8, (8.0, 15.0))  # fmt: skip
    for (degrees, move, scale, shear), expected in zip(cases, GOLDEN['affine'], strict=True):
        inverse = operations.inverse_affine((WIDTH / 2, HEIGHT / 2), degrees, move, (scale, scale), shear)
        np.testing.assert_array_equal(np.asarray(operations.affine(IMAGE, inverse, smooth=True)), expected)


def test_colour_jitter_is_within_its_bounds_and_in_every_order():
    transform = transforms.Transform(crop=crops.Resize(8), brightness=0.4, contrast=0.4)
    grey = np.full((8, 8, 3), 100, np.uint8)
    for u, expected in ((0.0, 60), (0.5, 100), (0.999999, 140)):
        pixels = grey.copy()
        transform._colour(pixels, [u, 0.5, 0.5, 0.5, 0.1, 0.2, 0.3, 0.4])
        assert abs(int(pixels[0, 0, 0]) - expected) <= 1
    split = np.concatenate([np.full((4, 8, 3), 40, np.uint8), np.full((4, 8, 3), 200, np.uint8)])
    orders = set()
    for first in (0.1, 0.3):  # brightness before contrast, and after it: 240 is cut off at 255 in one of them
        pixels = split.copy()
        transform._colour(pixels, [0.999, 0.0, 0.5, 0.5, first, 0.2, 0.5, 0.6])
        orders.add(pixels.tobytes())
    assert len(orders) == 2


def test_lighting_adds_the_papers_sum_of_components():
    transform = transforms.Transform(crop=crops.Resize(4), lighting=0.1)
    u = [0.3, 0.6, 0.9, 0.1, 0.4, 0.7]
    alpha = 0.1 * np.sqrt(-2 * np.log1p(-np.array(u[:3]))) * np.cos(2 * np.pi * np.array(u[3:]))
    # Equation of section 4.1: [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T, to pixels in [0, 1].
    shift = sum(transforms.EIGENVECTORS[:, k] * alpha[k] * transforms.EIGENVALUES[k] for k in range(3))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    expected = np.rint((pixels / 255 + shift) * 255).clip(0, 255)
    transform._lighting(pixels, u)
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_allclose(transforms.EIGENVECTORS.T @ transforms.EIGENVECTORS, np.eye(3), atol=2e-3)


def test_cutout_is_a_square_that_may_reach_over_the_border():
    transform = transforms.Transform(crop=crops.Resize(32), cutout=8, fill='mean')
    for u, count in (([0.5, 0.5, 0.0], 64), ([0.0, 0.0, 0.0], 16), ([0.999, 0.5, 0.0], 40)):
        pixels = np.zeros((32, 32, 3), np.uint8)
        transform._cutout(pixels, u)
        assert (pixels == transforms.MEAN).all(axis=-1).sum() == count


def test_shape_knobs_are_those_of_the_affine_map():
    transform = transforms.Transform(crop=crops.Resize(32), rotate=30.0, translate=0.25, stretch=0.5, shear=10.0)
    pixels = np.asarray(IMAGE.resize((32, 32)))
    u = [1.0, 1.0, 0.5, 1.0, 0.0, 0.5, 1.0]
    inverse = operations.inverse_affine((16, 16), 30.0, (8, 0), (1.5, 1 / 1.5), (0.0, 10.0))
    expected = np.asarray(operations.affine(Image.fromarray(pixels), inverse, smooth=True))
    ours = pixels.copy()
    transform._shape(ours, u)
    np.testing.assert_array_equal(ours, expected)


def test_alexnets_crop_has_its_2048_positions():
    crop = crops.ResizeRandomCrop(224, square=True)
    grid = np.linspace(0, 0.9999, 64)
    places = {crop.plan(300, 400, [0.0, y, x])[2:] for y in grid for x in grid}
    assert len(places) == 32 * 32
    tops, lefts = zip(*places, strict=True)
    assert (min(tops), max(tops)) == (0, 31)
    assert (min(lefts), max(lefts)) == ((341 - 256) // 2, (341 - 256) // 2 + 31)


def test_vggs_scale_jitter_is_uniform_over_256_to_512():
    crop = crops.ResizeRandomCrop(224, low=256, high=512)
    shorts = [min(crop.plan(500, 375, [u, 0.0, 0.0]).size) for u in np.linspace(0, 0.99999, 25700)]
    assert (min(shorts), max(shorts)) == (256, 512)
    assert np.ptp(np.bincount(shorts)[256:]) <= 1


def test_centre_crop_of_tensorflows_efficientnets():
    # crop_padding 32: 224 / 256 of the short side, the offset rounded up (preprocessing.py of the EfficientNet paper).
    plan = crops.CenterCropResize(224, margin=32).plan(375, 500)
    assert plan.box == ((375 - 328 + 1) // 2, (500 - 328 + 1) // 2, 328, 328)


def test_knobs_without_antialias_are_opencvs():
    for mode, flag in windows.OPENCV.items():
        transform = transforms.Transform(crop=crops.Resize(20), interpolation=mode, fast=False)
        expected = cv2.resize(GOLDEN['pixels'], (20, 20), interpolation=flag)
        np.testing.assert_array_equal(transform(DATA, {'crop': []}), expected)


@pytest.mark.parametrize('size', [16, 40, 100])
def test_fast_decoding_stays_close_to_the_exact_one(size):
    # A photograph-like image: smooth. Half-size decoding is a 2x2 mean of it, up to rounding.
    smooth = Image.fromarray(np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)).resize((320, 240), 3)
    file = io.BytesIO()
    smooth.save(file, 'JPEG', quality=95)
    both = [
        transforms.Transform(crop=crops.Resize(size), fast=fast, interpolation='area')(file.getvalue(), {'crop': []})
        for fast in (True, False)
    ]
    difference = np.abs(both[0].astype(int) - both[1])
    assert difference.mean() < 1.5 and (both[0] != both[1]).any()


def test_flip_and_channels():
    plain = transforms.Transform(crop=crops.Resize(20))
    u = {'crop': [], 'flip': [0.3]}
    flipped = dataclasses.replace(plain, flip=0.5)(DATA, u)
    np.testing.assert_array_equal(flipped, plain(DATA, u)[:, ::-1])
    np.testing.assert_array_equal(dataclasses.replace(plain, flip=0.2)(DATA, u), plain(DATA, u))
    np.testing.assert_array_equal(dataclasses.replace(plain, channels='BGR')(DATA, u), plain(DATA, u)[..., ::-1])


def test_draws_are_uniform_independent_and_of_the_key_alone():
    keys = example_keys(3, np.zeros(20000, int), np.arange(20000))
    u = uniforms(keys, 'crop', 4)
    np.testing.assert_array_equal(u[137], uniforms(keys[137:138], 'crop', 4)[0])
    assert abs(u.mean() - 0.5) < 0.005 and u.min() >= 0 and u.max() < 1
    every = np.concatenate([u, uniforms(keys, 'flip', 2)], axis=1)
    assert np.abs(np.corrcoef(every.T) - np.eye(6)).max() < 0.03  # 4 deviations of 20,000 pairs
    counts = np.histogram(u[:, 0], 100, (0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 99 + 5 * 14  # chi-square, 99 degrees of freedom
    assert len(np.unique(example_keys(0, np.repeat(np.arange(90), 1000), np.tile(np.arange(1000), 90)))) == 90_000
    z = normals(keys, 'noise', 3)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (dict(flipp=0.5), "takes no argument 'flipp'; did you mean flip"),
        (dict(flip=2.0), 'flip is 2.0; expected 0 to 1'),
        (dict(interpolation='cubic'), 'did you mean bicubic'),
        (dict(crop=dict(name='random_crop')), "unknown crop 'random_crop'"),
        (dict(crop=dict(name='resize_center_crop', size=224, resize=200)), 'resize is 200; expected at least the size'),
        (dict(crop=dict(name='random_resized_crop', scale=(0.5, 0.1))), 'in rising order'),
        (dict(policy=dict(name='rand_augment', magnitude=40)), 'expected layers >= 0 and a magnitude of 0 to bins - 1'),
        (dict(policy=dict(name='auto_augment', learned_on='mnist')), 'unknown AutoAugment policy'),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError) as error:
        transforms.make(spec)
    assert message in str(error.value)
