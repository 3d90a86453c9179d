"""Images whose labels are not used: what is left of a training split, a source of its own, a folder, a tar.

Labels are chosen as the papers choose them: the same number of each class, drawn by a key. In each class the images
stand in the order of a keyed hash of the seed and of their ids, and the first of them keep their labels. So the 100
labels of a seed are among its 600.
"""

import dataclasses
import hashlib
import unicodedata

import numpy as np
from PIL import Image

from cvresearch.base.errors import UserError
from cvresearch.data import locations
from cvresearch.data.examples import Encoded, Example, Examples, Source, Subset, Unlabelled, ids, labels_of
from cvresearch.data.files import Files, Members, list_tar
from cvresearch.data.policies import Policy
from cvresearch.data.prng import normals, uniforms
from cvresearch.data.remote import Place
from cvresearch.data.walk import LeftOut, images_below, packed

KEY = b'cvresearch: labels that are used'
MOST_NAMED = 5  # classes in a line


def keep_labels(source: Source, labels: int, seed: int) -> tuple[Source, Unlabelled]:
    """Returns a source whose training images are those that keep their labels, and the rest without labels.

    Args:
      source: whose training labels are known beforehand.
      labels: how many images keep their label, over all classes; the classes' numbers differ by 1 at most.
      seed: of the draw.

    Raises:
      UserError: more labels than there are images, of all classes or of one; fewer than there are classes, or than 0;
        labels that are not one an image, or not known.
    """
    train, names = source.splits['train'], source.facts.class_names
    known = labels_of(train)
    if known is None or known.ndim != 1:
        reason = 'does not know its labels beforehand' if known is None else 'has several labels an image'
        raise UserError(f'config.data.labels is {labels}, and {source.facts.name} {reason}; expected 0')
    if labels < 0:
        raise UserError(f'config.data.labels is {labels:,}; expected a number of images, or 0 for all')
    if labels > len(train):
        raise UserError(
            f'config.data.labels is {labels:,}, and {source.facts.name} has {len(train):,} training images; '
            'expected at most that many, or 0 for all'
        )
    counts, shares = np.bincount(known, minlength=len(names)), _shares(labels, names, seed)
    if labels < len(names):
        raise UserError(
            f'config.data.labels is {labels}, which leaves {len(names) - labels} of {len(names)} classes without a '
            f'label; expected at least {len(names)}'
        )
    if short := [f'{names[c]!r} ({counts[c]} of {shares[c]})' for c in np.flatnonzero(counts < shares)]:
        more = f' and {len(short) - MOST_NAMED} more' if len(short) > MOST_NAMED else ''
        raise UserError(
            f'config.data.labels is {labels:,}, about {labels // len(names)} of each class, and some classes have '
            f'fewer images: {", ".join(short[:MOST_NAMED])}{more}; expected at most '
            f'{counts.min() * len(names):,}, the smallest class times the classes'
        )
    # By a hash of the name, so that more labels keep those of fewer, and the order of the files has no say.
    hashes = np.array([_hash(name, seed) for name in ids(train, np.arange(len(train)))], np.uint64)
    order = np.lexsort((hashes, known))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = rank < shares[known]
    rest = Unlabelled(Subset(train, np.flatnonzero(~kept)))
    splits = source.splits | {'train': Subset(train, np.flatnonzero(kept))}
    note = f'{labels:,} of {len(train):,} training images keep their labels (config.data.labels)'
    return dataclasses.replace(source, splits=splits, notes=(*source.notes, note)), rest


def images(root: str = '') -> Encoded:
    """Returns all image files at any depth below a folder, or in a tar, without labels.

    Args:
      root: the folder or the tar; the names of folders in it mean nothing.

    Raises:
      UserError: nothing is there, or no image is in it.
    """
    if not root:
        raise UserError('config.unlabelled.root is empty; expected a folder of images, or a tar')
    place = locations.place(root, 'config.unlabelled.root')
    expected = 'expected a folder of images, or a tar'
    if not place.exists():
        raise UserError(f'config.unlabelled.root is {root}, and nothing is there; {expected}')
    examples = _of_folder(place) if place.is_dir() else _of_tar(place)
    if not len(examples):
        raise UserError(f'config.unlabelled.root is {root}, and no image is in it; {expected}')
    return Unlabelled(examples)


