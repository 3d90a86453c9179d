"""Encoded examples as images of one size: decoded and transformed by threads, damage handled."""

import errno
import functools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from cvresearch.base.errors import RunError
from cvresearch.data import decode
from cvresearch.data.decode import DamagedError
from cvresearch.data.examples import Encoded, Example, Index, Subset, ids, labels_of, memory_for
from cvresearch.data.permutation import mix
from cvresearch.data.prng import example_keys
from cvresearch.data.shared import Workers

CHUNK = 16  # images a task: fewer cost more in handing over, more leave threads idle at the end of a batch
TRIES = 100  # replacements of one damaged example, and each may be damaged too


class Damage:
    """Which examples could not be decoded, and why. Many threads may report at once.

    Attributes:
      found: {id: reason}, of the examples that were replaced.
    """

    def __init__(self, most: float = 0.0, size: int = 0):
        self._most, self._size = most, size
        self._lock = threading.Lock()
        self._file = None
        self.found: dict[str, str] = {}

    def keep_in(self, path: Path) -> None:
        """Takes over what an earlier process of the run found, and writes down what is found from now on."""
        with self._lock:
            for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # a half-written last line: it will be found again
                    break
                self.found[row['id']] = row['reason']
            path.write_text(''.join(_line(*item) for item in self.found.items()), encoding='utf-8')
            self._file = path

    def report(self, example: str, reason: str) -> None:
        """Notes that an example was replaced.

        Raises:
          RunError: these are more than the share that a run goes on with.
        """
        with self._lock:
            if example not in self.found:
                self.found[example] = reason
                if self._file:
                    with open(self._file, 'a', encoding='utf-8') as file:
                        file.write(_line(example, reason))
            if len(self.found) > self._most * self._size:
                raise RunError(
                    f'{len(self.found)} of {self._size} training images cannot be decoded, more than the share '
                    f'config.data.most_damaged={self._most:g} ({_few(self.found)}); '
                    'cvresearch data prepare FOLDER names them all'
                )


