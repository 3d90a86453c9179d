"""Labels that a net has given to unlabelled images: their file, and which of them a student is shown.

The file, a NumPy .npz, holds probabilities (n, classes) in the order of the images, the names of the classes, and the
digest of the images that they belong to. Which images are used is chosen when the file is read: as Noisy Student has
it (Xie et al. 2019, arXiv:1911.04252, section 3.1), images below a confidence are left out, each class has as many as
every other, its most confident ones, and a class with fewer repeats its images.
"""

import dataclasses
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data import identity
from cvresearch.data.examples import Encoded, Example, Index, ids, pixels

SELECTION = dict(threshold=0.0, per_class=0, best=1.0, hard=False)
MOST_NAMED = 5  # classes in a line


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Other examples at `index`, which may repeat, with distributions for labels, float32 (len(index), classes).

    `stamp` stands for the images and their labels where a run records its data.
    """

    base: Encoded
    index: np.ndarray
    targets: np.ndarray
    stamp: str = ''

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Example:
        return self.base[int(self.index[index])]._replace(label=self.targets[index])

    def ids(self, index: Index) -> list[str]:
        """Returns the ids of the examples at `index`."""
        return ids(self.base, self.index[np.asarray(index)])

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images at `index` and their distributions."""
        return pixels(self.base).take(self.index[index], keys)[0], self.targets[index]


@dataclasses.dataclass(frozen=True)
class LabelFile:
    """What a net said of some images.

    Attributes:
      probabilities: float32 (n, classes).
      class_names: in the order of the columns.
      images_sha256: `identity.images_sha256` of the images.
      net: which net it was, for people.
    """

    probabilities: np.ndarray
    class_names: tuple[str, ...]
    images_sha256: str
    net: str

    def save(self, path: Path) -> None:
        """Writes the file; `path` must end in .npz."""
        fields: dict[str, Any] = dataclasses.asdict(self) | {'class_names': np.array(self.class_names, np.str_)}
        np.savez(path, **fields)

    @classmethod
    def load(cls, path: Path) -> 'LabelFile':
        """Reads a file.

        Raises:
          UserError: it is not there, or no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = tuple(map(str, arrays['class_names']))
                return cls(arrays['probabilities'], names, str(arrays['images_sha256']), str(arrays['net']))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f'{path} holds no labels ({error}); expected labels.npz of `cvresearch label`') from error


def chosen(probabilities: np.ndarray, threshold: float = 0.0, per_class: int = 0, best: float = 1.0) -> np.ndarray:
    """Returns which images are used, int64: class by class, the most confident first; some more than once.

    Args:
      probabilities: (n, classes). An image is of its most likely class, with that probability as its confidence.
      threshold: images with a lower confidence are left out.
      per_class: each class has so many: its most confident; a class with fewer begins again with its first. 0: all.
      best: of each class the share with the highest confidence (Curriculum Labeling, Cascante-Bonilla et al. 2020,
        arXiv:2001.06001, has it rise by a fifth a cycle).
    """
    confidence, label = probabilities.max(1), probabilities.argmax(1)
    indices = []
    for number in range(probabilities.shape[1]):
        of_class = np.flatnonzero((label == number) & (confidence >= threshold))
        of_class = of_class[np.argsort(-confidence[of_class], kind='stable')]
        of_class = of_class[: int(np.ceil(round(best * len(of_class), 6)))]
        indices.append(np.resize(of_class, per_class) if per_class and len(of_class) else of_class)
    return np.concatenate(indices)


def counts(probabilities: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """Returns how many images each class has at a confidence, int64 (classes,)."""
    sure = probabilities.max(1) >= threshold
    return np.bincount(probabilities.argmax(1)[sure], minlength=probabilities.shape[1])


def give(
    images: Encoded,
    path: Path,
    class_names: Sequence[str],
    threshold: float = 0.0,
    per_class: int = 0,
    best: float = 1.0,
    hard: bool = False,
) -> Labelled:
    """Returns images with the labels of a file.

    Args:
      images: of the file, before they are decoded.
      path: of the file.
      class_names: of the student's classes, in order; the file's columns are put into it by their names.
      threshold: see `chosen`; per_class: likewise; best: likewise.
      hard: the label is the most likely class alone, in place of the distribution.

    Raises:
      UserError: labels of other images or of other classes; a value out of range; a class without an image.
    """
    if not (0 <= threshold <= 1 and 0 < best <= 1 and per_class >= 0):
        raise UserError(
            f'config.unlabelled: threshold is {threshold}, best {best} and per_class {per_class}; expected 0 to 1, '
            'more than 0 to 1, and 0 or more'
        )
    file = LabelFile.load(path)
    if len(file.probabilities) != len(images) or file.images_sha256 != identity.images_sha256(images):
        raise UserError(
            f'{path} has labels of {len(file.probabilities):,} other images than the {len(images):,} of '
            'config.unlabelled; label these, with the same --config'
        )
    try:
        order = identity.permutation(class_names, file.class_names[: len(class_names)], file.probabilities.shape[1])
    except UserError as error:
        raise UserError(f'{path} has labels by {file.net}, a teacher of other classes: {error}') from error
    probabilities = file.probabilities[:, order]
    of_classes = counts(probabilities, threshold)[: len(class_names)]
    if not of_classes.all():
        empty = np.flatnonzero(of_classes == 0)
        more = f' and {len(empty) - MOST_NAMED:,} more' if len(empty) > MOST_NAMED else ''
        named = ', '.join(repr(class_names[c]) for c in empty[:MOST_NAMED])
        raise UserError(
            f'config.unlabelled.threshold is {threshold}, which leaves no image of {named}{more}; the classes have '
            f'{of_classes.min():,} to {of_classes.max():,} of {len(probabilities):,} images; expected a lower threshold'
        )
    index = chosen(probabilities, threshold, per_class, best)
    targets = probabilities[index].astype(np.float32)
    if hard:
        targets = np.eye(targets.shape[1], dtype=np.float32)[targets.argmax(1)]
    stamp = hashlib.sha256(f'{file.images_sha256}\n'.encode() + index.astype('<i8').tobytes() + targets.tobytes())
    return Labelled(images, index, targets, stamp.hexdigest())
