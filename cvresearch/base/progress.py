"""The progress of long work: a bar on a terminal, a line now and then in a log file."""

import sys
import time

from tqdm import tqdm

from cvresearch.base.speed import Speed

LINE_EVERY_SECONDS = 10.0


class Progress:
    """Shows steps, their speed and the time left."""

    def __init__(self, speed: Speed, start: int, total: int, quiet: bool = False):
        self._speed, self._total = speed, total
        self._bar = tqdm(
            initial=start,
            total=total,
            unit='step',
            dynamic_ncols=True,
            file=sys.stderr,
            disable=quiet or not sys.stderr.isatty(),
            bar_format='{l_bar}{bar}| {n}/{total} {postfix}',
        )
        self._lines = not quiet and self._bar.disable
        self._next_line = 0.0

    def step(self, step: int) -> None:
        """Says that the update to `step` was dispatched."""
        self._speed.step(step)
        if not self._bar.disable:
            self._bar.set_postfix_str(self._text(step), refresh=False)
            self._bar.update(1)
        elif self._lines and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_SECONDS
            self.say(f'step {step}/{self._total} {self._text(step)}')

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._lines or not self._bar.disable:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()

    def _text(self, step: int) -> str:
        if not self._speed.rate:
            return ''
        seconds = int((self._total - step) / self._speed.rate)
        return f'{self._speed.text()}, {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left'
