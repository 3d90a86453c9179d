"""Decoding shared among processes, since Python's lock ends one at some 50,000 images a second (docs/data.md).

Workers write into memory that the run's process shares with them; what they write is a function of the bytes and the
keys, so the stream is the same to the bit. They end with it, however it ends.
"""

import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from cvresearch.base.errors import RunError, UserError
from cvresearch.data.examples import memory_for

Taken = tuple[np.ndarray, dict[str, str]]  # labels, and reasons by the ids of damaged examples
_worker: dict[str, Any] = {}  # of a worker: what makes its examples, and the memory that it knows


class Workers:
    """Processes that each make a part of a batch.

    Args:
      make: returns, in a worker, the examples under a transform: an object with `take(index, keys, out)` and `damage`.
      number: of processes.
    """

    def __init__(self, make: Callable[[Any], Any], number: int):
        if not hasattr(os, 'memfd_create'):
            raise UserError('config.data.processes needs Linux, whose processes can share memory; leave it at 1')
        # Not forked: JAX has threads, and its locks would be copied as they are.
        context = multiprocessing.get_context('spawn')
        self.number = number
        self._pool = ProcessPoolExecutor(number, context, _start, (make,))
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []  # that are free; never given back, since workers know each by its place

    def take(self, transform: Any, index: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict]:
        """Returns images, uint8 (batch, height, width, channels), their labels, and what was damaged.

        Raises:
          RunError: a worker is gone, as when the system killed it for its memory.
          UserError: the examples cannot be sent to another process.
        """
        shape = (len(index), *transform.shape)
        with self._lock:
            free = [block for block in self._blocks if block.fits(shape)]
            if free:
                self._blocks.remove(free[0])
        block = free[0] if free else _Block(shape)
        cuts = np.linspace(0, len(index), self.number + 1).astype(int)
        try:
            parts = [
                self._pool.submit(_take, transform, block.place, shape, int(first), index[first:last], keys[first:last])
                for first, last in itertools.pairwise(cuts)
                if last > first
            ]
            done: list[Taken] = [part.result() for part in parts]
        except pickle.PicklingError as error:
            raise UserError(f'config.data.processes: these images cannot be sent to a process ({error})') from error
        except BrokenProcessPool as error:
            raise RunError(f'a process of config.data.processes is gone ({error}); was memory lacking?') from error
        images = memory_for(shape)
        images[:] = block.images(shape)
        with self._lock:
            self._blocks.append(block)
        damaged = {name: reason for _, reasons in done for name, reason in reasons.items()}
        return images, np.concatenate([labels for labels, _ in done]), damaged


class _Block:
    """Memory without a name, which ends with the last process that holds it; others open it by `place`."""

    def __init__(self, shape: tuple[int, ...]):
        self.size = int(np.prod(shape))
        self._file = os.memfd_create('cvresearch')
        os.ftruncate(self._file, self.size)
        self.place = f'/proc/{os.getpid()}/fd/{self._file}'
        self._memory = mmap.mmap(self._file, self.size)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return self.size == int(np.prod(shape))

    def images(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.frombuffer(self._memory, np.uint8).reshape(shape)


def _start(make: Callable[[Any], Any]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the run's process saves, and then needs them no more
        signal.signal(number, signal.SIG_IGN)
    _worker.update(make=make, transform=None, examples=None, memory={})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _take(transform, place: str, shape: tuple[int, ...], first: int, index: np.ndarray, keys: np.ndarray) -> Taken:
    if _worker['examples'] is None or transform != _worker['transform']:
        _worker.update(transform=transform, examples=_worker['make'](transform))
    if place not in _worker['memory']:
        with open(place, 'r+b') as file:
            _worker['memory'][place] = mmap.mmap(file.fileno(), int(np.prod(shape)))
    images = np.frombuffer(_worker['memory'][place], np.uint8).reshape(shape)
    examples: Any = _worker['examples']
    _, labels = examples.take(index, keys, images[first : first + len(index)])
    return labels, dict(examples.damage.found) if examples.damage else {}
