"""Compiling in a thread of its own, so that a program that waits for it can be asked to stop."""

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Compiler:
    """What was compiled, and what is being compiled, by name; two at a time, so that an evaluation need not wait."""

    def __init__(self):
        self._found: dict[Hashable, Future] = {}
        # XLA compiles without Python's lock, so that the loop goes on meanwhile.
        self._pool = ThreadPoolExecutor(2, 'compile')

    def begin(self, name: Hashable, make: Callable) -> None:
        """Begins to compile what `make()` returns, once."""
        if name not in self._found:
            self._found[name] = self._pool.submit(make)

    def done(self, name: Hashable, seconds: float) -> bool:
        """Whether it is compiled, after waiting for at most so many seconds."""
        wait([self._found[name]], seconds)
        return self._found[name].done()

    def result(self, name: Hashable):
        """Returns it, after waiting for it if need be. What went wrong in compiling is raised here."""
        return self._found[name].result()

    def close(self) -> None:
        """Gives up what has not begun; what has begun goes on in its thread, and nobody waits for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
