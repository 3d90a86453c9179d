"""Augmentation policies: which operations an image goes through, and how strongly.

AutoAugment (Cubuk et al. 2018, arXiv:1805.09501), RandAugment (Cubuk et al. 2019, arXiv:1909.13719) and TrivialAugment
(Mueller & Hutter 2021, arXiv:2103.10158), with the ranges of magnitudes that torchvision gives them; and timm's
RandAugment, which is another policy.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from PIL import Image

from cvresearch.base.errors import UserError, construct, lookup
from cvresearch.data import timm_operations
from cvresearch.data.operations import OPERATIONS, SIGNED, WITHOUT_MAGNITUDE

# Strength 1 of each operation; 0 does nothing. The first number is of AutoAugment and RandAugment, whose translations
# are shares of the side, the second of TrivialAugment, whose translations are in pixels.
STRONGEST = {
    'ShearX': (0.3, 0.99),
    'ShearY': (0.3, 0.99),
    'TranslateX': (150 / 331, 32.0),
    'TranslateY': (150 / 331, 32.0),
    'Rotate': (30.0, 135.0),
    'Brightness': (0.9, 0.99),
    'Color': (0.9, 0.99),
    'Contrast': (0.9, 0.99),
    'Sharpness': (0.9, 0.99),
    'Posterize': (4, 6),
}
CHOICES = (
    'Identity',
    'ShearX',
    'ShearY',
    'TranslateX',
    'TranslateY',
    'Rotate',
    'Brightness',
    'Color',
    'Contrast',
    'Sharpness',
    'Posterize',
    'Solarize',
    'AutoContrast',
    'Equalize',
)

# Pairs of (operation, probability, magnitude of 0 to 9), one pair drawn for an image: the paper's tables 7 to 9.
SUB_POLICIES = {
    'imagenet': (
        (('Posterize', 0.4, 8), ('Rotate', 0.6, 9)),
        (('Solarize', 0.6, 5), ('AutoContrast', 0.6, 0)),
        (('Equalize', 0.8, 0), ('Equalize', 0.6, 0)),
        (('Posterize', 0.6, 7), ('Posterize', 0.6, 6)),
        (('Equalize', 0.4, 0), ('Solarize', 0.2, 4)),
        (('Equalize', 0.4, 0), ('Rotate', 0.8, 8)),
        (('Solarize', 0.6, 3), ('Equalize', 0.6, 0)),
        (('Posterize', 0.8, 5), ('Equalize', 1.0, 0)),
        (('Rotate', 0.2, 3), ('Solarize', 0.6, 8)),
        (('Equalize', 0.6, 0), ('Posterize', 0.4, 6)),
        (('Rotate', 0.8, 8), ('Color', 0.4, 0)),
        (('Rotate', 0.4, 9), ('Equalize', 0.6, 0)),
        (('Equalize', 0.0, 0), ('Equalize', 0.8, 0)),
        (('Invert', 0.6, 0), ('Equalize', 1.0, 0)),
        (('Color', 0.6, 4), ('Contrast', 1.0, 8)),
        (('Rotate', 0.8, 8), ('Color', 1.0, 2)),
        (('Color', 0.8, 8), ('Solarize', 0.8, 7)),
        (('Sharpness', 0.4, 7), ('Invert', 0.6, 0)),
        (('ShearX', 0.6, 5), ('Equalize', 1.0, 0)),
        (('Color', 0.4, 0), ('Equalize', 0.6, 0)),
        (('Equalize', 0.4, 0), ('Solarize', 0.2, 4)),
        (('Solarize', 0.6, 5), ('AutoContrast', 0.6, 0)),
        (('Invert', 0.6, 0), ('Equalize', 1.0, 0)),
        (('Color', 0.6, 4), ('Contrast', 1.0, 8)),
        (('Equalize', 0.8, 0), ('Equalize', 0.6, 0)),
    ),
    'cifar10': (
        (('Invert', 0.1, 0), ('Contrast', 0.2, 6)),
        (('Rotate', 0.7, 2), ('TranslateX', 0.3, 9)),
        (('Sharpness', 0.8, 1), ('Sharpness', 0.9, 3)),
        (('ShearY', 0.5, 8), ('TranslateY', 0.7, 9)),
        (('AutoContrast', 0.5, 0), ('Equalize', 0.9, 0)),
        (('ShearY', 0.2, 7), ('Posterize', 0.3, 7)),
        (('Color', 0.4, 3), ('Brightness', 0.6, 7)),
        (('Sharpness', 0.3, 9), ('Brightness', 0.7, 9)),
        (('Equalize', 0.6, 0), ('Equalize', 0.5, 0)),
        (('Contrast', 0.6, 7), ('Sharpness', 0.6, 5)),
        (('Color', 0.7, 7), ('TranslateX', 0.5, 8)),
        (('Equalize', 0.3, 0), ('AutoContrast', 0.4, 0)),
        (('TranslateY', 0.4, 3), ('Sharpness', 0.2, 6)),
        (('Brightness', 0.9, 6), ('Color', 0.2, 8)),
        (('Solarize', 0.5, 2), ('Invert', 0.0, 0)),
        (('Equalize', 0.2, 0), ('AutoContrast', 0.6, 0)),
        (('Equalize', 0.2, 0), ('Equalize', 0.6, 0)),
        (('Color', 0.9, 9), ('Equalize', 0.6, 0)),
        (('AutoContrast', 0.8, 0), ('Solarize', 0.2, 8)),
        (('Brightness', 0.1, 3), ('Color', 0.7, 0)),
        (('Solarize', 0.4, 5), ('AutoContrast', 0.9, 0)),
        (('TranslateY', 0.9, 9), ('TranslateY', 0.7, 9)),
        (('AutoContrast', 0.9, 0), ('Solarize', 0.8, 3)),
        (('Equalize', 0.8, 0), ('Invert', 0.1, 0)),
        (('TranslateY', 0.7, 9), ('AutoContrast', 0.9, 0)),
    ),
    'svhn': (
        (('ShearX', 0.9, 4), ('Invert', 0.2, 0)),
        (('ShearY', 0.9, 8), ('Invert', 0.7, 0)),
        (('Equalize', 0.6, 0), ('Solarize', 0.6, 6)),
        (('Invert', 0.9, 0), ('Equalize', 0.6, 0)),
        (('Equalize', 0.6, 0), ('Rotate', 0.9, 3)),
        (('ShearX', 0.9, 4), ('AutoContrast', 0.8, 0)),
        (('ShearY', 0.9, 8), ('Invert', 0.4, 0)),
        (('ShearY', 0.9, 5), ('Solarize', 0.2, 6)),
        (('Invert', 0.9, 0), ('AutoContrast', 0.8, 0)),
        (('Equalize', 0.6, 0), ('Rotate', 0.9, 3)),
        (('ShearX', 0.9, 4), ('Solarize', 0.3, 3)),
        (('ShearY', 0.8, 8), ('Invert', 0.7, 0)),
        (('Equalize', 0.9, 0), ('TranslateY', 0.6, 6)),
        (('Invert', 0.9, 0), ('Equalize', 0.6, 0)),
        (('Contrast', 0.3, 3), ('Rotate', 0.8, 4)),
        (('Invert', 0.8, 0), ('TranslateY', 0.0, 2)),
        (('ShearY', 0.7, 6), ('Solarize', 0.4, 8)),
        (('Invert', 0.6, 0), ('Rotate', 0.8, 4)),
        (('ShearY', 0.3, 7), ('TranslateX', 0.9, 3)),
        (('ShearX', 0.1, 6), ('Invert', 0.6, 0)),
        (('Solarize', 0.7, 2), ('TranslateY', 0.6, 7)),
        (('ShearY', 0.8, 4), ('Invert', 0.8, 0)),
        (('ShearX', 0.7, 9), ('TranslateY', 0.8, 3)),
        (('ShearY', 0.8, 5), ('AutoContrast', 0.7, 0)),
        (('ShearX', 0.7, 2), ('Invert', 0.1, 0)),
    ),
}


def magnitude(name: str, strength: float, side: int, wide: bool = False) -> float:
    """Returns the magnitude of an operation.

    Args:
      name: of the operation.
      strength: 0 to 1.
      side: of the image along the operation's axis, in pixels, for translations.
      wide: TrivialAugment's ranges.
    """
    if name in WITHOUT_MAGNITUDE:
        return 0.0
    if name == 'Posterize':
        return 8 - round(strength * STRONGEST[name][wide])
    if name == 'Solarize':
        value = 255 * (1 - strength)
    else:
        value = strength * STRONGEST[name][wide] * (side if name.startswith('Translate') and not wide else 1)
    return round(value, 6)  # a threshold of 170 must not be 170.00000000000003


@dataclasses.dataclass(frozen=True)
class Policy:
    """Nothing, and what all policies share.

    Attributes:
      fill: what a shear, translation or rotation uncovers: a grey value or an RGB colour, 0 to 255.
    """

    fill: int | tuple[int, ...] = 0
    numbers: ClassVar[int] = 0

    def __call__(self, image: Image.Image, u: Sequence[float]) -> Image.Image:
        """Returns the image, augmented; `u` are `numbers` numbers in [0, 1)."""
        return image

    def apply(self, image: Image.Image, name: str, strength: float, negative: bool) -> Image.Image:
        """Returns the image after one operation, strength 0 to 1; `negative` turns a sign, if there is one."""
        side = image.height if name.endswith('Y') else image.width
        return self.apply_magnitude(image, name, magnitude(name, strength, side), negative)

    def apply_magnitude(self, image: Image.Image, name: str, value: float, negative: bool) -> Image.Image:
        """Returns the image after one operation, whose magnitude is in the operation's own unit."""
        return OPERATIONS[name](image, -value if negative and name in SIGNED else value, self.fill)


