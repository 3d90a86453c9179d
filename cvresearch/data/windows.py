"""Resizing in bounded memory: Pillow's or OpenCV's result, or a window of it alone where all of it would be a bomb.

A file of 208 bytes can hold 20,000 x 2 pixels. Resized so that the short side has 256, these are 650 million.
"""

import math

import cv2
import numpy as np
from PIL import Image

PILLOW = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
    'area': Image.Resampling.BOX,
}
OPENCV = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'lanczos': cv2.INTER_LANCZOS4,
    'area': cv2.INTER_AREA,
}
REACH = 3  # pixels of the larger scale to either side of a centre that Pillow's widest filter (Lanczos) looks at
MOST_RESIZED = 1 << 23  # pixels of a whole resized image; beyond, its window alone is computed
MOST_BETWEEN = 1 << 24  # pixels of an image with one side resized
WHOLE = 25_000_000  # pixels that Pillow, which copies them, is given at once: ImageNet's largest image has 21 million
STRIP = 1 << 22  # of larger ones, so many

Size = tuple[int, int]  # (height, width)
Window = tuple[int, int, int, int]  # (top, left, height, width)


def pillow(pixels: np.ndarray, size: Size, interpolation: str, window: Window | None = None) -> np.ndarray:
    """Resizes as `PIL.Image.resize` and returns a window of the result.

    The result is Pillow's, bit for bit. Where the image has more than `WHOLE` pixels or the result more than
    `MOST_RESIZED`, it is computed in parts, and a pixel may differ by a level; with bicubic and Lanczos by some levels
    at hard edges, where Pillow's order of the two passes cuts off other overshoots. Where two pixels are equally near,
    'nearest' may take the other one.

    Args:
      pixels: uint8 (height, width, channels), 1, 3 or 4 channels.
      size: of the whole result.
      interpolation: a key of `PILLOW`.
      window: what is returned, within `size`; None for the whole.
    """
    top, left, height, width = window or (0, 0, *size)
    rows, columns = slice(top, top + height), slice(left, left + width)
    if pixels.shape[:2] == size:
        return pixels[rows, columns]
    if size[0] * size[1] > MOST_RESIZED:
        return _pillow_window(pixels, size, PILLOW[interpolation], (top, left, height, width))
    # Where the width is changed first, a tall sliver can be far larger in between than before and after.
    if pixels.shape[0] * size[1] > MOST_BETWEEN:
        upright = _pillow_whole(pixels.swapaxes(0, 1), (size[1], size[0]), PILLOW[interpolation]).swapaxes(0, 1)
        return upright[rows, columns]
    return _pillow_whole(pixels, size, PILLOW[interpolation])[rows, columns]


def opencv(
    pixels: np.ndarray, size: Size, interpolation: str, window: Window, out: np.ndarray | None = None
) -> np.ndarray:
    """Resizes as `cv2.resize`, and returns a window of the result.

    Where the result has more than `MOST_RESIZED` pixels, a pixel may differ from OpenCV's by one level.

    Args:
      pixels: uint8 (height, width, 3).
      size: of the whole result.
      interpolation: a key of `OPENCV`.
      window: what is returned, within `size`.
      out: where the window is written; a new array if None.
    """
    top, left, height, width = window
    out = np.empty((height, width, pixels.shape[2]), np.uint8) if out is None else out
    if size[0] * size[1] > MOST_RESIZED:
        out[:] = _opencv_window(pixels, size, interpolation, window)
    elif size == (height, width):
        cv2.resize(pixels, size[::-1], dst=out, interpolation=OPENCV[interpolation])
    else:
        resized = cv2.resize(pixels, size[::-1], interpolation=OPENCV[interpolation])
        out[:] = resized[top : top + height, left : left + width]
    return out


