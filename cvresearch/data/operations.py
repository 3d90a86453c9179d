"""The operations of augmentation policies, on Pillow images, each with a magnitude.

Names, meaning and sampling follow AutoAugment (Cubuk et al. 2018, arXiv:1805.09501, table 6) as torchvision
has them, which every test compares them with.
"""

import math
from collections.abc import Callable
from typing import cast

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Fill = int | tuple[int, ...]  # what is uncovered: grey or RGB, 0 to 255
Operation = Callable[[Image.Image, float, Fill], Image.Image]  # image, magnitude, what is uncovered


def rgb(fill: Fill) -> tuple[int, ...]:
    """Returns the colour as RGB."""
    return (fill,) * 3 if isinstance(fill, int) else tuple(fill)


def affine(image: Image.Image, inverse: tuple[float, ...], fill: Fill = 0, smooth: bool = False) -> Image.Image:
    """Returns an image whose pixel (x, y) is the pixel of `image` at inverse * (x, y, 1).

    Args:
      image: RGB.
      inverse: a, b, c, d, e, f: x' = a x + b y + c, y' = d x + e y + f.
      fill: grey value or RGB of what lies outside.
      smooth: bilinear rather than nearest.
    """
    resample = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return image.transform(image.size, Image.Transform.AFFINE, inverse, resample, fillcolor=rgb(fill))


def inverse_affine(
    center: tuple[float, float],
    degrees: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    shear: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, ...]:
    """Returns the inverse of: stretch, shear, rotate about the centre, then translate.

    Args:
      center: x and y of the fixed point, in pixels.
      degrees: of the rotation, clockwise as seen.
      translate: x and y, in pixels.
      scale: of width and height.
      shear: along x and along y, in degrees, as torchvision has them: the rows of the turned image are sheared
        after its columns.
    """
    angle, (sx, sy) = math.radians(degrees), map(math.radians, shear)
    turn_and_shear = np.array(
        [
            [
                math.cos(angle - sy) / math.cos(sy),
                -math.cos(angle - sy) * math.tan(sx) / math.cos(sy) - math.sin(angle),
            ],
            [
                math.sin(angle - sy) / math.cos(sy),
                -math.sin(angle - sy) * math.tan(sx) / math.cos(sy) + math.cos(angle),
            ],
        ]
    )
    inverse = np.linalg.inv(turn_and_shear @ np.diag(scale))
    offset = np.array(center) - inverse @ (np.array(center) + translate)
    (a, b), (d, e) = inverse.tolist()
    return a, b, float(offset[0]), d, e, float(offset[1])


def blend(enhancer: type, image: Image.Image, magnitude: float) -> Image.Image:
    """Returns the image moved away from its degenerate form (Pillow's ImageEnhance), by 1 + magnitude."""
    return enhancer(image).enhance(1 + magnitude)


def hue(image: Image.Image, turn: float) -> Image.Image:
    """Returns the image with its hue turned by a share of the circle, -1/2 to 1/2."""
    h, s, v = image.convert('HSV').split()
    shifted = np.asarray(h) + np.array(int(turn * 255)).astype(np.uint8)  # wraps around
    return Image.merge('HSV', (Image.fromarray(shifted), s, v)).convert('RGB')


def _shear_x(image: Image.Image, magnitude: float, fill: Fill) -> Image.Image:
    return affine(image, (1.0, magnitude, 0.5 * magnitude - 0.5 * magnitude, 0.0, 1.0, 0.0), fill)


def _shear_y(image: Image.Image, magnitude: float, fill: Fill) -> Image.Image:
    return affine(image, (1.0, 0.0, 0.0, magnitude, 1.0, 0.0), fill)


def _translate_x(image: Image.Image, magnitude: float, fill: Fill) -> Image.Image:
    return affine(image, (1.0, 0.0, -float(int(magnitude)), 0.0, 1.0, 0.0), fill)


def _translate_y(image: Image.Image, magnitude: float, fill: Fill) -> Image.Image:
    return affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, -float(int(magnitude))), fill)


OPERATIONS: dict[str, Operation] = {
    'Identity': lambda image, magnitude, fill: image,
    'ShearX': _shear_x,
    'ShearY': _shear_y,
    'TranslateX': _translate_x,
    'TranslateY': _translate_y,
    'Rotate': lambda image, magnitude, fill: image.rotate(magnitude, fillcolor=rgb(fill)),
    'Brightness': lambda image, magnitude, fill: blend(ImageEnhance.Brightness, image, magnitude),
    'Color': lambda image, magnitude, fill: blend(ImageEnhance.Color, image, magnitude),
    'Contrast': lambda image, magnitude, fill: blend(ImageEnhance.Contrast, image, magnitude),
    'Sharpness': lambda image, magnitude, fill: blend(ImageEnhance.Sharpness, image, magnitude),
    'Posterize': lambda image, magnitude, fill: ImageOps.posterize(image, int(magnitude)),
    'Solarize': lambda image, magnitude, fill: ImageOps.solarize(image, cast(int, magnitude)),  # any number will do
    'AutoContrast': lambda image, magnitude, fill: ImageOps.autocontrast(image),
    'Equalize': lambda image, magnitude, fill: ImageOps.equalize(image),
    'Invert': lambda image, magnitude, fill: ImageOps.invert(image),
}
SIGNED = frozenset(
    ('ShearX', 'ShearY', 'TranslateX', 'TranslateY', 'Rotate', 'Brightness', 'Color', 'Contrast', 'Sharpness')
)
WITHOUT_MAGNITUDE = frozenset(('Identity', 'AutoContrast', 'Equalize', 'Invert'))