@dataclasses.dataclass(frozen=True)
class RandAugment(Policy):
    """`layers` operations, each drawn from 14 with equal chances, all at one magnitude, as torchvision has them.

    Attributes:
      layers: N of the paper.
      magnitude: M of the paper, from 0 to `bins` - 1.
      bins: torchvision has 31; the paper's scale of 0 to 10 is 11.
      magnitude_std: deviation of a magnitude drawn for each operation, as timm's mstd; 0 is the paper's.
    """

    layers: int = 2
    magnitude: float = 9.0
    bins: int = 31
    magnitude_std: float = 0.0

    def __post_init__(self):
        if self.layers < 0 or self.bins < 2 or not 0 <= self.magnitude <= self.bins - 1:
            raise UserError(
                f'policy rand_augment: layers is {self.layers}, magnitude {self.magnitude}, bins {self.bins}; '
                'expected layers >= 0 and a magnitude of 0 to bins - 1'
            )

    @property
    def numbers(self) -> int:
        """Of random numbers."""
        return 4 * self.layers

    def __call__(self, image: Image.Image, u: Sequence[float]) -> Image.Image:
        """Returns the image, augmented."""
        for layer in range(self.layers):
            choice, sign, *noise = u[4 * layer : 4 * layer + 4]
            strength = self.magnitude + self.magnitude_std * _normal(*noise)
            strength = min(max(strength / (self.bins - 1), 0.0), 1.0)
            image = self.apply(image, CHOICES[int(choice * len(CHOICES))], strength, sign < 0.5)
        return image


