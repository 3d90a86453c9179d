"""The corruptions of ImageNet-C at their five severities, made locally and anew each time.

Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations",
arXiv:1903.12261, section 3 and appendix A; severities follow the authors' code (hendrycks/robustness,
ImageNet-C/create_c/make_imagenet_c.py). Each corrupted image is a function of (seed, index, corruption, severity).

Not the published files, which were drawn without a seed and stored as JPEG of quality 85: errors on these images are
to be compared with errors on these images. Where the original needs what is not here, this is written out: motion
blur is a Gaussian along a line (there ImageMagick's), frost is a drawn texture (there six photographs). The two
corruptions whose extent is in pixels of a 224-pixel image by construction (elastic_transform, glass_blur's border)
go with the side of the image.
"""

import dataclasses
import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from cvresearch.base.errors import UserError, lookup
from cvresearch.data.decoded import Pictures
from cvresearch.data.examples import Example, Examples

# SciPy's filters are imported where they are used: every evaluation knows of corrupted images, and few corrupt any.
Random = np.random.Generator
SEVERITIES = 5


def corrupt(image: np.ndarray, name: str, severity: int, seed: int = 0, index: int = 0) -> np.ndarray:
    """Returns a corrupted image, uint8 of the same shape.

    Args:
      image: uint8 (height, width, 3), cropped to what the net sees, as the paper does first.
      name: in CORRUPTIONS or EXTRA.
      severity: 1 to 5.
      seed: of the set of corrupted images.
      index: of the image in it.

    Raises:
      UserError: an unknown corruption or severity; an image that is not in colour.
    """
    function = lookup('corruption', CORRUPTIONS | EXTRA, name)
    if severity not in range(1, SEVERITIES + 1):
        raise UserError(f'severity is {severity}; expected 1 to {SEVERITIES}')
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(f'corruptions are of images in three colours; got the shape {image.shape}')
    # By its place among all names: the image of a corruption does not depend on which others are made.
    number = sorted(CORRUPTIONS | EXTRA).index(name)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index, number, severity])))
    result = function(image.astype(np.float64) / 255, severity - 1, random)
    return (np.clip(result, 0, 1) * 255).astype(np.uint8)  # rounded down, as there


@dataclasses.dataclass(frozen=True)
class Corrupted:
    """The examples of a split, each corrupted, as images of one size (height, width, 3)."""

    base: Examples
    name: str
    severity: int
    seed: int = 0

    def __len__(self) -> int:
        return len(self.base)

    @property
    def transform(self):
        """How the images were made ready before; None for arrays."""
        return self.base.transform if isinstance(self.base, Pictures) else None

    def __getitem__(self, index: int) -> Example:
        images, labels = self.take(np.array([index]))
        return Example(images[0], labels[0], self.base[index].id)

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the corrupted images at `index` and their labels."""
        images, labels = self.base.take(index, keys)
        corrupted = [
            corrupt(x, self.name, self.severity, self.seed, int(i)) for x, i in zip(images, index, strict=True)
        ]
        return np.stack(corrupted), labels


def gaussian_noise(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Electronic noise at low light."""
    return x + random.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[severity], x.shape)


def shot_noise(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Noise of photons, Poisson."""
    photons = (60, 25, 12, 5, 3)[severity]
    return random.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Salt and pepper, of each colour by itself, in equal parts."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity]
    hit, salt = random.random(x.shape) < share, random.random(x.shape) < 0.5
    return np.where(hit, salt, x)


def defocus_blur(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """A lens out of focus: the mean over a disk with soft edges."""
    radius, soft = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity]
    return cv2.filter2D(x, -1, _disk(radius, soft))


def glass_blur(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Frosted glass: pixels take the value of neighbours, between two blurs."""
    sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity]
    x = np.floor(_blurred(x, sigma) * 255)
    height, width = x.shape[:2]
    place = list(range(height * width))  # where each pixel came from: numbers are faster to move than pixels
    for _ in range(times):
        moves = random.integers(-reach, reach, (height, width, 2))
        jumps = (moves[..., 1] * width + moves[..., 0]).reshape(-1).tolist()
        for row in range(height - reach, reach, -1):
            for here in range(row * width + width - reach, row * width + reach, -1):
                # Meant as an exchange, but the authors' code, and so the benchmark, only copies: both sides of its
                # assignment are views of one array.
                place[here] = place[here + jumps[here]]
    return _blurred(x.reshape(-1, 3)[place].reshape(x.shape) / 255, sigma)