class Prepares(Protocol):
    """What is done to an encoded image, from random numbers: a `Transform`, or a net's preparation in its place."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def draw(self, keys: np.ndarray) -> list[dict]: ...

    def __call__(self, data: bytes, u: dict, out: np.ndarray) -> Any: ...


class Pictures:
    """Examples whose images are decoded and transformed on the host, each a function of its bytes and its key.

    A damaged example of a training split is replaced by another, which is a function of its index alone, and
    reported; one of a split for evaluation is an error, since evaluation leaves nothing out.
    """

    def __init__(
        self,
        encoded: Encoded,
        transform: Prepares,
        damage: Damage | None = None,
        threads: int = 0,
        processes: int = 1,
    ):
        self.encoded, self.transform, self.damage = encoded, transform, damage
        self.threads, self.processes = threads or len(os.sched_getaffinity(0)), processes
        self._pool: ThreadPoolExecutor | None = None
        self._workers: Workers | None = None

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> Example:
        return self.encoded[index]

    def ids(self, index: Index) -> list[str]:
        """Returns the ids of the examples at `index`."""
        return ids(self.encoded, index)

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of the examples; None where the source does not know them without reading images."""
        return labels_of(self.encoded)

    def with_transform(self, transform: Prepares) -> 'Pictures':
        """Returns the same examples under another transform; damage is counted together."""
        other = Pictures(self.encoded, transform, self.damage, self.threads, self.processes)
        # One pool for both: the threads of two would wait for the same cores.
        if self.processes > 1:
            other._workers = self._started_processes()
        else:
            other._pool = self._started()
        return other

    def part(self, index: np.ndarray) -> 'Pictures':
        """Returns the examples at `index`, decoded in the same way."""
        return Pictures(Subset(self.encoded, index), self.transform, self.damage, self.threads)

    def take(
        self, index: np.ndarray, keys: np.ndarray | None = None, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns images, uint8 (batch, height, width, channels), and labels, int32 (batch,) or (batch, most).

        Labels that are distributions are float32 (batch, classes). Images are written into `out`, if there is one.

        Raises:
          RunError: too many training images are damaged, or one to be evaluated is; memory is lacking.
        """
        keys = example_keys(0, np.zeros(len(index)), index) if keys is None else keys
        if self.processes > 1:
            images, labels, damaged = self._started_processes().take(self.transform, index, keys)
            if self.damage:
                for name, reason in damaged.items():
                    self.damage.report(name, reason)
            return images, labels
        # One array for the batch, into which threads write: to stack images would copy each once more.
        images = memory_for((len(index), *self.transform.shape)) if out is None else out
        numbers = self.transform.draw(keys)

        # More threads than cores wait for images of a bucket: each task is small, so that all of them wait at once.
        chunk = CHUNK if self.threads <= (os.cpu_count() or 1) else max(1, min(CHUNK, len(index) // self.threads))

        def work(start: int) -> list:
            stop = min(start + chunk, len(index))
            return [self._one(int(index[row]), numbers[row], images[row]) for row in range(start, stop)]

        chunks = self._started().map(work, range(0, len(index), chunk))
        labels = np.array([label for chunk in chunks for label in chunk])
        return images, labels.astype(np.float32 if np.issubdtype(labels.dtype, np.floating) else np.int32)

    def _one(self, index: int, u: dict[str, list[float]], out: np.ndarray):
        """Writes an image and returns its label."""
        for attempt in range(TRIES):
            # By the index alone, so that every epoch and every host shows the same replacement.
            place = index if attempt == 0 else int(mix(mix(np.uint64(index)) + np.uint64(attempt)) % len(self))
            name, data = None, b''
            try:
                example = self.encoded[place]
                name, data = example.id, example.image
                self.transform(data, u, out)
                return example.label
            except (DamagedError, OSError, MemoryError, cv2.error) as error:
                name = name or ids(self.encoded, [place])[0]
                if is_lack_of_memory(error):
                    raise lack_of_memory(name, data, self.threads) from error
                if self.damage is None:
                    raise RunError(
                        f'the image {name} cannot be decoded ({error}); evaluation leaves no image out, so mend it'
                    ) from error
                self.damage.report(name, str(error))
        raise RunError(f'no replacement was found for the damaged image {name} in {TRIES} tries')

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, 'decode')
        return self._pool

    def _started_processes(self) -> Workers:
        if self._workers is None:
            threads = max(self.threads // self.processes, 1)
            make = functools.partial(_of_worker, self.encoded, self.damage is not None, threads)
            self._workers = Workers(make, self.processes)
        return self._workers


def _of_worker(encoded: Encoded, may_be_damaged: bool, threads: int, transform: Prepares) -> Pictures:
    """Returns the examples as a worker has them, which counts all damage and leaves what that means to the run."""
    return Pictures(encoded, transform, Damage(1.0, len(encoded)) if may_be_damaged else None, threads)


def is_lack_of_memory(error: Exception) -> bool:
    """Returns whether what went wrong with an image is the machine's memory, and no fault of the image."""
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def lack_of_memory(name: str, data: bytes, threads: int) -> RunError:
    """Returns the error that says so.

    Args:
      name: of the image.
      data: the file; b'' if it was not read.
      threads: that decode at the same time.
    """
    try:
        needed = f'takes up to {decode.header(data).memory / 1e6:,.0f} MB to decode, '
    except (DamagedError, MemoryError):
        needed = ''
    return RunError(
        f'memory is lacking at the image {name}, which {needed}while {threads} threads decode at once; '
        'set config.data.threads to fewer, or make the image smaller'
    )


def _line(example: str, reason: str) -> str:
    return json.dumps({'id': example, 'reason': reason}) + '\n'


def _few(reasons: dict[str, str]) -> str:
    return '; '.join(f'{name}: {reason}' for name, reason in list(reasons.items())[:3])