@dataclasses.dataclass(frozen=True)
class TimmRandAugment(Policy):
    """RandAugment as timm has it; the defaults are its `rand-m9-mstd0.5`.

    Beside torchvision's: each operation is made with a probability, 15 other operations are drawn from, Posterize and
    Solarize become weaker with the magnitude unless `increasing`, and what is uncovered has the data's mean colour.

    Attributes:
      layers: operations drawn for an image, with replacement; timm's n.
      magnitude: timm's m.
      magnitude_std: deviation of a magnitude drawn for each operation, timm's mstd; above 100 it is drawn evenly from
        0 to `magnitude`.
      magnitude_max: a drawn magnitude is cut off there, timm's mmax; 10 is full strength.
      probability: of each operation, timm's p.
      increasing: all operations become stronger with the magnitude, timm's inc1.
      interpolation: of rotations, shears and translations: 'bilinear', 'bicubic', or 'random', one of these two drawn
        for each operation, which is timm's default for training.
      fill: a colour; the default is ImageNet's mean, rounded.
    """

    layers: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.5
    magnitude_max: float = 10.0
    probability: float = 0.5
    increasing: bool = False
    interpolation: str = 'random'
    fill: int | tuple[int, ...] = (124, 116, 104)

    def __post_init__(self):
        lookup('interpolation', timm_operations.RESAMPLE, self.interpolation)
        if self.layers < 0 or not 0 <= self.magnitude <= self.magnitude_max or not 0 <= self.probability <= 1:
            raise UserError(
                f'policy timm_rand_augment: layers is {self.layers}, magnitude {self.magnitude}, magnitude_max '
                f'{self.magnitude_max}, probability {self.probability}; expected layers >= 0, a magnitude of 0 to '
                'magnitude_max and a probability of 0 to 1'
            )

    @property
    def numbers(self) -> int:
        """Of random numbers."""
        return 6 * self.layers

    def __call__(self, image: Image.Image, u: Sequence[float]) -> Image.Image:
        """Returns the image, augmented."""
        names = timm_operations.INCREASING if self.increasing else timm_operations.DECREASING
        resamples = timm_operations.RESAMPLE[self.interpolation]
        for layer in range(self.layers):
            choice, chance, sign, resample, *noise = u[6 * layer : 6 * layer + 6]
            if chance >= self.probability:
                continue
            level = self.magnitude * noise[0]
            if self.magnitude_std <= 100:
                level = self.magnitude + self.magnitude_std * _normal(*noise)
            name, level = names[int(choice * len(names))], min(max(level, 0.0), self.magnitude_max)
            value = timm_operations.argument(name, level, negative=sign < 0.5)
            image = timm_operations.apply(name, image, value, resamples[int(resample * len(resamples))], self.fill)
        return image