def motion_blur(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """A camera that moves, in a direction within 45 degrees of the horizontal."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity]
    return _moved(x, radius, sigma, random.uniform(-45, 45))


def zoom_blur(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """A camera that comes nearer: the mean over magnifications."""
    stop, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity]
    zooms = [_zoomed(x, factor) for factor in np.arange(1, stop, step)]
    return (x + np.sum(zooms, 0)) / (len(zooms) + 1)


def snow(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Falling snow: bright flakes drawn out by motion, over a picture made paler."""
    mean, deviation, zoom, least, radius, sigma, kept = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity]
    flakes = _zoomed(random.normal(mean, deviation, x.shape[:2])[..., None], zoom)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = _moved(flakes, radius, sigma, random.uniform(-135, -45))
    pale = np.maximum(x, 1.5 * _grey(x) + 0.5)
    return kept * x + (1 - kept) * pale + flakes + np.rot90(flakes, 2)


def frost(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Ice crystals on a window. The texture is drawn, not a photograph: needles in all directions over rime."""
    kept, added = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity]
    seeds = random.random(x.shape[:2]) ** 40
    needles = np.max([_moved(seeds[..., None], 20, 8, angle) for angle in random.uniform(0, 180, 6)], 0)
    rime = _plasma(x.shape[:2], 2.5, random)[..., None]
    ice = np.clip(0.35 * rime + 3.0 * needles, 0, 1) * np.array([0.85, 0.95, 1.0])
    return kept * x + added * ice


def fog(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Fog: a plasma fractal over the picture, which loses contrast."""
    amount, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity]
    brightest = x.max()
    return (x + amount * _plasma(x.shape[:2], decay, random)[..., None]) * brightest / (brightest + amount)


def brightness(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """More light: the value of HSV rises."""
    hsv = _to_hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + (0.1, 0.2, 0.3, 0.4, 0.5)[severity], 0, 1)
    return _from_hsv(hsv)


def contrast(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Less contrast, about each colour's mean."""
    means = x.mean((0, 1))
    return (x - means) * (0.4, 0.3, 0.2, 0.1, 0.05)[severity] + means


def elastic_transform(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """The picture as if on rubber: a random affine map, then smooth local shifts (Simard et al. 2003)."""
    from scipy import ndimage

    shift, smooth, affine = (
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )[severity]
    height, width = x.shape[:2]
    unit = 244 * min(height, width) / 224  # 244: so it stands in the original
    middle, third = np.array([width, height], np.float32) // 2, min(height, width) // 3
    corners = np.array([middle + third, [middle[0] + third, middle[1] - third], middle - third], np.float32)
    moved = corners + random.uniform(-affine * unit, affine * unit, corners.shape).astype(np.float32)
    x = cv2.warpAffine(x, cv2.getAffineTransform(corners, moved), (width, height), borderMode=cv2.BORDER_REFLECT_101)
    down, right = (
        ndimage.gaussian_filter(random.uniform(-1, 1, (height, width)), smooth * unit, mode='reflect', truncate=3)
        * shift
        * unit
        for _ in range(2)
    )
    rows, columns = np.mgrid[:height, :width]
    places = [rows + down, columns + right]
    return np.stack([ndimage.map_coordinates(x[..., c], places, order=1, mode='reflect') for c in range(3)], -1)


def pixelate(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Low resolution, enlarged."""
    image, share = _image(x), (0.6, 0.5, 0.4, 0.3, 0.25)[severity]
    small = image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX)) / 255


def jpeg_compression(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """A JPEG of low quality."""
    file = io.BytesIO()
    _image(x).save(file, 'JPEG', quality=(25, 18, 15, 10, 7)[severity])
    return np.asarray(Image.open(file)) / 255


def speckle_noise(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Noise in proportion to the light."""
    return x + x * random.normal(0, (0.15, 0.2, 0.35, 0.45, 0.6)[severity], x.shape)


def gaussian_blur(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """A Gaussian blur."""
    return _blurred(x, (1, 2, 3, 4, 6)[severity])


def saturate(x: np.ndarray, severity: int, random: Random) -> np.ndarray:
    """Colours paler, then stronger: the saturation of HSV."""
    factor, more = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity]
    hsv = _to_hsv(x)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + more, 0, 1)
    return _from_hsv(hsv)


Corruption = Callable[[np.ndarray, int, Random], np.ndarray]
# The fifteen over which mCE is the mean.
CORRUPTIONS: dict[str, Corruption] = {
    f.__name__: f
    for f in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        glass_blur,
        motion_blur,
        zoom_blur,
        snow,
        frost,
        fog,
        brightness,
        contrast,
        elastic_transform,
        pixelate,
        jpeg_compression,
    )
}
# On which hyper-parameters may be chosen (appendix B); its fourth, spatter, is not here.
EXTRA: dict[str, Corruption] = {f.__name__: f for f in (speckle_noise, gaussian_blur, saturate)}


def _image(x: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(x * 255).astype(np.uint8))


def _grey(x: np.ndarray) -> np.ndarray:
    return (x @ np.array([0.299, 0.587, 0.114]))[..., None]


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode='nearest')


