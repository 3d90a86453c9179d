"""SIGTERM, and a cloud's notice, as a question that the program asks where it can stop cleanly."""

import signal
import threading

from cvresearch.base import metadata

POLL_SECONDS = 1.0  # a machine that is to be taken away is left 30 s
# What Google's metadata server says where this machine goes; where it is moved as it runs, nothing need be done.
_LEAVING = {'preempted': 'TRUE', 'maintenance-event': 'TERMINATE_ON_HOST_MAINTENANCE'}


class Preemption:
    """Remembers SIGTERM, SIGINT and the notice of the cloud; a second SIGINT interrupts at once.

    >>> with Preemption() as preemption:
    ...     preemption.requested
    False
    """

    def __init__(self):
        self.signal: int | None = None
        self._previous: dict = {}
        self._notice: Notice | None = None

    @property
    def requested(self) -> bool:
        """Whether the process was asked to stop."""
        return self.signal is not None or (self._notice is not None and self._notice.seen)

    def __enter__(self) -> 'Preemption':
        # Python delivers signals to the main thread alone; elsewhere (a notebook's worker, a
        # population) the handlers stay as they are.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        if server := metadata.server():
            self._notice = Notice(server)
            self._notice.start()
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._notice:
            self._notice.ended.set()

    def _handle(self, number, frame) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


class Notice(threading.Thread):
    """Asks Google's metadata server whether this machine is about to be taken away (spot VMs, TPU maintenance)."""

    def __init__(self, server: str):
        super().__init__(name='preemption notice', daemon=True)
        self._server = server
        self.seen, self.ended = False, threading.Event()

    def run(self) -> None:
        """Asks until the answer is yes."""
        while not self.seen and not self.ended.wait(POLL_SECONDS):
            self.seen = any(metadata.value(self._server, name) == leaving for name, leaving in _LEAVING.items())
