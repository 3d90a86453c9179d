"""The operations of timm's RandAugment, and what their levels mean (timm 1.0.31, timm/data/auto_augment.py).

Names are timm's. A level is 0 to 10; more where a policy allows it.
"""

from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

from cvresearch.data.operations import Fill, rgb

# What is drawn from. In the first list Posterize and Solarize are weaker at higher levels, and the four of
# ImageEnhance go from one extreme to the other: 0.1 at level 0, 1 (no change) at 5, 1.9 at 10.
DECREASING = (
    'AutoContrast',
    'Equalize',
    'Invert',
    'Rotate',
    'Posterize',
    'Solarize',
    'SolarizeAdd',
    'Color',
    'Contrast',
    'Brightness',
    'Sharpness',
    'ShearX',
    'ShearY',
    'TranslateXRel',
    'TranslateYRel',
)
INCREASING = (
    'AutoContrast',
    'Equalize',
    'Invert',
    'Rotate',
    'PosterizeIncreasing',
    'SolarizeIncreasing',
    'SolarizeAdd',
    'ColorIncreasing',
    'ContrastIncreasing',
    'BrightnessIncreasing',
    'SharpnessIncreasing',
    'ShearX',
    'ShearY',
    'TranslateXRel',
    'TranslateYRel',
)
_ENHANCERS = ('Color', 'Contrast', 'Brightness', 'Sharpness')
RESAMPLE = {
    'bilinear': (Image.Resampling.BILINEAR,),
    'bicubic': (Image.Resampling.BICUBIC,),
    'random': (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC),
}

_ARGUMENTS: dict[str, Callable[[float, int], float]] = {  # of level / 10 and the sign
    'Rotate': lambda part, sign: sign * (part * 30.0),  # degrees
    'Posterize': lambda part, sign: int(part * 4),  # bits kept
    'PosterizeIncreasing': lambda part, sign: 4 - int(part * 4),
    'Solarize': lambda part, sign: min(256, int(part * 256)),  # threshold from which pixels are inverted
    'SolarizeIncreasing': lambda part, sign: 256 - min(256, int(part * 256)),
    'SolarizeAdd': lambda part, sign: min(128, int(part * 110)),  # added to pixels below 128
    **dict.fromkeys(_ENHANCERS, lambda part, sign: part * 1.8 + 0.1),  # factor, 1 changes nothing
    **{f'{name}Increasing': lambda part, sign: max(0.1, 1.0 + sign * (part * 0.9)) for name in _ENHANCERS},
    **dict.fromkeys(('ShearX', 'ShearY'), lambda part, sign: sign * (part * 0.3)),
    **dict.fromkeys(('TranslateXRel', 'TranslateYRel'), lambda part, sign: sign * (part * 0.45)),  # share of the side
}


def argument(name: str, level: float, negative: bool) -> float:
    """Returns what an operation is given at a level, in its own unit; 0 where it takes nothing."""
    return _ARGUMENTS[name](level / 10, -1 if negative else 1) if name in _ARGUMENTS else 0.0


def apply(name: str, image: Image.Image, value: float, resample: Image.Resampling, fill: Fill) -> Image.Image:
    """Returns the image, RGB, after one operation.

    Args:
      name: of the operation.
      image: RGB.
      value: of `argument`.
      resample: of what turns or moves the image.
      fill: colour of what is uncovered.
    """
    kind = name.removesuffix('Increasing')
    if kind in _ENHANCERS:
        return getattr(ImageEnhance, kind)(image).enhance(value)
    if kind == 'Rotate':
        return image.rotate(value, resample, fillcolor=rgb(fill))
    if kind.startswith(('Shear', 'Translate')):
        return image.transform(
            image.size, Image.Transform.AFFINE, _inverse(kind, image, value), resample, fillcolor=rgb(fill)
        )
    if kind == 'Posterize':
        kept = 256 - (1 << 8 - min(max(int(value), 0), 8))  # no bits: black, which newer versions of Pillow refuse
        return image.point([pixel & kept for pixel in range(256)] * 3)
    if kind == 'Solarize':
        return ImageOps.solarize(image, int(value))
    if kind == 'SolarizeAdd':
        return image.point([min(255, pixel + int(value)) if pixel < 128 else pixel for pixel in range(256)] * 3)
    return getattr(ImageOps, kind.lower())(image)  # AutoContrast, Equalize, Invert


def _inverse(kind: str, image: Image.Image, value: float) -> tuple[float, ...]:
    """Returns the affine map from a pixel of the result to one of the image: (a, b, c, d, e, f)."""
    return {
        'ShearX': (1.0, value, 0.0, 0.0, 1.0, 0.0),
        'ShearY': (1.0, 0.0, 0.0, value, 1.0, 0.0),
        'TranslateXRel': (1.0, 0.0, value * image.width, 0.0, 1.0, 0.0),
        'TranslateYRel': (1.0, 0.0, 0.0, 0.0, 1.0, value * image.height),
    }[kind]
