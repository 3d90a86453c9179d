"""What is done to an image on the host: decode, crop, resize, flip, then changes of colour and shape.

A transform is a frozen dataclass of flat knobs, from a config's `transform.train` or `transform.eval`. Its random
numbers are drawn for a whole batch from the examples' keys, and are the same whichever batch they are in.
"""

import dataclasses
import functools
import math

import cv2
import numpy as np
from PIL import Image, ImageEnhance

from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.data import crops, decode, policies, windows
from cvresearch.data import operations as ops
from cvresearch.data.prng import uniforms

FILLS = ('mean', 'noise', 'black')
MEAN, STD = (124, 116, 104), (58, 57, 57)  # ImageNet's, of pixels: what is 0 and 1 to the net

# Principal components of ImageNet's colours, of pixels in [0, 1] (Krizhevsky et al. 2012, section 4.1; the numbers
# come from fb.resnet.torch, which everyone uses).
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])

# Images are worked on one in a thread; OpenCV's own threads would only be in the way.
cv2.setNumThreads(1)


@dataclasses.dataclass(frozen=True)
class Transform:
    """The knobs of what is done to an image on the host, in the order in which it is done.

    Attributes:
      crop: which part, at which size (crops.py).
      fast: JPEGs are decoded with the fast transform, at a half, a quarter or an eighth of their size where the crop
        is at least that much larger than what becomes of it. Otherwise pixels are Pillow's, exactly.
      interpolation: 'nearest', 'bilinear', 'bicubic', 'lanczos' or 'area'.
      antialias: where an image shrinks, the filter widens, as Pillow's does (and is Pillow's); otherwise OpenCV's,
        which looks at the nearest pixels only, as TensorFlow does by default ('area' averages in either).
      flip: probability of a mirror image.
      policy: AutoAugment, RandAugment (torchvision's or timm's) or TrivialAugment (policies.py).
      brightness: a factor drawn from 1 - brightness to 1 + brightness; likewise `contrast` and `saturation`, in an
        order drawn for each image, as torchvision's ColorJitter.
      contrast: see brightness.
      saturation: see brightness.
      hue: share of the colour circle, 0 to 1/2.
      lighting: deviation of AlexNet's noise along the principal components of colour; 0.1 in the paper.
      rotate: largest rotation in degrees, either way.
      translate: largest translation as a share of the side, either way, each axis on its own.
      shear: largest shear in degrees, either way, each axis on its own.
      stretch: largest change of width and of height, each on its own: 0.1 is 1/1.1 to 1.1.
      erasing: probability of erasing a random rectangle (Zhong et al. 2017, arXiv:1708.04896).
      erasing_area: least and largest share of it.
      erasing_ratio: least and largest height over width.
      cutout: side in pixels of a square that is erased, its centre anywhere (DeVries & Taylor 2017, arXiv:1708.04552).
      fill: what is put where something was erased: 'mean' (0 to the net), 'noise', 'black'.
      channels: 'RGB', or 'BGR' for nets that came from Caffe.
    """

    crop: crops.Crop = dataclasses.field(default_factory=crops.RandomResizedCrop)
    fast: bool = True
    interpolation: str = 'bilinear'
    antialias: bool = False
    flip: float = 0.0
    policy: policies.Policy = dataclasses.field(default_factory=policies.Policy)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    lighting: float = 0.0
    rotate: float = 0.0
    translate: float = 0.0
    shear: float = 0.0
    stretch: float = 0.0
    erasing: float = 0.0
    erasing_area: tuple[float, ...] = (0.02, 1 / 3)
    erasing_ratio: tuple[float, ...] = (0.3, 3.3)
    cutout: int = 0
    fill: str = 'mean'
    channels: str = 'RGB'

    def __post_init__(self):
        lookup('interpolation', windows.PILLOW, self.interpolation)
        lookup('fill', dict.fromkeys(FILLS), self.fill)
        lookup('channels', dict.fromkeys(('RGB', 'BGR')), self.channels)
        limits = dict(
            flip=1,
            hue=0.5,
            erasing=1,
            translate=1,
            brightness=1,
            contrast=1,
            saturation=1,
            rotate=180,
            shear=89,
            stretch=10,
            lighting=10,
            cutout=1 << 20,
        )
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f'config.transform: {name} is {getattr(self, name)}; expected 0 to {most}')
        for name in ('erasing_area', 'erasing_ratio'):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f'config.transform: {name} is {(low, high)}; expected two numbers in rising order')

    @property
    def size(self) -> int:
        """Side of the result, in pixels."""
        return self.crop.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the result."""
        return self.size, self.size, 3

    @functools.cached_property
    def steps(self) -> list[tuple[str, int]]:
        """The steps that are switched on, in order, and how many random numbers each takes."""
        shape = max(self.rotate, self.translate, self.shear, self.stretch) > 0
        colour = max(self.brightness, self.contrast, self.saturation, self.hue) > 0
        every = (
            ('crop', self.crop.numbers, True),
            ('flip', 1, self.flip > 0),
            ('policy', self.policy.numbers, self.policy.numbers > 0),
            ('colour', 8, colour),
            ('shape', 7, shape),
            ('lighting', 6, self.lighting > 0),
            ('erase', 45, self.erasing > 0),
            ('cutout', 3, self.cutout > 0),
        )
        return [(name, numbers) for name, numbers, on in every if on]

    def draw(self, keys: np.ndarray) -> list[dict[str, list[float]]]:
        """Returns the random numbers of each step, for each of the examples with these keys."""
        columns = {name: uniforms(keys, name, numbers).tolist() for name, numbers in self.steps}
        return [{name: rows[place] for name, rows in columns.items()} for place in range(len(keys))]

    def __call__(self, data: bytes, u: dict[str, list[float]], out: np.ndarray | None = None) -> np.ndarray:
        """Returns an image, uint8 (size, size, 3), ready for the net.

        Args:
          data: the file's bytes.
          u: its random numbers, one of `draw`'s.
          out: where the result is written; a new array by default.

        Raises:
          DamagedError: the bytes are not a whole image.
        """
        out = np.empty((self.size, self.size, 3), np.uint8) if out is None else out
        self.geometry(data, u, out)
        for name, _ in self.steps:
            if name != 'crop':
                self.apply(name, out, u[name])
        if self.channels == 'BGR':
            out[:] = out[..., ::-1].copy()
        return out

    def geometry(self, data: bytes, u: dict[str, list[float]], out: np.ndarray) -> None:
        """Decodes, crops and resizes into `out`, uint8 (size, size, 3)."""
        known = decode.header(data)
        plan = self.crop.plan(known.height, known.width, u['crop'])
        (top, left, height, width), (to_height, to_width) = plan.box, plan.size
        least = None
        if self.fast:
            share = max(to_height / height, to_width / width)
            least = math.ceil(known.height * share), math.ceil(known.width * share)
        pixels = decode.decode(data, known, least, bottom=top + height)
        if pixels.shape[1] != known.width:  # decoded at a smaller scale
            factor = round(known.width / pixels.shape[1])
            y, x = (decode.scaled(side, factor) / side for side in (known.height, known.width))
            bottom, right = round((top + height) * y), round((left + width) * x)
            top, left = round(top * y), round(left * x)
            height, width = max(bottom - top, 1), max(right - left, 1)
        part = pixels[top : top + height, left : left + width]
        window = (plan.top, plan.left, self.size, self.size)
        if self.antialias or (height, width) == plan.size:
            out[:] = windows.pillow(part, plan.size, self.interpolation, window)
        else:
            windows.opencv(part, plan.size, self.interpolation, window, out)

    def apply(self, name: str, pixels: np.ndarray, u: list[float]) -> None:
        """Makes one of `steps` after the first, on uint8 (size, size, 3), in place."""
        getattr(self, f'_{name}')(pixels, u)

    def _flip(self, pixels: np.ndarray, u: list[float]) -> None:
        if u[0] < self.flip:
            cv2.flip(pixels, 1, dst=pixels)

    def _policy(self, pixels: np.ndarray, u: list[float]) -> None:
        pixels[:] = np.asarray(self.policy(Image.fromarray(pixels), u))

    def _colour(self, pixels: np.ndarray, u: list[float]) -> None:
        image = Image.fromarray(pixels)
        changes = [
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.saturation),
            (None, self.hue),
        ]
        for number in sorted(range(4), key=lambda n: u[4 + n]):
            enhancer, most = changes[number]
            amount = (2 * u[number] - 1) * most
            if most:
                image = ops.blend(enhancer, image, amount) if enhancer else ops.hue(image, amount)
        pixels[:] = np.asarray(image)

    def _shape(self, pixels: np.ndarray, u: list[float]) -> None:
        signed = [2 * number - 1 for number in u]
        side = pixels.shape[0]
        inverse = ops.inverse_affine(
            (side / 2, side / 2),
            signed[0] * self.rotate,
            (round(signed[1] * self.translate * side), round(signed[2] * self.translate * side)),
            ((1 + self.stretch) ** signed[3], (1 + self.stretch) ** signed[4]),
            (signed[5] * self.shear, signed[6] * self.shear),
        )
        pixels[:] = np.asarray(ops.affine(Image.fromarray(pixels), inverse, smooth=True))

    def _lighting(self, pixels: np.ndarray, u: list[float]) -> None:
        normal = [math.sqrt(-2 * math.log1p(-a)) * math.cos(2 * math.pi * b) for a, b in zip(u[:3], u[3:], strict=True)]
        shift = EIGENVECTORS @ (self.lighting * np.array(normal) * EIGENVALUES)
        # One table a channel: the same for all its pixels.
        table = np.rint(np.arange(256)[:, None] + 255 * shift).clip(0, 255).astype(np.uint8)
        cv2.LUT(pixels, table[None], dst=pixels)

    def _erase(self, pixels: np.ndarray, u: list[float]) -> None:
        if u[0] >= self.erasing:
            return
        side, (low, high) = pixels.shape[0], map(math.log, self.erasing_ratio)
        for number in range(5, 45, 4):
            area = side * side * (self.erasing_area[0] + (self.erasing_area[1] - self.erasing_area[0]) * u[number])
            ratio = math.exp(low + (high - low) * u[number + 1])
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < side and width < side:
                top, left = int(u[number + 2] * (side - height + 1)), int(u[number + 3] * (side - width + 1))
                self._put(pixels[top : top + height, left : left + width], u[1])
                return

    def _cutout(self, pixels: np.ndarray, u: list[float]) -> None:
        side = pixels.shape[0]
        top, left = (int(number * side) - self.cutout // 2 for number in u[:2])
        self._put(pixels[max(top, 0) : max(top + self.cutout, 0), max(left, 0) : max(left + self.cutout, 0)], u[2])

    def _put(self, part: np.ndarray, u: float) -> None:
        if self.fill == 'noise':
            random = np.random.Generator(np.random.Philox(key=int(u * 2**53)))
            noise = random.standard_normal(part.shape, np.float32) * np.array(STD, np.float32)
            noise += np.array(MEAN, np.float32)
            part[:] = np.rint(noise).clip(0, 255).astype(np.uint8)
        else:
            part[:] = MEAN if self.fill == 'mean' else 0


def make(spec, where: str = 'transform') -> Transform:
    """Returns the transform of a config's `transform.train` or `transform.eval`.

    Args:
      spec: knobs by name; `crop` and `policy` are groups with a `name`.
      where: the key in the configuration, for messages.

    Raises:
      UserError: an unknown knob or a value out of range.
    """
    knobs = dict(spec)
    check_arguments(f'config.{where}', knobs, {field.name: field.default for field in dataclasses.fields(Transform)})
    for name, group in (('crop', crops), ('policy', policies)):
        if name in knobs:
            knobs[name] = group.make(knobs[name])
    return Transform(**knobs)
