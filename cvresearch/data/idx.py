"""MNIST and Fashion-MNIST, from their four original files of the format IDX, read into memory."""

import dataclasses
import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data import locations
from cvresearch.data.bundled import resized
from cvresearch.data.examples import Arrays, Facts, Source

FILES = ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte', 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte')
# SHA-256 of the unpacked files, in the order of FILES. Compressed files differ by the name in their header.
SUMS = {
    'MNIST': (
        'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
        '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
        '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
        'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
    ),
    'Fashion-MNIST': (
        'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
        'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
        '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
        '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
    ),
}
NAMES = {'MNIST': 'mnist', 'Fashion-MNIST': 'fashion_mnist'}  # of our sources
TORCHVISION = {'MNIST': 'MNIST', 'Fashion-MNIST': 'FashionMNIST'}  # of its folders, which have the files in raw/
DEBIAN = Path('/usr/share/datasets/fashion-mnist')  # where the package dataset-fashion-mnist puts them
FASHION = ('T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot')
MOST_BYTES = 1 << 26  # of an unpacked file; the largest holds 47 MB
GZIP = b'\x1f\x8b'


def mnist(root: str = '') -> Source:
    """MNIST (LeCun et al. 1998): 60,000 digits to train and 10,000 to test, 28x28, grey.

    `root` holds the four original files, train-images-idx3-ubyte and so on, compressed (.gz) or not; or it
    is a folder of torchvision's, which has them in MNIST/raw/. Mean and deviation are of the training images, as all
    libraries quote them.

    Raises:
      UserError: a file is missing, damaged, or of another data set.
    """
    how = 'download the four files of MNIST, train-images-idx3-ubyte.gz and so on, or let torchvision download them'
    splits = _read('MNIST', root, (how,))
    return Source(Facts('mnist', tuple('0123456789'), (28, 28, 1), (0.1307,), (0.3081,), _counts(splits)), splits)


