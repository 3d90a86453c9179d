"""ImageNet-1k (ILSVRC2012) as its publishers give it, and the sets that test what was trained on it."""

import functools
import importlib.util
import json
from pathlib import Path

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data import files, locations, walk
from cvresearch.data.examples import IMAGENET_MEAN, IMAGENET_STD, Facts, Source
from cvresearch.data.preprocessing import imagenet_classes
from cvresearch.data.remote import Place

TRAIN, VALIDATION = 1_281_167, 50_000
TRAIN_TAR, VALIDATION_TAR = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'

NEEDED = (
    (f'{TRAIN_TAR}', f'{VALIDATION_TAR}'),
    ('train/n*', 'val/*'),
)
HOW = (
    f'log in at image-net.org, download {TRAIN_TAR} (138 GB) and {VALIDATION_TAR} (6.3 GB) of ILSVRC2012,',
    'and lay them there as they are: nothing is unpacked or converted. Unpacked copies, train/<wnid>/*.JPEG and',
    'val/*.JPEG or val/<wnid>/*.JPEG, serve as well. Check with cvresearch data prepare FOLDER',
)


@functools.cache
def wnids() -> tuple[str, ...]:
    """Returns the WordNet ids of the 1,000 classes, in the order of the labels (which is alphabetical)."""
    return tuple(_labels_of_tfds('labels.txt'))


@functools.cache
def validation_labels() -> np.ndarray:
    """Returns the labels of the 50,000 validation images in the order of their file names, int32 (50000,)."""
    number = {wnid: label for label, wnid in enumerate(wnids())}
    return np.array([number[wnid] for wnid in _labels_of_tfds('validation_labels.txt')], np.int32)


def _labels_of_tfds(name: str) -> list[str]:
    # Found, not imported: the package's import takes a second.
    spec = importlib.util.find_spec('tensorflow_datasets')
    if spec is None or spec.origin is None:
        raise UserError('the labels of ImageNet are in the package tensorflow-datasets, which is not installed')
    return (Path(spec.origin).parent / 'datasets' / 'imagenet2012' / name).read_text(encoding='utf-8').split()


def facts(name: str, **more) -> Facts:
    """Returns the facts of a set with the classes of ImageNet-1k."""
    return Facts(name, imagenet_classes(), (224, 224, 3), IMAGENET_MEAN, IMAGENET_STD, **more)


def imagenet(root: str = '') -> Source:
    """ILSVRC2012: 1,281,167 training images and the 50,000 of the validation set, here 'test'.

    In `root`: the two original tars, read in place, or train/<wnid>/*.JPEG and val/ with the files or with a
    folder for each class. Examples are in the order of class and file name in either.
    """
    place = locations.find_anywhere('imagenet', root, NEEDED, HOW)
    train = of_train_tar(place / TRAIN_TAR) if (place / TRAIN_TAR).exists() else of_class_folders(place / 'train')
    tar = place / VALIDATION_TAR
    test = of_validation_tar(tar) if tar.exists() else of_validation_folder(place / 'val')
    return Source(facts('imagenet', counts=dict(train=TRAIN, test=VALIDATION)), dict(train=train, test=test), True)


def imagenet_real(root: str = '') -> Source:
    """The validation images with ReaL's labels (Beyer et al. 2020, arXiv:2006.07159): several, one or none.

    `root` is ImageNet's, with the paper's real.json beside it. Labels are int32 (n, most), filled up with -1; an
    image without any is not counted in the paper's accuracy.
    """
    place = locations.find_anywhere(
        'imagenet',
        root,
        ((VALIDATION_TAR, 'real.json'), ('val/*', 'real.json')),
        (
            "ImageNet's validation set as for `imagenet`, and beside it real.json",
            'of github.com/google-research/reassessed-imagenet',
        ),
    )
    tar = place / VALIDATION_TAR
    test = of_validation_tar(tar) if tar.exists() else of_validation_folder(place / 'val')
    answers = json.loads((place / 'real.json').read_text(encoding='utf-8'))
    labels = np.full((len(answers), max(map(len, answers))), -1, np.int32)
    for row, answer in zip(labels, answers, strict=True):
        row[: len(answer)] = answer
    labels = labels[_numbers(test.names) - 1]
    if isinstance(test, files.Members):
        test = files.Members(test.path, test.names, test.offsets, test.sizes, labels)
    else:
        test = files.Files(test.root, test.folders, test.folder, test.names, labels)
    return Source(facts('imagenet_real', counts=dict(test=VALIDATION)), dict(test=test), True)


