"""Where test-time crops lie: the geometry of the papers' evaluation protocols, as pure functions.

A protocol maps an image's (height, width) and the side of the net's input to views. Lengths that papers give
in pixels for a 224-pixel input (256, 288, ...) are here in parts of the input, so that they hold for any.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data import windows
from cvresearch.data.modes import DamagedError

Size = tuple[int, int]  # (height, width)
Box = tuple[int, int, int, int]  # (top, left, height, width)


@dataclasses.dataclass(frozen=True)
class View:
    """One thing that a net is shown: the image resized, a box of that, resized again, perhaps mirrored.

    Attributes:
      resized: (height, width) of the whole image before cropping.
      box: (top, left, height, width) in the resized image.
      out: (height, width) of the view; the size of the box unless the box is resized once more.
      flip: mirrored left to right.
    """

    resized: Size
    box: Box
    out: Size
    flip: bool = False


def short_side(size: Size, target: int) -> Size:
    """Returns the size at which the shorter side is `target` and the aspect ratio is kept, rounded down."""
    short = min(size)
    rows, columns = (target if side == short else target * side // short for side in size)
    return rows, columns


def centre(size: Size, side: int, resize: int) -> list[View]:
    """The single centre crop: shorter side to `resize`, then the middle `side` x `side`."""
    resized = short_side(size, resize)
    return [_view(resized, (_middle(resized[0], side), _middle(resized[1], side)), side)]


def squashed(size: Size, side: int, fraction: float = 0.875) -> list[View]:
    """Inception's single crop: the middle `fraction` of both sides, resized to `side` x `side` whatever its ratio.

    TF-slim, preprocessing/inception_preprocessing.py, preprocess_for_eval; the margin is rounded down there.
    """
    top, left = (int((n - n * fraction) / 2) for n in size)
    return [View(size, (top, left, size[0] - 2 * top, size[1] - 2 * left), (side, side))]


def ten(size: Size, side: int, resize: int, square: bool = True) -> list[View]:
    """Four corners and the centre, and the five mirrored.

    Args:
      size: of the image.
      side: of the crops.
      resize: the shorter side before cropping.
      square: take the corners of the central square (Krizhevsky et al. 2012, sections 2 and 4.1), or of the
        whole image (fb.resnet.torch, datasets/transforms.lua, TenCrop).
    """
    resized = short_side(size, resize)
    region = _central_square(resized) if square else (0, 0, *resized)
    return mirrored([_view(resized, place, side) for place in _corners_and_centre(region, side)])


def hundred_and_forty_four(size: Size, side: int) -> list[View]:
    """GoogLeNet's: 4 scales x 3 squares x (4 corners, centre, whole square) x 2 (Szegedy et al. 2014, section 7).

    Shorter sides of 256, 288, 320 and 352 for 224; squares at the left, centre and right (top, centre and bottom
    of upright images).
    """
    views = []
    for sevenths in (8, 9, 10, 11):
        resized = short_side(size, scaled(side, sevenths))
        short, spare = min(resized), max(resized) - min(resized)
        for offset in (0, _middle(max(resized), short), spare):
            top, left = (offset, 0) if resized[0] > resized[1] else (0, offset)
            square = (top, left, short, short)
            views += [_view(resized, place, side) for place in _corners_and_centre(square, side)]
            views.append(View(resized, square, (side, side)))
    return mirrored(views)


def grid(size: Size, side: int, resizes: Sequence[int], number: int = 5) -> list[View]:
    """VGG's multi-crop: a regular grid of `number` x `number` crops, mirrored, at each scale.

    Simonyan & Zisserman 2014, section 3.2: 5 x 5 x 2 = 50 crops a scale, 150 over three. The grid's first and last
    rows and columns touch the border.
    """
    views = []
    for resize in resizes:
        resized = short_side(size, resize)
        rows, columns = ([round(i * (n - side) / (number - 1)) for i in range(number)] for n in resized)
        views += [_view(resized, (top, left), side) for top in rows for left in columns]
    return mirrored(views)


def whole(size: Size, resizes: Sequence[int]) -> list[View]:
    """The whole image at each scale, and mirrored: what a net is shown in dense evaluation."""
    sizes = [short_side(size, resize) for resize in resizes]
    return mirrored([View(resized, (0, 0, *resized), resized) for resized in sizes])


def mirrored(views: list[View]) -> list[View]:
    """Returns the views, and then each of them mirrored left to right."""
    return views + [dataclasses.replace(view, flip=True) for view in views]


def scaled(side: int, sevenths: int) -> int:
    """Returns so many sevenths of the input's side: 8 are the 256 of a 224-pixel input."""
    return round(Fraction(side * sevenths, 7))


def cut(image: np.ndarray, views: Sequence[View], interpolation: str = 'bilinear') -> list[np.ndarray]:
    """Returns the views of an image, each uint8 (height, width, channels).

    Args:
      image: uint8 (height, width, channels), 1, 3 or 4 channels.
      views: as a protocol gives them for this image's size.
      interpolation: 'nearest', 'bilinear' or 'bicubic', averaging over the pixels where it shrinks.

    Raises:
      UserError: a crop reaches over the image's border.
      DamagedError: the image is so narrow that a view of it has more than `windows.MOST_RESIZED` pixels.
    """
    resized: dict[Size, np.ndarray] = {}
    crops = []
    for view in views:
        top, left, height, width = view.box
        if min(top, left) < 0 or top + height > view.resized[0] or left + width > view.resized[1]:
            raise UserError(f'a crop of {height}x{width} does not fit in an image of {view.resized}; resize it larger')
        if height * width > windows.MOST_RESIZED and view.resized != image.shape[:2]:
            raise DamagedError(f'{image.shape[1]} x {image.shape[0]} pixels become {width} x {height}: too narrow')
        if math.prod(view.resized) > windows.MOST_RESIZED:  # a sliver: a part of it is computed
            pixels = windows.pillow(image, view.resized, interpolation, view.box)
        else:
            if view.resized not in resized:
                resized[view.resized] = resize(image, view.resized, interpolation)
            pixels = resized[view.resized][top : top + height, left : left + width]
        pixels = resize(pixels, view.out, interpolation)
        crops.append(pixels[:, ::-1] if view.flip else pixels)
    return crops


def resize(image: np.ndarray, size: Size, interpolation: str = 'bilinear') -> np.ndarray:
    """Returns a uint8 image at (height, width); itself if it has that size."""
    return windows.pillow(image, size, interpolation)


Views = Callable[[Size], list[View]]


def _view(resized: Size, place: tuple[int, int], side: int) -> View:
    return View(resized, (*place, side, side), (side, side))


def _middle(length: int, side: int) -> int:
    return round((length - side) / 2)


def _central_square(size: Size) -> Box:
    side = min(size)
    return (_middle(size[0], side), _middle(size[1], side), side, side)


def _corners_and_centre(region: Box, side: int) -> list[tuple[int, int]]:
    """Returns (top, left) of the crops: upper left, upper right, lower left, lower right, centre."""
    top, left, height, width = region
    bottom, right = top + height - side, left + width - side
    middle = (top + _middle(height, side), left + _middle(width, side))
    return [(top, left), (top, right), (bottom, left), (bottom, right), middle]
