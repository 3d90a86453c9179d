"""What a dataset is: facts, and splits with random access, of arrays or of encoded images."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np

# Of ImageNet's pixels in [0, 1], as all libraries have them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CACHE_LINE = 64  # bytes


Index = Sequence[int] | np.ndarray


class Example(NamedTuple):
    """One example: uint8 pixels (height, width, channels) or the bytes of an image file, its label and its id."""

    image: Any
    label: int | np.ndarray  # int32 (most,) where an image has several, filled up with -1
    id: str


class Encoded(Protocol):
    """Random access to the files of one split, whose images have sizes of their own."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class Examples(Encoded, Protocol):
    """Random access to one split, as images of one size."""

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns images, uint8 (batch, height, width, channels), and labels, int32 (batch,).

        Args:
          index: of the examples, int64 (batch,).
          keys: a random number for each, uint64 (batch,), from which all that is done to its image on the host
            derives; None in evaluation. Examples that are arrays have no use for it.
        """
        ...


@runtime_checkable
class WithLabels(Protocol):
    """Examples that know their labels, int (n,) or (n, most), without reading an image."""

    @property
    def labels(self) -> np.ndarray | None: ...


@runtime_checkable
class WithIds(Protocol):
    """Examples that have names of their own, such as files, rather than places."""

    def ids(self, index: Index) -> list[str]: ...


@runtime_checkable
class Decoded(Protocol):
    """Examples that are made of encoded ones, as `decoded.Pictures` are."""

    encoded: Encoded


@runtime_checkable
class Stamped(Protocol):
    """Examples that a line of text determines; it may be empty."""

    @property
    def stamp(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model and a reader must know of a dataset. `mean` and `std` are of pixels in [0, 1].

    Attributes:
      name: of the dataset.
      class_names: in the order of the labels.
      image_shape: (height, width, channels) of what a net is given.
      mean: of each channel over the training images.
      std: likewise.
      counts: the number of examples that each split has where nothing is missing; {} where it is not known.
      multi_label: whether an image has any number of classes, each a question of its own; labels are (n, most), filled
        up with -1. (Of ImageNet-ReaL's several labels any is right: it is not.)
      classes: the labels that occur, where they are not all (ImageNet-A and -R have 200 of the 1,000).
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    classes: tuple[int, ...] | None = None
    multi_label: bool = False

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset: facts, and the splits 'train', 'test' and, if held out, 'minival'.

    A dataset for evaluation alone has 'test' only.

    Attributes:
      splits: `Examples`; where `encoded`, files (`Encoded`).
      notes: lines for a person: what was left out of the data and why, how it was split.
      subset: how a part was taken of the split that is evaluated, for its record; {}: it is whole.
      unlabelled: further images to train on, whose labels are not used; None for none.
    """

    facts: Facts
    splits: dict[str, Any]
    encoded: bool = False
    notes: tuple[str, ...] = ()
    subset: dict = dataclasses.field(default_factory=dict)
    unlabelled: Any = None


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Images and labels in memory."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return Example(self.images[index], int(self.labels[index]), str(index))

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels at `index`."""
        return self.images[index], self.labels[index]


@dataclasses.dataclass(frozen=True)
class Subset:
    """The examples at `index` of other examples."""

    base: Encoded
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Example:
        return self.base[int(self.index[index])]

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of the subset; None where the other examples do not know theirs."""
        return labels_of(self)

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels at `index` of the subset."""
        return pixels(self.base).take(self.index[index], keys)


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """Other examples without their labels: each is -1, and nobody knows them beforehand."""

    base: Encoded

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Example:
        return self.base[index]._replace(label=-1)

    def ids(self, index: Index) -> list[str]:
        """Returns the ids of the examples at `index`."""
        return ids(self.base, index)

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images at `index`, and -1 for each."""
        return pixels(self.base).take(index, keys)[0], np.full(len(index), -1, np.int32)


def pixels(examples: Encoded) -> Examples:
    """Returns the examples themselves: what is below a view is never asked for pixels while it is encoded."""
    return cast(Examples, examples)


def ids(examples: Encoded, index: Index) -> list[str]:
    """Returns the ids of the examples at `index`; reads no image where there is another way."""
    if isinstance(examples, Subset):
        return ids(examples.base, examples.index[np.asarray(index)])
    return examples.ids(index) if isinstance(examples, WithIds) else [str(int(number)) for number in index]


def labels_of(examples: Encoded) -> np.ndarray | None:
    """Returns the labels of a split, int (n,) or (n, most), without reading an image; None where that cannot be."""
    if isinstance(examples, Subset):
        labels = labels_of(examples.base)
        return None if labels is None else labels[examples.index]
    labels = examples.labels if isinstance(examples, WithLabels) else None
    return None if labels is None else np.asarray(labels)


def memory_for(shape: tuple[int, ...]) -> np.ndarray:
    """Returns memory for images, uint8, that begins where a cache line does: JAX takes it for a CPU without a copy."""
    size = math.prod(shape)
    memory = np.empty(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + size].reshape(shape)