def imagenet_v2(root: str = '', variant: str = 'matched-frequency') -> Source:
    """ImageNet-V2 (Recht et al. 2019, arXiv:1902.10811): 10,000 new test images, folders named 0 to 999.

    Args:
      root: holds imagenetv2-VARIANT-format-val/.
      variant: 'matched-frequency', 'threshold0.7' or 'top-images', (the second also as 'threshold-0.7').
    """
    name = f'imagenetv2-{variant}-format-val'
    place = locations.find_anywhere(
        'imagenet_v2', root, ((f'{name}/*',),), (f'unpack {name}.tar.gz of github.com/modestyachts/ImageNetV2 there',)
    )
    folders = sorted(walk.folders_in(place / name), key=int)
    folder, names = walk.list_folders(place / name, folders)
    labels = np.array([int(number) for number in folders], np.int32)[folder]
    test = files.Files(place / name, tuple(folders), folder, names, labels, full_ids=True)
    return Source(facts(f'imagenet_v2_{variant}', counts=dict(test=10_000)), dict(test=test), True)


def imagenet_a(root: str = '') -> Source:
    """ImageNet-A (Hendrycks et al. 2019, arXiv:1907.07174): 7,500 natural adversarial examples, 200 classes."""
    how = 'unpack imagenet-a.tar of github.com/hendrycks/natural-adv-examples and name the folder imagenet_a'
    return _some_classes('imagenet_a', root, how, 7_500)


def imagenet_r(root: str = '') -> Source:
    """ImageNet-R (Hendrycks et al. 2020, arXiv:2006.16241): 30,000 renditions, 200 classes."""
    how = 'unpack imagenet-r.tar of github.com/hendrycks/imagenet-r and name the folder imagenet_r'
    return _some_classes('imagenet_r', root, how, 30_000)


def _some_classes(name: str, root: str, how: str, count: int) -> Source:
    test = of_class_folders(locations.find_anywhere(name, root, (('n*/*',),), (how,)), full_ids=True)
    classes = tuple(int(label) for label in np.unique(test.labels))
    return Source(facts(name, counts=dict(test=count), classes=classes), dict(test=test), True)


def of_class_folders(root: Place, full_ids: bool = False) -> files.Files:
    """Returns the files in folders named by WordNet id, in the order of class and file name.

    Raises:
      UserError: a folder's name is no class of ImageNet-1k.
    """
    folders = tuple(name for name in walk.folders_in(root) if name.startswith('n'))
    folder, names = walk.list_folders(root, folders)
    labels = np.array([_label(name, root) for name in folders], np.int32)[folder]
    return files.Files(root, folders, folder, names, labels, full_ids)


def of_train_tar(path: Place) -> files.Members:
    """Returns the members of the training tar, which holds a tar for each class; order as of the folders."""
    listing = files.list_tar(path)
    order = np.lexsort((listing.names, listing.tars))
    tars, which = np.unique(listing.tars, return_inverse=True)
    labels = np.array([_label(Path(tar.decode()).stem, path) for tar in tars], np.int32)
    return files.Members(path, listing.names[order], listing.offsets[order], listing.sizes[order], labels[which[order]])


def of_validation_tar(path: Place) -> files.Members:
    """Returns the members of the validation tar, in the order of their names."""
    listing = files.list_tar(path)
    if listing.cut:
        raise UserError(f'{path} ends early; evaluation leaves no image out, so it needs the whole file')
    order = np.argsort(listing.names)
    names = listing.names[order]
    labels = validation_labels()[_numbers(names) - 1]
    return files.Members(path, names, listing.offsets[order], listing.sizes[order], labels)


def of_validation_folder(root: Place) -> files.Files:
    """Returns the validation files, in one folder or in one for each class, in the order of their names."""
    folders = tuple(name for name in walk.folders_in(root) if name.startswith('n'))
    if folders:
        listing = of_class_folders(root)
        order = np.argsort(listing.names, kind='stable')
        return files.Files(root, folders, listing.folder[order], listing.names[order], listing.labels[order])
    folder, names = walk.list_folders(root, ('',))
    return files.Files(root, ('',), folder, names, validation_labels()[_numbers(names) - 1])


def _numbers(names: np.ndarray) -> np.ndarray:
    """Returns the numbers in ILSVRC2012_val_00000001.JPEG and so on, int64."""
    try:
        numbers = np.array([int(Path(name.decode()).stem.rpartition('_')[2]) for name in names], np.int64)
    except ValueError as error:
        raise UserError(f'a validation image is not named as ILSVRC names them: {error}') from error
    if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= VALIDATION:
        raise UserError(f'a validation image has the number {numbers.max()}; expected 1 to {VALIDATION}')
    return numbers


def _label(wnid: str, found_in: Place) -> int:
    try:
        return wnids().index(wnid)
    except ValueError:
        raise UserError(f'{found_in} has {wnid!r}, which is no class of ImageNet-1k') from None
