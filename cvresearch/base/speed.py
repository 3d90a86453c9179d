"""How fast training goes, how well it uses its devices, and a profile of some steps. None of it changes a result."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cvresearch.base.clock import Clock
from cvresearch.base.errors import UserError

FIRST_STEPS = 2  # not measured: they fill caches
Device = Any  # jax.Device, which no static checker can look into
MEASURE = 'measure'


@dataclasses.dataclass(frozen=True)
class Observation:
    """What is watched of a run on request.

    Attributes:
      peak: of one device, in TFLOP/s, against which the use of it (MFU) is told; 'measure' for what a matrix product
        reaches on it, '' for none.
      profile: how many steps the profile has; 0 for none.
      profile_from: the first of them; by default, the third that this process makes.
      track: the trackers that get the records (trackers.py).
    """

    peak: str = ''
    profile: int = 0
    profile_from: int | None = None
    track: tuple[str, ...] = ()

    def __post_init__(self):
        if self.peak not in ('', MEASURE) and not (_number(self.peak) or 0) > 0:
            raise UserError(f'--peak is {self.peak!r}; expected TFLOP/s of one device, or {MEASURE!r}')

    def peak_flops(self, device: Device, dtype: str) -> float | None:
        """Returns the FLOP/s that count as all that a device can do in a dtype, None where nobody asked."""
        if not self.peak:
            return None
        return matrix_flops(device, dtype) if self.peak == MEASURE else 1e12 * float(self.peak)

    def first(self, step: int, steps: int) -> int:
        """Returns the step at which the profile begins, of a process that begins at `step` of `steps`.

        Raises:
          UserError: the run has no such step.
        """
        first = step + FIRST_STEPS if self.profile_from is None else self.profile_from
        if self.profile and self.profile_from is not None and not step <= first < steps:
            raise UserError(f'--profile_from is {first}; expected a step from {step} on, before the end at {steps}')
        return first


def matrix_flops(device: Device, dtype: str, seconds: float = 1.0) -> float:
    """Returns the FLOP/s of the fastest of some square matrix products on a device.

    Args:
      device: of any kind.
      dtype: 'float32' or 'bfloat16', of the factors.
      seconds: about how long to measure.
    """
    size = 1024 if device.platform == 'cpu' else 8192
    factor = jax.device_put(jnp.ones((size, size), dtype), device)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(factor, factor))
    best, end = float('inf'), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(product(factor, factor))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


class Speed:
    """The speed of a process' steps, its first ones and all that is not training left out (`Clock.training`).

    Attributes:
      rate: steps a second.
      wait: share of that time in which the loop waited for a batch.
      mfu: floating-point operations that the recipe asks for, as a share of what the devices could do (Chowdhery et
        al. 2022, arXiv:2204.02311, appendix B); None without a peak.
    """

    def __init__(
        self,
        clock: Clock,
        start: int,
        batch_size: int,
        devices: list[Device],
        peak: float | None = None,
        flops: Callable[[int], float] = lambda step: 0.0,
    ):
        """Begins at a step.

        Args:
          clock: of the process.
          start: the step at which it begins.
          batch_size: images a step, over all devices.
          devices: of the run, of all hosts.
          peak: FLOP/s of one device, or None.
          flops: of the update that leads to a step.
        """
        self._clock, self._batch_size, self._devices, self._peak = clock, batch_size, devices, peak
        self._flops_of, self._first = flops, start + FIRST_STEPS
        self._since: tuple[float, float] | None = None
        self._steps, self._done = 0, 0.0
        self.rate, self.wait, self.mfu = 0.0, 0.0, None

    def step(self, step: int) -> None:
        """Says that the update to `step` was dispatched."""
        if step == self._first:
            self._since = (self._clock.training, self._clock.waited)
        if self._since is None or step == self._first:
            return
        self._steps = step - self._first
        if self._peak:
            self._done += self._flops_of(step - 1)
        self._measure()

    def _measure(self) -> None:
        if self._since is None or not self._steps:
            return
        seconds = self._clock.training - self._since[0]
        if seconds > 0:
            self.rate = self._steps / seconds
            self.wait = (self._clock.waited - self._since[1]) / seconds
            self.mfu = self._done / seconds / (self._peak * len(self._devices)) if self._peak else None

    def values(self) -> dict[str, float]:
        """Returns what is known, by the names of `records.SPEED`; memory is the most that a device of this host had.

        Asked for where the device is idle: then the last steps, which were dispatched before, are in the time too.
        """
        self._measure()
        peaks = [
            stats['peak_bytes_in_use']
            for device in self._devices
            if device.process_index == jax.process_index()
            if 'peak_bytes_in_use' in (stats := device.memory_stats() or {})
        ]
        return {
            'steps_per_second': round(self.rate, 3),
            'images_per_second': round(self.rate * self._batch_size, 1),
            'data_wait': round(self.wait, 4),
            **({'peak_bytes': max(peaks)} if peaks else {}),
            **({} if self.mfu is None else {'mfu': round(self.mfu, 4)}),
        }

    def text(self) -> str:
        """Returns the same for people, '' before it is known."""
        if not self.rate:
            return ''
        used = '' if self.mfu is None else f', MFU {100 * self.mfu:.1f} %'
        return (
            f'{self.rate:.1f} steps/s, {self.rate * self._batch_size:,.0f} images/s, '
            f'{100 * self.wait:.0f} % waiting for data{used}'
        )


class Profile:
    """A profile of some steps in a folder, for TensorBoard's profiler and xprof."""

    def __init__(self, clock: Clock, folder: Path, first: int, steps: int):
        self._clock, self._folder, self._first, self._end = clock, folder, first, first + steps
        self._running = False

    def update(self, step: int, state) -> contextlib.AbstractContextManager:
        """Is around the update from `step`; begins and ends with the device idle, so that all its work is in it."""
        if step == self._first < self._end:
            jax.block_until_ready(state)
            with self._clock.spent('profile'):
                jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif step == self._end and self._running:
            jax.block_until_ready(state)
            self.close()
        return jax.profiler.StepTraceAnnotation('train', step_num=step) if self._running else contextlib.nullcontext()

    def close(self) -> None:
        """Ends a profile that is under way."""
        if self._running:
            self._running = False
            with self._clock.spent('profile'):
                jax.profiler.stop_trace()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