def _pillow_whole(pixels: np.ndarray, size: Size, kind: int) -> np.ndarray:
    height, width, channels = pixels.shape
    # Pillow rounds to 8 bits between its two passes, and so do these. Of four channels it takes one for the alpha.
    if height * width > WHOLE and channels < 4:
        rows = max(STRIP // width, 1)
        between = np.empty((height, size[1], channels), np.uint8)
        for top in range(0, height, rows):
            strip = pixels[top : top + rows]
            between[top : top + rows] = _resized(strip, (len(strip), size[1]), kind)
        pixels = between
    return _resized(pixels, size, kind)


def _pillow_window(pixels: np.ndarray, size: Size, kind: int, window: Window) -> np.ndarray:
    cuts, box = [], []
    for length, to, start, count in zip(pixels.shape, size, window[:2], window[2:], strict=False):
        scale = length / to
        low, high = start * scale, min((start + count) * scale, length)
        margin = math.ceil(REACH * max(scale, 1)) + 1
        first, last = max(math.floor(low) - margin, 0), min(math.ceil(high) + margin, length)
        cuts.append(slice(first, last))
        box.append((low - first, high - first))
    (upper, lower), (left, right) = box
    return _resized(pixels[tuple(cuts)], window[2:], kind, (left, upper, right, lower))


def _resized(pixels: np.ndarray, size: Size, kind: int, box: tuple | None = None) -> np.ndarray:
    flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    done = Image.fromarray(np.ascontiguousarray(flat)).resize((size[1], size[0]), kind, box)
    return np.asarray(done).reshape(*size, pixels.shape[2])


def _opencv_window(pixels: np.ndarray, size: Size, interpolation: str, window: Window) -> np.ndarray:
    if interpolation == 'area' and (size[0] > pixels.shape[0] or size[1] > pixels.shape[1]):
        interpolation = 'enlarging area'
    taps = []
    for axis in (0, 1):
        index, weights = _taps(interpolation, pixels.shape[axis], size[axis], window[axis], window[axis + 2])
        taps.append((index.clip(0, pixels.shape[axis] - 1), weights))
    # Both axes are cut before either is resized: enlarged in one, a sliver of full length is a bomb again.
    pixels = pixels[tuple(slice(index.min(), index.max() + 1) for index, _ in taps)].astype(np.float64)
    for axis, (index, weights) in enumerate(taps):
        # The place of the axis comes last, so that a tap's weights are multiplied along it.
        lines = pixels.swapaxes(axis, 2)
        pixels = np.asarray(
            sum(lines[..., index[:, tap] - index.min()] * weights[:, tap] for tap in range(index.shape[1]))
        ).swapaxes(axis, 2)
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _taps(interpolation: str, length: int, to: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which pixels of a line OpenCV mixes, int64 (count, taps), and their weights; indices may lie outside."""
    scale, places = length / to, np.arange(start, start + count)
    if interpolation == 'nearest':
        return np.floor(places * scale).astype(np.int64)[:, None], np.ones((count, 1))
    if interpolation == 'area':
        index = np.floor(places * scale).astype(np.int64)[:, None] + np.arange(math.ceil(scale) + 1)
        low = places[:, None] * scale
        share = np.minimum(low + scale, index + 1) - np.maximum(low, index)
        return index, share.clip(0) / scale
    if interpolation == 'enlarging area':
        first = np.floor(places * scale)
        part = places + 1 - (first + 1) / scale
        part = np.where(part <= 0, 0, part - np.floor(part))
        return first.astype(np.int64)[:, None] + np.arange(2), np.stack([1 - part, part], 1)
    centre = (places + 0.5) * scale - 0.5
    half = {'bilinear': 1, 'bicubic': 2, 'lanczos': 4}[interpolation]
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(1 - half, half + 1)
    away = np.abs(centre[:, None] - index)
    if interpolation == 'bilinear':
        weights = 1 - away
    elif interpolation == 'bicubic':  # Keys 1981, with OpenCV's a = -3/4
        a = -0.75
        near = ((a + 2) * away - (a + 3)) * away**2 + 1
        weights = np.where(away <= 1, near, ((a * away - 5 * a) * away + 8 * a) * away - 4 * a)
    else:
        weights = np.sinc(away) * np.sinc(away / 4)
    return index, weights / weights.sum(1, keepdims=True)
