"""Any images at all: a folder with a folder for each class, or a list of files with their labels.

Which layouts are known, what is an image and how a test split is made where there is none is in docs/data.md.
"""

import contextlib
import hashlib
import os
import unicodedata
from collections.abc import Sequence

import numpy as np

from cvresearch.base.errors import UserError, lookup
from cvresearch.data import lists, locations
from cvresearch.data.examples import IMAGENET_MEAN, IMAGENET_STD, Facts, Source, Subset
from cvresearch.data.files import Files, Part
from cvresearch.data.layouts import of_folder
from cvresearch.data.names import printable
from cvresearch.data.remote import Place
from cvresearch.data.walk import LeftOut

KEY = b'cvresearch: the test split of a folder'
HASHES = 1 << 64
SHOWN = 5  # names in a line
BY_HASH = 'by the hash of its name'  # ends the note of a source that was split so


def image_folder(root: str = '', every: int = 5, list: str = '', by: str = 'name', separator: str = '') -> Source:
    """Images of any kind: `root`/train/<class>/ and test/ or val/, `root`/<class>/ alone, or a list of files.

    Classes are in alphabetical order (whole numbers in a list, in numerical order). A class has all images at
    any depth below its folder. Mean and deviation are ImageNet's.

    A folder or a split of the list named test, val, valid or validation is the test split; where there are both, val
    is 'minival', on which the best checkpoint is chosen. Where there is neither, about one in `every` images is a
    test image: those for which the keyed hash of the file's class and name is in the lowest 1/`every`. So neither other
    images nor other classes move an image to the other split.

    Args:
      root: the folder.
      every: one in so many images is a test image, where no test folder says it; 1: all are, for evaluation only.
      list: a CSV file of path, label and (if it says so) split; other files in the folder are then left out.
      separator: between the labels of an image in the list, which may then have any number of them; where the list's
        column is called `labels`, a bar (|) if this is ''.
      by: 'name', or 'rank', as the split was made before (every so-many-th image of each class), for older runs.

    Raises:
      UserError: no such folder or list, no classes, a class in the test split that is not trained on, a split
        without an image, a folder whose meaning is not clear.
    """
    if every < 1:
        raise UserError(f'config.data.every is {every}; expected at least 1 (one in so many images is a test image)')
    divide = lookup('data.by', DIVISIONS, by)
    if list:
        parts, left_out, notes = lists.read(list, root, separator), None, []
    elif separator:
        raise UserError(f'config.data.separator is {separator!r}, which is of a list; set config.data.list too')
    else:
        place = _place(root)
        left_out = LeftOut(place)
        parts, notes = of_folder(place, left_out)
    classes = _classes(parts)
    several = any(part.label.ndim == 2 for part in parts.values())
    if several and by == 'rank':
        raise UserError('config.data.by is rank, which needs one label an image; expected name')
    of_role = {role: _files(part, classes) for role, part in parts.items()}
    splits = _splits(of_role, every, divide, notes)
    notes += [*_without_images(splits, classes), *(f'{_named(names)} look alike' for names in alike(classes))]
    lines = (*(left_out.lines() if left_out else ()), *notes)
    names = tuple(printable(name) for name in classes)
    facts = Facts('image_folder', names, (224, 224, 3), IMAGENET_MEAN, IMAGENET_STD, multi_label=several)
    return Source(facts, splits, True, lines)


def _place(root: str) -> Place:
    if root and (place := locations.place(root)).is_dir():
        return place
    how = ('lay the images there, in a folder for each class',)
    return locations.find_anywhere('image_folder', root, (('*/*',),), how)


def _classes(parts: dict[str, Part]) -> tuple[str, ...]:
    """Returns the names of the classes of the training images; where there are none, of the test images.

    Raises:
      UserError: another split has a class that the training images have not.
    """
    order = next(role for role in ('train', 'test', 'val') if role in parts)
    classes = parts[order].classes
    for part in parts.values():
        unknown = [name for name in part.classes if _composed(name) not in set(map(_composed, classes))]
        if unknown:
            raise UserError(
                f'{part.place} has the class{"es" * (len(unknown) > 1)} {_named(unknown)}, which the {order} images '
                f'have not ({_named(classes)}{_alike(unknown[0], classes)}); name it as there, or take it away'
            )
    return classes


def _composed(name: str) -> str:
    """Returns a name in the form of Unicode in which equal names are equal: file systems change between its forms."""
    return unicodedata.normalize('NFC', name)


