"""Resizing in bounded memory: what Pillow and OpenCV give, or a window of it where all of it would be a bomb."""

import os
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest
from PIL import Image

from cvresearch.data import windows

RNG = np.random.default_rng(0)
SHAPES = [(40, 56), (7, 300), (300, 7), (1, 90), (90, 1)]
SIZES = [(24, 24), (64, 90), (80, 20)]


def window(size):
    return size[0] // 4, size[1] // 3, max(size[0] // 2, 1), max(size[1] // 2, 1)


def cut(pixels, place):
    top, left, height, width = place
    return pixels[top : top + height, left : left + width]


@pytest.mark.parametrize('kind', windows.PILLOW)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_pillow_whole_and_in_a_window(kind, shape, size, monkeypatch):
    pixels = RNG.integers(0, 256, (*shape, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], windows.PILLOW[kind]))
    np.testing.assert_array_equal(windows.pillow(pixels, size, kind), expected)
    np.testing.assert_array_equal(windows.pillow(pixels, size, kind, window(size)), cut(expected, window(size)))
    monkeypatch.setattr(windows, 'MOST_RESIZED', 1)
    if kind == 'nearest':  # between two pixels either may be chosen: of a slope, they are a level apart in each axis
        pixels = np.repeat(np.add.outer(np.arange(shape[0]), np.arange(shape[1]))[..., None] * 200 // 390, 3, 2)
        pixels = pixels.astype(np.uint8)
        expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], windows.PILLOW[kind]))
    found = windows.pillow(pixels, size, kind, window(size)).astype(int)
    assert np.abs(found - cut(expected, window(size))).max() <= (2 if kind == 'nearest' else 1)


@pytest.mark.parametrize('kind', windows.PILLOW)
def test_pillow_in_strips_and_upright(kind, monkeypatch):
    smooth = Image.fromarray(RNG.integers(0, 256, (6, 4, 3), np.uint8)).resize((40, 300), Image.Resampling.BICUBIC)
    expected = np.asarray(smooth.resize((60, 50), windows.PILLOW[kind])).astype(int)
    with monkeypatch.context() as patch:
        patch.setattr(windows, 'WHOLE', 1)
        patch.setattr(windows, 'STRIP', 40 * 7)
        assert np.abs(windows.pillow(np.asarray(smooth), (50, 60), kind) - expected).max() <= 1
    monkeypatch.setattr(windows, 'MOST_BETWEEN', 1)
    assert np.abs(windows.pillow(np.asarray(smooth), (50, 60), kind) - expected).max() <= 1


@pytest.mark.parametrize('kind', windows.OPENCV)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_opencv_whole_and_in_a_window(kind, shape, size, monkeypatch):
    pixels = RNG.integers(0, 256, (*shape, 3), np.uint8)
    expected = cut(cv2.resize(pixels, size[::-1], interpolation=windows.OPENCV[kind]), window(size))
    np.testing.assert_array_equal(windows.opencv(pixels, size, kind, window(size)), expected)
    monkeypatch.setattr(windows, 'MOST_RESIZED', 1)
    assert np.abs(windows.opencv(pixels, size, kind, window(size)).astype(int) - expected).max() <= 1


SLIVERS = [(2, 20_000), (1, 60_000), (60_000, 1), (20_000, 2), (1, 1), (1, 500_000)]
CROPS = [
    dict(name='resize_center_crop', size=224, resize=256),
    dict(name='random_resized_crop', size=224),
    dict(name='resize_random_crop', size=224, low=256, high=512),
    dict(name='center_crop_resize', size=224),
    dict(name='resize', size=224),
]
MEASURE = """
    import io, sys, time
    import numpy as np
    from PIL import Image
    from cvresearch.data import preprocessing, transforms
    shape, crops = eval(sys.argv[1]), eval(sys.argv[2])
    file = io.BytesIO()
    Image.fromarray(np.zeros((*shape, 3), np.uint8) + 77).save(file, 'PNG')
    transforms.make(dict(crop=dict(name='resize', size=224)))(file.getvalue(), {'crop': []})
    # Not getrusage's peak, which is inherited from the process of the tests.
    peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])
    before, began = peak(), time.process_time()
    for crop in crops:
        for antialias in (False, True):
            for kind in ('bilinear', 'bicubic', 'area'):
                made = transforms.make(dict(crop=crop, antialias=antialias, interpolation=kind))
                assert (made(file.getvalue(), {'crop': [0.5] * 40}) == 77).all(), (crop, antialias, kind)
    pixels = np.asarray(Image.open(file))
    assert preprocessing.Preprocessing()(pixels).shape == (224, 224, 3)
    print((peak() - before) / 1024, time.process_time() - began)
"""


@pytest.mark.parametrize('shape', SLIVERS, ids=str)
def test_slivers_take_bounded_memory_and_time(shape):
    command = [sys.executable, '-c', textwrap.dedent(MEASURE), repr(shape), repr(CROPS)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {'JAX_PLATFORMS': 'cpu'})
    assert done.returncode == 0, done.stderr
    mebibytes, seconds = map(float, done.stdout.split())
    assert mebibytes < 160 and seconds < 12