def _to_hsv(x: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2HSV)


def _from_hsv(x: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(x, cv2.COLOR_HSV2RGB)


def _disk(radius: int, soft: float) -> np.ndarray:
    """Returns a disk that sums to 1, its edges blurred; smaller ones on a field of 17 pixels."""
    reach, kernel = (8, (3, 3)) if radius <= 8 else (radius, (5, 5))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    return cv2.GaussianBlur(disk / disk.sum(), kernel, soft)


def _zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """Returns the middle of an image, magnified to its size."""
    from scipy import ndimage

    size = x.shape[:2]
    part = [int(np.ceil(n / factor)) for n in size]
    first = [(n - p) // 2 for n, p in zip(size, part, strict=True)]
    middle = x[first[0] : first[0] + part[0], first[1] : first[1] + part[1]]
    zoomed = np.asarray(ndimage.zoom(middle, (factor, factor, 1), order=1))
    trim = [max(0, z - n) // 2 for z, n in zip(zoomed.shape, size, strict=False)]
    zoomed = zoomed[trim[0] : trim[0] + size[0], trim[1] : trim[1] + size[1]]
    return np.pad(zoomed, [*((0, n - z) for n, z in zip(size, zoomed.shape, strict=False)), (0, 0)], mode='edge')


def _moved(x: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Returns x (height, width, channels) blurred by a half Gaussian along a line, of 2 * radius + 1 places."""
    from scipy import ndimage

    length = 2 * radius + 1
    weights = np.exp(-((np.arange(length) / sigma) ** 2) / 2)
    angle, total = np.deg2rad(degrees), np.zeros_like(x)
    for i, weight in enumerate(weights / weights.sum()):
        places = round(i * np.sin(angle)), round(i * np.cos(angle))
        total += weight * ndimage.shift(x, (-places[0], -places[1], 0), order=0, mode='nearest')
    return total


def _plasma(size: tuple[int, int], decay: float, random: Random) -> np.ndarray:
    """Returns a plasma fractal from 0 to 1, (height, width), by the diamond-square algorithm on a torus.

    Fournier et al. 1982, "Computer rendering of stochastic models". Each halving of the step divides the roughness
    by the square of `decay`, as in the authors' code.
    """
    side = max(2, 1 << (max(size) - 1).bit_length())
    x, step, rough = np.zeros((side, side)), side, 1.0
    while step >= 2:
        half = step // 2
        corners = x[::step, ::step]
        around = corners + np.roll(corners, -1, 0)
        around = around + np.roll(around, -1, 1)
        x[half::step, half::step] = around / 4 + rough * random.uniform(-1, 1, around.shape)
        middles = x[half::step, half::step]
        across = middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)
        x[::step, half::step] = across / 4 + rough * random.uniform(-1, 1, across.shape)
        along = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)
        x[half::step, ::step] = along / 4 + rough * random.uniform(-1, 1, along.shape)
        step, rough = half, rough / decay**2
    x -= x.min()
    return (x / x.max())[: size[0], : size[1]]
