"""k folds: each image of the training split is held out once, in the run of its fold.

In each class the images are put in the order of a keyed hash of their ids, and cut into k parts whose sizes differ by
1 at most (stratified: Kohavi 1995, "A study of cross-validation and bootstrap", section 2.2). An image that is added
or removed moves at most k - 1 others of its class, each to a neighbouring fold, and no image of another class.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data.examples import Encoded, Source, Subset, ids, labels_of

KEY = b'cvresearch: the folds of a training split'
MOST_NAMED = 5  # classes in a line


def held_out(source: Source, folds: int, fold: int) -> Source:
    """Returns the source with one fold of its training images as the split 'minival', and the others to train on.

    Args:
      source: the whole data.
      folds: how many there are.
      fold: the one that is held out, from 0.

    Raises:
      UserError: numbers out of range; no training images; validation images of the data's own; labels that are not
        known beforehand; an empty fold.
    """
    if folds < 2:
        raise UserError(f'config.data.folds is {folds}; expected at least 2, or 0 for no folds')
    if not 0 <= fold < folds:
        raise UserError(f'config.data.fold is {fold}; expected 0 to {folds - 1} (config.data.folds={folds})')
    name, splits = source.facts.name, source.splits
    if 'train' not in splits:
        raise UserError(f'config.data.folds is {folds}, and {name} has no training images; expected 0')
    if 'minival' in splits:
        raise UserError(
            f'config.data.folds is {folds}, and {name} has validation images of its own ({len(splits["minival"]):,}); '
            'expected one of the two: move them into the training images, or set config.data.folds=0'
        )
    train = splits['train']
    of = fold_of(train, source.facts.class_names, folds)
    inside = of == fold
    if not inside.any() or inside.all():
        raise UserError(
            f'config.data.folds is {folds}, and fold {fold} would have {inside.sum():,} of the {len(train):,} training '
            'images; expected fewer folds than images'
        )
    kept = {'train': Subset(train, np.flatnonzero(~inside)), 'minival': Subset(train, np.flatnonzero(inside))}
    notes = (f'fold {fold} of {folds} is held out (minival), by the keyed hash of names in each class',)
    return dataclasses.replace(source, splits={**splits, **kept}, notes=(*source.notes, *notes, *_few(source, folds)))


def fold_of(examples: Encoded, class_names: Sequence[str], folds: int) -> np.ndarray:
    """Returns the fold of each example, int64 (n,).

    Images with several labels are divided in groups of the same labels.

    Args:
      examples: with labels known beforehand.
      class_names: in the order of the labels; they decide in which fold the larger parts of a class lie.
      folds: how many.

    Raises:
      UserError: labels are not known beforehand.
    """
    labels = _known(examples)
    hashes = np.array([_hash(name) for name in ids(examples, np.arange(len(examples)))], np.uint64)
    groups, group = np.unique(labels.reshape(len(labels), -1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    sizes = np.bincount(group, minlength=len(groups))
    order = np.lexsort((hashes, group))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    names = ['\n'.join(sorted(str(class_names[label]) for label in row if label >= 0)) for row in groups.tolist()]
    # A start of its own for each class: otherwise the same folds would have the larger part of every class.
    first = np.array([_hash(name) % folds for name in names], np.int64)
    return (rank * folds // sizes[group] + first[group]) % folds


def _known(examples: Encoded) -> np.ndarray:
    labels = labels_of(examples)
    if labels is None:
        raise UserError('config.data.folds needs the labels beforehand, which this source does not know; expected 0')
    return labels


def _hash(name: str) -> int:
    # Systems write one name in two ways, composed or not; the fold of an image must be the same on both.
    text = unicodedata.normalize('NFC', name).encode(errors='surrogateescape')
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=KEY).digest(), 'big')


def _few(source: Source, folds: int) -> list[str]:
    """Says which classes have fewer training images than there are folds: some folds have none of them."""
    labels = _known(source.splits['train'])
    counts = np.bincount(labels[labels >= 0], minlength=source.facts.num_classes)
    few = [f'{name!r} ({n})' for name, n in zip(source.facts.class_names, counts.tolist(), strict=True) if n < folds]
    if not few:
        return []
    more = f' and {len(few) - MOST_NAMED:,} more' if len(few) > MOST_NAMED else ''
    return [f'fewer images than folds, so that some folds have none: {", ".join(few[:MOST_NAMED])}{more}']