def check_fits(source: Source, other: Source) -> None:
    """Raises UserError unless the images of another source can stand in one batch with a source's."""
    what = {True: 'encoded images', False: 'arrays'}
    if source.encoded != other.encoded:
        raise UserError(
            f'config.unlabelled.name is {other.facts.name!r}, whose images are {what[other.encoded]}, and those of '
            f'{source.facts.name} are {what[source.encoded]}; expected the same kind'
        )
    shape, wanted = other.facts.image_shape, source.facts.image_shape
    if not source.encoded and shape != wanted:
        raise UserError(
            f'config.unlabelled.name is {other.facts.name!r}, with images of {" x ".join(map(str, shape))}, and those '
            f'of {source.facts.name} are {" x ".join(map(str, wanted))} (height x width x channels); expected the same'
        )


@dataclasses.dataclass(frozen=True)
class StrongView:
    """Examples that are arrays after a policy of augmentation and a grey square, drawn for each by its key.

    Attributes:
      base: the examples.
      policy: of data/policies.py, on grey images as on their three equal channels.
      cutout: side of the square in pixels; 0 for none.
      noise: standard deviation of Gaussian noise, in grey values of 0 to 255; 0 for none.
    """

    base: Examples
    policy: Policy
    cutout: int
    noise: float = 0.0

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Example:
        return self.base[index]

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the changed images, uint8, and the labels of the examples."""
        assert keys is not None  # a training's
        shown, labels = self.base.take(index, keys)
        changed = self._changed(shown, keys) if self.cutout or self.policy != Policy() else shown
        if self.noise:
            noise = self.noise * normals(keys, 'noise', shown[0].size).reshape(shown.shape)
            changed = np.clip(np.rint(changed + noise), 0, 255).astype(np.uint8)
        return changed, labels

    def _changed(self, shown: np.ndarray, keys: np.ndarray) -> np.ndarray:
        numbers = uniforms(keys, 'policy', self.policy.numbers)
        places = uniforms(keys, 'cutout', 2)
        changed = np.empty_like(shown)
        for image, u, place, out in zip(shown, numbers, places, changed, strict=True):
            rgb = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
            out[:] = np.asarray(self.policy(Image.fromarray(rgb), u.tolist()))[..., : image.shape[-1]]
            if self.cutout:
                top, left = (int(u * side) - self.cutout // 2 for u, side in zip(place, image.shape[:2], strict=True))
                out[max(top, 0) : max(top + self.cutout, 0), max(left, 0) : max(left + self.cutout, 0)] = 127
        return changed


def _shares(labels: int, names: tuple[str, ...], seed: int) -> np.ndarray:
    """Returns how many labels each class has; which classes have one more is drawn too."""
    shares = np.full(len(names), labels // len(names))
    order = sorted(range(len(names)), key=lambda c: _hash(names[c], seed))
    shares[order[: labels % len(names)]] += 1
    return shares


def _hash(name: str, seed: int) -> int:
    text = f'{seed}\n{unicodedata.normalize("NFC", name)}'.encode(errors='surrogateescape')
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=KEY).digest(), 'big')


def _of_folder(root: Place) -> Files:
    folder, names = packed([images_below(root, LeftOut(root))])
    return Files(root, ('',), folder, names, np.full(len(names), -1, np.int32))


def _of_tar(path: Place) -> Members:
    listing = list_tar(path)
    order = np.lexsort((listing.names, listing.tars))
    return Members(
        path, listing.names[order], listing.offsets[order], listing.sizes[order], np.full(len(order), -1, np.int32)
    )
