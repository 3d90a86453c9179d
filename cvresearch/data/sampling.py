"""Which training image stands at which position of the stream: each once an epoch, or classes by chosen shares.

An epoch has as many positions as there are training images, whatever the sampling. With `balanced` and `power` a
class has the same number of positions in every epoch, within 1 of its share. A class passes through all its images
in an order of its own before one of them comes again, and goes on in the next epoch where it stopped: a rare image
comes several times an epoch, a frequent one may wait for the next.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from cvresearch.base.errors import UserError, construct
from cvresearch.data.permutation import mix, permute

_WITHIN = np.uint64(0xC1A55)  # sets the orders within the classes apart from the orders of the epochs


class Sampling(Protocol):
    """A pure function of (seed, position): nothing to save, any position at once."""

    def __call__(self, position: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pass and the index of the example at each position of the endless sequence, int64.

        A pair (pass, index) never comes twice, and the random numbers of an example derive from it: copies of an
        image within an epoch are augmented differently.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Every example once an epoch, in an order of the epoch's own; the pass is the epoch."""

    size: int

    def __call__(self, position: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the passes and indices at `position`."""
        epoch, place = np.divmod(position, self.size)
        return epoch, permute(place, self.size, seed, epoch)


@dataclasses.dataclass(frozen=True)
class Shares:
    """Classes by shares of an epoch; the order of all within an epoch is that epoch's own.

    Attributes:
      labels: of the examples, int (n,).
      power: a class with c examples has a share in proportion to c ** power: 1 as they come, 0 all the same.
    """

    labels: np.ndarray
    power: float

    @functools.cached_property
    def _tables(self) -> tuple[np.ndarray, ...]:
        """The examples in the order of their classes; of each class its number, first example, size and end slot."""
        order = np.argsort(self.labels, kind='stable')
        classes, first, sizes = np.unique(self.labels[order], return_index=True, return_counts=True)
        return order, classes, first, sizes, np.cumsum(quotas(sizes, self.power))

    def counts(self) -> dict[int, int]:
        """Returns how many positions of an epoch each class has, by its label."""
        _, classes, _, _, ends = self._tables
        return dict(zip(classes.tolist(), np.diff(ends, prepend=0).tolist(), strict=True))

    def __call__(self, position: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the passes and indices at `position`."""
        order, classes, first, sizes, ends = self._tables
        epoch, place = np.divmod(position, len(order))
        slot = permute(place, len(order), seed, epoch)
        row = np.searchsorted(ends, slot, side='right')  # the class whose slot this is
        quota = np.diff(ends, prepend=0)[row]
        number = epoch * quota + slot - (ends[row] - quota)  # of the images that the class has shown before
        turn, place = np.divmod(number, sizes[row])
        with np.errstate(over='ignore'):
            # A key for each class: with one, classes of the same size would show their images in the same order.
            of_class = mix(np.uint64(seed) ^ mix(_WITHIN + classes[row].astype(np.uint64)))
        return turn, order[first[row] + permute(place, sizes[row], of_class, turn)]


def quotas(counts: np.ndarray, power: float) -> np.ndarray:
    """Returns how many of an epoch's sum(counts) positions each class has, int64 (classes,).

    Within 1 of sum(counts) * count ** power / sum(counts ** power): rounded by largest remainders, the first class
    of equal ones first.
    """
    counts = np.asarray(counts, np.int64)
    weights = counts.astype(np.float64) ** power
    aim = counts.sum() * weights / weights.sum()
    floors = np.floor(np.round(aim, 6)).astype(np.int64)
    remainder = np.round(aim - floors, 6)  # the last bits of a power differ from machine to machine
    floors[np.argsort(-remainder, kind='stable')[: counts.sum() - floors.sum()]] += 1
    return floors


def _balanced(labels: np.ndarray) -> Shares:
    return Shares(labels, 0.0)


def _power(labels: np.ndarray, power: float = 0.5) -> Shares:
    if not 0 <= power <= 1:
        raise UserError(f'config.sampling.power is {power}; expected 0 (all classes alike) to 1 (as they come)')
    return Shares(labels, power)


SAMPLINGS = {'shuffle': Shuffled, 'balanced': _balanced, 'power': _power}


def make(spec: Mapping, size: int, labels: np.ndarray | None) -> Sampling:
    """Returns the sampling that a config's `sampling` names.

    Args:
      spec: `name` and its arguments.
      size: the number of training examples.
      labels: theirs; None where the source does not know them beforehand.

    Raises:
      UserError: an unknown name or argument; classes by shares where examples have no labels, or several.
    """
    sampling = construct('sampling', SAMPLINGS, spec, size=size, labels=labels)
    if isinstance(sampling, Shares) and (labels is None or labels.ndim != 1):
        has = 'the source does not know them beforehand' if labels is None else 'these images have several labels each'
        raise UserError(f'config.sampling.name is {spec["name"]!r}, which needs one label an image; {has}: use shuffle')
    return sampling
