"""The data stream: a pure function of (examples, seed, step). Nothing to save, O(1) to seek."""

import dataclasses
import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cvresearch.data.examples import Examples, ids
from cvresearch.data.permutation import mix
from cvresearch.data.prng import example_keys
from cvresearch.data.sampling import Sampling, Shuffled

Batch = dict[str, Any]  # arrays, and at 'unlabelled' a batch

BLOCK = 1 << 12  # positions of the sequence drawn at once
_BESIDE = np.uint64(0xBE51DE)  # sets the order of unlabelled examples apart from the labelled ones'


@dataclasses.dataclass(frozen=True)
class Stream:
    """Training batches. Every epoch shows every example once, in an order of its own, or as `sampling` has it.

    The sequence of examples is endless and does not depend on the batch size, the number of
    hosts or the devices: batch `step` is its slice [step * batch_size, (step + 1) * batch_size),
    and may reach over the end of an epoch. Host `host` of `hosts` gets its part of each batch.
    """

    examples: Examples
    seed: int
    batch_size: int
    host: int = 0
    hosts: int = 1
    sampling: Sampling | None = None  # every example once an epoch

    def batch(self, step: int) -> Batch:
        """Returns this host's part of a batch.

        Returns:
          image: uint8 (batch, height, width, channels); label, epoch, index: int32 (batch,). The epoch is how often
          the example was shown before, which without a sampling of classes is the number of the epoch.
        """
        local = self.batch_size // self.hosts
        first = step * self.batch_size + self.host * local
        # By position in the endless sequence: nothing but the step must be known to go on after a kill.
        epoch, index = self.drawn(first, first + local)
        images, labels = self.examples.take(index, example_keys(self.seed, epoch, index))
        return {
            'image': images,
            'label': labels,
            'epoch': epoch.astype(np.int32),
            'index': index.astype(np.int32),
        }

    def digest(self, epoch: int) -> str:
        """Returns the SHA-256 of what an epoch shows: the ids and the keys of its examples, in order.

        It is of the whole epoch, over all hosts, whichever batches this process has made; two machines with the
        same copy of a dataset get the same.
        """
        first, size = epoch * len(self.examples), len(self.examples)
        return self.digest_of(first, first + size)

    def digest_of(self, first: int, last: int) -> str:
        """Returns the SHA-256, as of `digest`, of the positions [first, last) of the sequence."""
        digest = hashlib.sha256()
        for start in range(first, last, BLOCK):
            epochs, index = self.drawn(start, min(start + BLOCK, last))
            digest.update('\n'.join(ids(self.examples, index)).encode())
            digest.update(example_keys(self.seed, epochs, index).astype('<u8').tobytes())
        return digest.hexdigest()

    def drawn(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the epochs (see `batch`) and the indices of the positions [start, stop) of the sequence."""
        parts = []
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            epoch, index = self._block(number)
            inside = slice(max(start - number * BLOCK, 0), stop - number * BLOCK)
            parts.append((epoch[inside], index[inside]))
        epochs, index = (np.concatenate(part) for part in zip(*parts, strict=True))
        return epochs, index

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws many positions at once, as that costs little more than one batch; keeps the last."""
        block = self._blocks.get(number)
        if block is None:
            position = np.arange(number * BLOCK, (number + 1) * BLOCK)
            block = (self.sampling or Shuffled(len(self.examples)))(position, self.seed)
            # Only the last: batches are made in order, and a run of days would keep every block that it ever drew.
            self._blocks.clear()
            self._blocks[number] = block
        return block

    @functools.cached_property
    def _blocks(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two streams in one: to each batch of images with labels, a batch of images without.

    Each is a function of the step by itself; example i of the one goes with the examples i * ratio, ... of the other,
    on whichever host.

    Attributes:
      labelled: with labels.
      unlabelled: without; its batches are `ratio` times as large.
      strong: the unlabelled examples in the view that is augmented strongly, from the same keys; None for no such view.
    """

    labelled: Stream
    unlabelled: Stream
    strong: Examples | None = None

    @classmethod
    def of(cls, labelled: Stream, examples: Examples, ratio: int, strong: Examples | None = None) -> 'Paired':
        """Returns a stream beside which examples without labels come, `ratio` for each with one."""
        seed = int(mix(np.uint64(labelled.seed) ^ _BESIDE))  # or sets of one size would come in one order
        size = ratio * labelled.batch_size
        return cls(labelled, Stream(examples, seed, size, labelled.host, labelled.hosts), strong)

    def batch(self, step: int) -> Batch:
        """Returns this host's part of a batch: `Stream.batch`'s of the labelled, and at 'unlabelled' of the other.

        The other has `strong` too, uint8 as `image`, if there is that view. Its labels are -1, or float (batch,
        classes) where the examples have distributions for labels.
        """
        other = self.unlabelled.batch(step)
        if self.strong is not None:
            keys = example_keys(self.unlabelled.seed, other['epoch'], other['index'])
            other['strong'] = self.strong.take(other['index'], keys)[0]
        return self.labelled.batch(step) | {'unlabelled': other}

    def digest(self, epoch: int) -> str:
        """Returns the SHA-256 of what an epoch of the labelled examples shows, and of what comes beside it."""
        ratio = self.unlabelled.batch_size // self.labelled.batch_size
        first, size = epoch * len(self.labelled.examples) * ratio, len(self.labelled.examples) * ratio
        parts = self.labelled.digest(epoch), self.unlabelled.digest_of(first, first + size)
        return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def in_order(examples: Examples, batch_size: int, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
    """Yields every example once, in order, in batches of one shape; the last ones are filled up.

    Yields:
      image: uint8 (batch, height, width, channels); label: int32 (batch,); mask: float32
      (batch,), 1 for an example, 0 for filling (which repeats example 0).
    """
    local = batch_size // hosts

    def make(number: int) -> Batch:
        place = number * batch_size + host * local + np.arange(local)
        real = place < len(examples)
        images, labels = examples.take(np.where(real, place, 0))
        return {'image': images, 'label': labels, 'mask': real.astype(np.float32)}

    yield from prefetch(make, 0, -(-len(examples) // batch_size))


def prefetch(make: Callable[[int], Batch], start: int, stop: int, depth: int = 2, workers: int = 1) -> Iterator[Batch]:
    """Yields make(start), ..., make(stop - 1), `depth` of them made ahead, by `workers` threads.

    Closing the iterator ends the threads. An exception in `make` is raised here.
    """
    with ThreadPoolExecutor(workers, 'prefetch') as pool:
        try:
            # A queue of futures in order of the steps: whichever thread is ready first, batches come as they would
            # from one.
            ahead = deque(pool.submit(make, step) for step in range(start, min(start + depth, stop)))
            for step in range(start, stop):
                batch = ahead.popleft().result()
                if step + depth < stop:
                    ahead.append(pool.submit(make, step + depth))
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