def _alike(name: str, classes: tuple[str, ...]) -> str:
    """Says which class a name seems to be: names that look the same may differ in case, blanks or Unicode's form."""
    near = [other for other in classes if _folded(other) == _folded(name)]
    return f'; {name!a} and {near[0]!a} differ in case, blanks or the form of Unicode alone' if near else ''


def alike(classes: Sequence[str]) -> list[list[str]]:
    """Returns groups of classes whose names differ only in case, blanks or the form of Unicode."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(_folded(name), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _folded(name: str) -> str:
    return ' '.join(unicodedata.normalize('NFKC', printable(name)).casefold().split())


def _named(names) -> str:
    shown = ', '.join(repr(printable(name)) for name in names[:SHOWN])
    return f'{shown} and {len(names) - SHOWN:,} more' if len(names) > SHOWN else shown


def _files(part: Part, classes: tuple[str, ...]) -> Files:
    number = {_composed(name): label for label, name in enumerate(classes)}
    of_class = np.array([number[_composed(name)] for name in part.classes], np.int32)
    labels = np.append(of_class, np.int32(-1))[part.label]
    return Files(part.root, part.folders, part.folder, part.names, labels, full_ids=True)


def _splits(of_role: dict[str, Files], every: int, divide, notes: list[str]) -> dict:
    train, test, val = (of_role.get(role) for role in ('train', 'test', 'val'))
    if train is None:
        notes.append('no training images: for evaluation only')
        if test is not None and val is not None:
            notes.append('the validation images are left out: they are to choose a checkpoint by in training')
        return {'test': val if test is None else test}
    if test is not None:
        return {'train': train, 'test': test} | ({} if val is None else {'minival': val})
    if val is not None:
        return {'train': train, 'test': val}
    chosen = divide(train, every)
    if chosen.all() and every == 1:
        notes.append('every image is a test image (config.data.every=1): for evaluation only')
        return {'test': train}
    if chosen.all() or not chosen.any():
        raise UserError(
            f'{train.root}: of {len(train):,} images, {chosen.sum():,} fall into the test split of '
            f'config.data.every={every}, which leaves a split empty; {_other_every(train, every)}'
        )
    notes.append(
        f'no test folder: about one in {every} images is a test image (config.data.every), '
        + (BY_HASH if divide is by_name else 'by its rank in its class')
    )
    return {'train': Subset(train, np.flatnonzero(~chosen)), 'test': Subset(train, np.flatnonzero(chosen))}


def _other_every(train: Files, every: int) -> str:
    works = [n for n in range(2, 100) if 0 < by_name(train, n).sum() < len(train)]
    advice = 'make a test folder, or a list (config.data.list)'
    return f'config.data.every={min(works, key=lambda n: abs(n - every))} does not; or {advice}' if works else advice


def by_name(images: Files, every: int) -> np.ndarray:
    """Returns which images are test images, bool (n,), by the hash of their names; every=4 has all images of every=5.

    The hash is BLAKE2b of 8 bytes under `KEY`, of the path below the root: class and name of the file. The name alone
    would not do: where every class counts its files from 1, few hashes would decide for all images.
    """
    places = zip(images.folder, images.names, strict=True)
    paths = (os.path.join(os.fsencode(images.folders[folder]), name) for folder, name in places)
    return np.array([position(path) * every < HASHES for path in paths], bool)


def position(path: bytes) -> int:
    """Returns the hash of a path, 0 to 2**64 - 1; of UTF-8 in its composed form (NFC), as a copy from a Mac is not."""
    with contextlib.suppress(UnicodeDecodeError):  # a name in another encoding is hashed as it is
        path = unicodedata.normalize('NFC', path.decode()).encode()
    return int.from_bytes(hashlib.blake2b(path, digest_size=8, key=KEY).digest(), 'big')


def by_rank(images: Files, every: int) -> np.ndarray:
    """Returns which images are test images, bool (n,): every so-many-th of each class, which others' coming moves."""
    rank = np.arange(len(images)) - np.searchsorted(images.labels, images.labels)
    return rank % every == every - 1


DIVISIONS = {'name': by_name, 'rank': by_rank}


def _without_images(splits: dict, classes: tuple[str, ...]) -> list[str]:
    """Says which classes a split has no image of; in a test split they are not measured."""
    notes = []
    for split, images in splits.items():
        counts = np.bincount(images.labels[images.labels >= 0], minlength=len(classes))
        if missing := [classes[label] for label in np.flatnonzero(counts == 0)]:
            notes.append(f'the {split} split has no image of {_named(missing)}')
    return notes