@dataclasses.dataclass(frozen=True)
class TrivialAugment(Policy):
    """One operation, drawn from 14, at a magnitude drawn from `bins`, of the wide ranges."""

    bins: int = 31
    numbers: ClassVar[int] = 3

    def __post_init__(self):
        if self.bins < 2:
            raise UserError(f'policy trivial_augment: bins is {self.bins}; expected at least 2')

    def __call__(self, image: Image.Image, u: Sequence[float]) -> Image.Image:
        """Returns the image, augmented."""
        name = CHOICES[int(u[0] * len(CHOICES))]
        return self.apply_magnitude(image, name, self.magnitude(name, int(u[1] * self.bins)), u[2] < 0.5)

    def magnitude(self, name: str, place: int) -> float:
        """Returns the magnitude of an operation in the bin `place`, 0 to `bins` - 1."""
        last = self.bins - 1
        if not name.startswith('Translate'):
            return magnitude(name, place / last, 0, wide=True)
        # Pixels are cut off, so that rounding counts: torch.linspace has 15.999999, not 16, in the middle of 31 bins.
        # It counts in float32 from the nearer end, product and sum rounded as one.
        most = STRONGEST[name][True]
        step = float(np.float32(most / last))
        return float(np.float32(step * place if place < self.bins // 2 else most - step * (last - place)))


@dataclasses.dataclass(frozen=True)
class AutoAugment(Policy):
    """One of 25 learned pairs of operations, each with a probability and a magnitude.

    Attributes:
      learned_on: 'imagenet', 'cifar10' or 'svhn'.
    """

    learned_on: str = 'imagenet'
    numbers: ClassVar[int] = 5

    def __post_init__(self):
        lookup('AutoAugment policy', SUB_POLICIES, self.learned_on)

    def __call__(self, image: Image.Image, u: Sequence[float]) -> Image.Image:
        """Returns the image, augmented."""
        pairs = SUB_POLICIES[self.learned_on]
        pair = pairs[int(u[0] * len(pairs))]
        for (name, probability, level), chance, sign in zip(pair, u[1:3], u[3:5], strict=True):
            if chance < probability:
                image = self.apply(image, name, level / 9, sign < 0.5)
        return image


POLICIES = {
    'none': Policy,
    'auto_augment': AutoAugment,
    'rand_augment': RandAugment,
    'timm_rand_augment': TimmRandAugment,
    'trivial_augment': TrivialAugment,
}


def _normal(first: float, second: float) -> float:
    return math.sqrt(-2 * math.log1p(-first)) * math.cos(2 * math.pi * second)


def make(spec) -> Policy:
    """Returns the policy that a config's `transform.*.policy` names.

    Raises:
      UserError: an unknown name or argument, or one out of range.
    """
    policy = construct('policy', POLICIES, spec)
    colour = (policy.fill,) if isinstance(policy.fill, int) else policy.fill
    if len(colour) not in (1, 3) or not all(0 <= value <= 255 for value in colour):
        raise UserError(f'policy {spec["name"]}: fill is {policy.fill}; expected a grey value or an RGB, 0 to 255')
    return policy
