"""Time spent training, apart from time spent compiling, evaluating and saving."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Adds up seconds by purpose; what no `spent` block claims is training.

    >>> clock = Clock()
    >>> with clock.spent('compile'):
    ...     pass
    >>> sorted(clock.seconds)
    ['compile']
    """

    def __init__(self):
        self.begun = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.waited = 0.0  # seconds of training spent in `waiting`

    @contextlib.contextmanager
    def spent(self, purpose: str) -> Iterator[None]:
        """Counts the block's wall time towards `purpose`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[purpose] = self.seconds.get(purpose, 0.0) + elapsed

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the block's wall time as training in which the loop waits for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - start

    @property
    def wall(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.begun

    @property
    def training(self) -> float:
        """Seconds that went into training steps."""
        return self.wall - sum(self.seconds.values())