def fashion_mnist(
    root: str = '', image_size: int = 28, pad: int = 0, train: int = 60_000, classes: Sequence[int] = ()
) -> Source:
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 60,000 articles of clothing to train and 10,000 to test.

    28x28 pixels, grey, ten classes of 6,000 and 1,000 images. Mean and deviation are of all training images.

    Args:
      root: holds the four original files, compressed (.gz) or not, or is a folder of torchvision's. If empty,
        also the folder of Debian's package dataset-fashion-mnist is looked into.
      image_size: side to which the images are resized (bilinear).
      pad: black pixels that are then put on every side.
      train: images to train on, for studies that need not all: the first train / 10 of each class, in file order.
      classes: numbers of the classes that are kept, which become 0, 1, ... in this order; all ten if empty.

    Raises:
      UserError: a file is missing, damaged, or of another data set; an argument out of range.
    """
    if pad < 0:
        raise UserError(f'config.data.pad is {pad}; expected at least 0 pixels')
    if not 10 <= train <= 60_000 or train % 10:
        raise UserError(f'config.data.train is {train}; expected 10 to 60,000 images, a multiple of the ten classes')
    splits = _read(
        'Fashion-MNIST',
        root,
        (
            'on Debian and Ubuntu: apt-get install dataset-fashion-mnist, and nothing else',
            'elsewhere: the four files of github.com/zalandoresearch/fashion-mnist, '
            'train-images-idx3-ubyte.gz and so on',
        ),
        (DEBIAN,),
    )
    chosen = _chosen(classes)
    splits['train'] = _first_of_each_class(splits['train'], train // 10)
    splits = {split: _of_classes(part, chosen) for split, part in splits.items()}
    margins = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    splits = {
        split: dataclasses.replace(part, images=np.pad(resized(part.images, image_size), margins))
        for split, part in splits.items()
    }
    shape = splits['train'].images.shape[1:]
    names = tuple(FASHION[number] for number in chosen)
    return Source(Facts('fashion_mnist', names, shape, (0.2860,), (0.3530,), _counts(splits)), splits)


def _counts(splits: dict[str, Arrays]) -> dict[str, int]:
    return {split: len(part) for split, part in splits.items()}


def _chosen(classes: Sequence[int]) -> tuple[int, ...]:
    """Returns the numbers of the classes that are kept."""
    every = range(len(FASHION))
    chosen = tuple(classes) or tuple(every)
    if len(set(chosen)) < max(len(chosen), 2) or not all(number in every for number in chosen):
        raise UserError(f'config.data.classes is {chosen}; expected two or more different numbers of 0 to 9, or ()')
    return chosen


def _of_classes(part: Arrays, classes: tuple[int, ...]) -> Arrays:
    if classes == tuple(range(len(FASHION))):
        return part
    kept = np.isin(part.labels, classes)
    number = np.full(len(FASHION), -1, np.int32)
    number[list(classes)] = np.arange(len(classes))
    return Arrays(part.images[kept], number[part.labels[kept]])


def _first_of_each_class(part: Arrays, count: int) -> Arrays:
    places = [np.flatnonzero(part.labels == label)[:count] for label in range(10)]
    chosen = np.sort(np.concatenate(places))
    return Arrays(part.images[chosen], part.labels[chosen])


def _read(title: str, root: str, how: tuple[str, ...], also: tuple[Path, ...] = ()) -> dict[str, Arrays]:
    """Returns the splits 'train' and 'test' of a data set, after comparing each file with its sum."""
    patterns = [f'{file.replace("-idx", "[-.]idx")}*' for file in FILES]
    below = ('', 'raw/', f'{TORCHVISION[title]}/raw/')
    needed = tuple(tuple(f'{part}{pattern}' for pattern in patterns) for part in below)
    folder = locations.find(NAMES[title], root, needed, how, (TORCHVISION[title], *also))
    place = next(folder / part for part in below if all(any((folder / part).glob(pattern)) for pattern in patterns))
    arrays = [_array(title, place, file, expected) for file, expected in zip(FILES, SUMS[title], strict=True)]
    parts = {'train': arrays[:2], 'test': arrays[2:]}
    return {split: Arrays(images[..., None], labels.astype(np.int32)) for split, (images, labels) in parts.items()}


def _array(title: str, place: Path, file: str, expected: str) -> np.ndarray:
    """Reads an array of bytes in MNIST's format: two zeros, 8 (bytes), the number of axes, their lengths."""
    path = _path(place, file)
    data = _unpacked(path)
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        raise UserError(_differs(title, path, got, expected))
    axes = data[3]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(data, '>u4', axes, 4))


def _path(place: Path, file: str) -> Path:
    names = [f'{stem}{ending}' for stem in (file, file.replace('-idx', '.idx')) for ending in ('', '.gz')]
    for name in names:
        if (place / name).is_file():
            return place / name
    raise UserError(f'{place} has no file {file}; expected it, or {file}.gz, beside the others')


def _unpacked(path: Path) -> bytes:
    """Returns the content of a file, compressed or not, whatever its name says.

    Raises:
      UserError: it cannot be read or unpacked, or is far too large.
    """
    try:
        with open(path, 'rb') as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            data = gzip.GzipFile(fileobj=file).read(MOST_BYTES + 1) if packed else file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f'{path} cannot be unpacked ({type(error).__name__}: {error}); download it again, it is damaged'
        ) from error
    if len(data) > MOST_BYTES:
        raise UserError(f'{path} unpacks to more than {MOST_BYTES:,} bytes; it is not the original')
    return data


def _differs(title: str, path: Path, got: str, expected: str) -> str:
    """Returns what is said of a file that is not the one that its name says."""
    for other, sums in SUMS.items():
        if got not in sums:
            continue
        file = FILES[sums.index(got)]
        if other != title:
            return (
                f"{path} is {other}'s {file}, and the data is {title}; give the folder of {title} as "
                f'--config.data.root, or --config.data.name={NAMES[other]}'
            )
        return f"{path} is {title}'s {file} under another file's name; give each of the four its own name"
    return (
        f'{path} is damaged, or no file of {title}: its unpacked content has the SHA-256 {got}, expected {expected}; '
        'download it again'
    )
