"""What part of an image a net sees: frozen dataclasses that turn random numbers into a plan."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from cvresearch.base.errors import UserError, construct


class Plan(NamedTuple):
    """Cut `box` out of the image, resize that to `size`, cut (`top`, `left`) and the net's size out of this."""

    box: tuple[int, int, int, int]  # top, left, height, width, in pixels of the image
    size: tuple[int, int]  # height, width
    top: int = 0
    left: int = 0


@dataclasses.dataclass(frozen=True)
class Crop:
    """What all crops share.

    Attributes:
      size: side of the square that the net sees, in pixels.
    """

    size: int = 224
    numbers: ClassVar[int] = 0  # random numbers that a plan takes

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f'transform crop: size is {self.size}; expected at least 1 pixel')

    def plan(self, height: int, width: int, u: Sequence[float]) -> Plan:
        """Returns the plan for an image of this size; `u` are `numbers` numbers in [0, 1)."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Crop):
    """The Inception crop (Szegedy et al. 2015, section 6): a part of random area and aspect ratio.

    As torchvision and timm have it: ten tries, then the largest centre part whose ratio is within bounds.

    Attributes:
      scale: least and largest share of the image's area.
      ratio: least and largest width over height.
    """

    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    tries: ClassVar[int] = 10
    # All tries have their numbers beforehand: how many are used must not shift those of the next transform.
    numbers: ClassVar[int] = 4 * tries

    def __post_init__(self):
        super().__post_init__()
        for name in ('scale', 'ratio'):
            _check_range(f'random_resized_crop: {name}', getattr(self, name), 0)

    def plan(self, height: int, width: int, u: Sequence[float]) -> Plan:
        """Returns the plan for an image of this size."""
        area, (low, high) = height * width, map(math.log, self.ratio)
        for number in range(0, self.numbers, 4):
            target = area * (self.scale[0] + (self.scale[1] - self.scale[0]) * u[number])
            # Even in the logarithm: 3/4 and 4/3 are then equally likely, as in torchvision and timm.
            ratio = math.exp(low + (high - low) * u[number + 1])
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(u[number + 2] * (height - h + 1)), int(u[number + 3] * (width - w + 1))
                return Plan((top, left, h, w), (self.size, self.size))
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        return Plan(((height - h) // 2, (width - w) // 2, h, w), (self.size, self.size))


@dataclasses.dataclass(frozen=True)
class ResizeRandomCrop(Crop):
    """Resizes the short side to a length drawn from a range, and cuts a square out of it anywhere.

    VGG's scale jitter (Simonyan & Zisserman 2014, section 3.1) is low=256, high=512. AlexNet (Krizhevsky et al.
    2012, sections 2 and 4.1) is low=high=256, square=True: 32 x 32 positions of 224 in 256, with flips 2,048.

    Attributes:
      low: least length of the short side, in pixels.
      high: largest.
      square: only the centre square of the resized image is cut from. As in the paper the last row and column
        of positions, which would make 33 x 33, is left out.
    """

    low: int = 256
    high: int = 256
    square: bool = False
    numbers: ClassVar[int] = 3

    def __post_init__(self):
        super().__post_init__()
        if not self.size <= self.low <= self.high:
            raise UserError(
                f'transform crop resize_random_crop: size, low and high are {self.size}, {self.low} and {self.high}; '
                'expected them in rising order'
            )

    def plan(self, height: int, width: int, u: Sequence[float]) -> Plan:
        """Returns the plan for an image of this size."""
        short = self.low + int(u[0] * (self.high - self.low + 1))
        size = short_side(height, width, short)
        if self.square:
            positions, corner = (max(short - self.size, 1),) * 2, [(side - short) // 2 for side in size]
        else:
            positions, corner = [side - self.size + 1 for side in size], (0, 0)
        top, left = (int(number * count) + at for number, count, at in zip(u[1:3], positions, corner, strict=True))
        return Plan((0, 0, height, width), size, top, left)


@dataclasses.dataclass(frozen=True)
class ResizeCenterCrop(Crop):
    """Resizes the short side to `resize` pixels and cuts the square in the centre: 256 and 224, usually."""

    resize: int = 256

    def __post_init__(self):
        super().__post_init__()
        if self.resize < self.size:
            raise UserError(
                f'transform crop resize_center_crop: resize is {self.resize}; expected at least the size, {self.size}'
            )

    def plan(self, height: int, width: int, u: Sequence[float] = ()) -> Plan:
        """Returns the plan for an image of this size."""
        size = short_side(height, width, self.resize)
        top, left = (round((side - self.size) / 2) for side in size)
        return Plan((0, 0, height, width), size, top, left)


@dataclasses.dataclass(frozen=True)
class CenterCropResize(Crop):
    """Cuts the centre square with `margin` pixels (of the result) left out around it, and resizes that.

    As TensorFlow's EfficientNets evaluate: margin=32 cuts size / (size + 32) of the short side.
    """

    margin: int = 32

    def __post_init__(self):
        super().__post_init__()
        if self.margin < 0:
            raise UserError(f'transform crop center_crop_resize: margin is {self.margin}; expected at least 0')

    def plan(self, height: int, width: int, u: Sequence[float] = ()) -> Plan:
        """Returns the plan for an image of this size."""
        side = max(int(self.size / (self.size + self.margin) * min(height, width)), 1)
        return Plan(((height - side + 1) // 2, (width - side + 1) // 2, side, side), (self.size, self.size))


@dataclasses.dataclass(frozen=True)
class Resize(Crop):
    """Resizes the whole image to a square, whatever its aspect ratio."""

    def plan(self, height: int, width: int, u: Sequence[float] = ()) -> Plan:
        """Returns the plan for an image of this size."""
        return Plan((0, 0, height, width), (self.size, self.size))


CROPS = {
    'random_resized_crop': RandomResizedCrop,
    'resize_random_crop': ResizeRandomCrop,
    'resize_center_crop': ResizeCenterCrop,
    'center_crop_resize': CenterCropResize,
    'resize': Resize,
}


def make(spec) -> Crop:
    """Returns the crop that a config's `transform.*.crop` names.

    Raises:
      UserError: an unknown name or argument, or one out of range.
    """
    return construct('crop', CROPS, spec)


def short_side(height: int, width: int, short: int) -> tuple[int, int]:
    """Returns (height, width) of an image whose short side becomes `short`, as torchvision rounds it."""
    least = min(height, width)
    rows, columns = (short if side == least else int(short * side / least) for side in (height, width))
    return rows, columns


def _check_range(what: str, values: tuple, least: float) -> None:
    if len(values) != 2 or not least < values[0] <= values[1]:
        raise UserError(f'transform crop {what} is {values}; expected two numbers above {least}, in rising order')
