"""The data stream: a pure function of (examples, seed, step). Nothing to save, O(1) to seek."""

import dataclasses
import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cvresearch.data.examples import Examples, ids
from cvresearch.data.prng import example_keys
from cvresearch.data.sampling import Sampling, Shuffled

Batch = dict[str, np.ndarray]

BLOCK = 1 << 12  # positions of the sequence drawn at once


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
        epoch, index = self.drawn(first, first + local)
        images, labels = self.examples.take(index, example_keys(self.seed, epoch, index))
        return {
            'image': images, 'label': labels,
            'epoch': epoch.astype(np.int32), 'index': index.astype(np.int32),
        }  # fmt: skip

    def digest(self, epoch: int) -> str:
        """Returns the SHA-256 of what an epoch shows: the ids and the keys of its examples, in order.

        It is of the whole epoch, over all hosts, whichever batches this process has made; two machines with the
        same copy of a dataset get the same.
        """
        digest = hashlib.sha256()
        first, size = epoch * len(self.examples), len(self.examples)
        for start in range(first, first + size, BLOCK):
            epochs, index = self.drawn(start, min(start + BLOCK, first + size))
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
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws many positions at once, as that costs little more than one batch; keeps the last."""
        found = self._blocks.get(number)
        if found is None:
            position = np.arange(number * BLOCK, (number + 1) * BLOCK)
            found = (self.sampling or Shuffled(len(self.examples)))(position, self.seed)
            self._blocks.clear()
            self._blocks[number] = found
        return found

    @functools.cached_property
    def _blocks(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}


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


def prefetch(
    make: Callable[[int], Batch], start: int, stop: int, depth: int = 2, workers: int = 1
) -> Iterator[Batch]:
    """Yields make(start), ..., make(stop - 1), `depth` of them made ahead, by `workers` threads.

    Closing the iterator ends the threads. An exception in `make` is raised here.
    """
    with ThreadPoolExecutor(workers, 'prefetch') as pool:
        try:
            ahead = deque(pool.submit(make, step) for step in range(start, min(start + depth, stop)))
            for step in range(start, stop):
                batch = ahead.popleft().result()
                if step + depth < stop:
                    ahead.append(pool.submit(make, step + depth))
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
