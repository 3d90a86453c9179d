"""SIGTERM as a question that the program asks where it can stop cleanly."""

import signal
import threading


class Preemption:
    """Remembers SIGTERM and SIGINT; a second SIGINT interrupts at once.

    >>> with Preemption() as preemption:
    ...     preemption.requested
    False
    """

    def __init__(self):
        self.signal: int | None = None
        self._previous: dict = {}

    @property
    def requested(self) -> bool:
        """Whether the process was asked to stop."""
        return self.signal is not None

    def __enter__(self) -> 'Preemption':
        # Python delivers signals to the main thread alone; elsewhere (a notebook's worker, a
        # population) the handlers stay as they are.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
