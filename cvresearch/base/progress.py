"""The progress of long work: a bar on a terminal, a line now and then in a log file."""

import sys
import time

from tqdm import tqdm

from cvresearch.base.clock import Clock

LINE_EVERY_SECONDS = 10.0
FIRST_STEPS = 2  # not measured: they fill caches


class Progress:
    """Shows steps, steps/s and the time left.

    The rate counts training alone, not compiling, evaluating and saving (`Clock.training`).
    """

    def __init__(self, clock: Clock, start: int, total: int, quiet: bool = False):
        self._clock, self._total = clock, total
        self._first = start + FIRST_STEPS
        self._since: float | None = None
        self.rate = 0.0  # steps a second
        self._bar = tqdm(
            initial=start, total=total, unit='step', dynamic_ncols=True, file=sys.stderr,
            disable=quiet or not sys.stderr.isatty(), bar_format='{l_bar}{bar}| {n}/{total} {postfix}',
        )  # fmt: skip
        self._lines = not quiet and self._bar.disable
        self._next_line = 0.0

    def step(self, step: int) -> None:
        """Says that the update to `step` was dispatched."""
        now = self._clock.training
        if step == self._first:
            self._since = now
        elif self._since is not None and now > self._since:
            self.rate = (step - self._first) / (now - self._since)
        if not self._bar.disable:
            self._bar.set_postfix_str(self._speed(step), refresh=False)
            self._bar.update(1)
        elif self._lines and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_SECONDS
            self.say(f'step {step}/{self._total} {self._speed(step)}')

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._lines or not self._bar.disable:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()

    def _speed(self, step: int) -> str:
        if not self.rate:
            return ''
        left = int((self._total - step) / self.rate)
        return f'{self.rate:.1f} steps/s, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left'
