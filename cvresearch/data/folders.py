"""Any images at all: a folder with a folder for each class."""

from pathlib import Path

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data import files, where
from cvresearch.data.examples import Facts, Source, Subset
from cvresearch.data.imagenet import MEAN, STD

TEST_NAMES = ('test', 'val', 'validation', 'valid')


def image_folder(root: str = '', every: int = 5) -> Source:
    """Images in `root`/train/<class>/ and `root`/test/<class>/ (or val), or in `root`/<class>/ alone.

    Classes are in alphabetical order. Mean and deviation are ImageNet's.

    Args:
      root: the folder.
      every: where there is no test folder, every so-many-th image of each class is a test image;
        1: all are, and there is no training split.

    Raises:
      UserError: no such folder, no classes, a class of the test folder that is not trained on.
    """
    place = where.find('image_folder', root, (('*/*',),), ('lay the images there, in a folder for each class',))
    if not (place / 'train').is_dir():
        classes = files.class_folders(place)
        images = _labelled(place, classes)
        rank = np.arange(len(images)) - np.searchsorted(images.labels, images.labels)
        test = rank % every == every - 1
        splits = {'train': Subset(images, np.flatnonzero(~test)), 'test': Subset(images, np.flatnonzero(test))}
    else:
        classes = files.class_folders(place / 'train')
        tests = [place / name for name in TEST_NAMES if (place / name).is_dir()]
        if not tests:
            raise UserError(f'{place} has train/ and none of {", ".join(TEST_NAMES)} for the test images')
        splits = {'train': _labelled(place / 'train', classes), 'test': _labelled(tests[0], classes)}
    if every == 1 and not (place / 'train').is_dir():
        del splits['train']
    for split, images in splits.items():
        if not len(images):
            raise UserError(f'{place}: the split {split!r} has no image ({", ".join(files.ENDINGS)})')
    return Source(Facts('image_folder', classes, (224, 224, 3), MEAN, STD), splits, True)


def _labelled(root: Path, classes: tuple[str, ...]) -> files.Files:
    folders = files.class_folders(root)
    unknown = sorted(set(folders) - set(classes))
    if unknown:
        raise UserError(f'{root} has the class {unknown[0]!r}, which the training images have not')
    folder, names = files.list_folders(root, folders)
    labels = np.array([classes.index(name) for name in folders], np.int32)[folder]
    return files.Files(root, folders, folder, names, labels, full_ids=True)
