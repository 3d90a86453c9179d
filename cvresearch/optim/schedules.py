"""Learning rates as functions of the step. Lengths are in epochs, as papers state them, from the start of the run."""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from cvresearch.base.errors import UserError, check_arguments, construct, lookup

Schedule = Callable[[Any], Any]  # the number of updates -> a rate; both may be traced


@dataclasses.dataclass(frozen=True)
class RunLength:
    """The run that a schedule is for.

    Attributes:
      steps: of the whole run.
      steps_per_epoch: need not be whole.
      warmup: steps of the linear rise at its start, over by the time that the schedule says what the rate is.
    """

    steps: int
    steps_per_epoch: float
    warmup: int = 0

    def at(self, name: str, epochs: float) -> int:
        """Returns the step at which so many epochs have passed.

        Raises:
          UserError: they are more than the run has, or less than none; `name` is the argument's.
        """
        step = round(epochs * self.steps_per_epoch)
        if not 0 <= step <= self.steps:
            raise UserError(
                f'config.schedule.{name} is {epochs} ({step} steps) in a run of {self.steps} steps '
                f'({self.steps / self.steps_per_epoch:g} epochs); expected no more than the run'
            )
        return step

    def period(self, name: str, epochs: float) -> int:
        """Returns the steps of a period that comes again; see `at`."""
        if epochs <= 0:
            raise UserError(f'config.schedule.{name} is {epochs}; expected more than 0')
        return max(1, self.at(name, epochs))


def constant(run: RunLength, peak: float) -> Schedule:
    """`peak` throughout."""
    return optax.constant_schedule(peak)


def step(run: RunLength, peak: float, every_epochs: float, rate: float = 0.1) -> Schedule:
    """`peak`, times `rate` every `every_epochs` epochs."""
    return exponential(run, peak, every_epochs, rate)


def multistep(run: RunLength, peak: float, epochs: tuple, rate: float = 0.1) -> Schedule:
    """`peak`, times `rate` at each of `epochs`."""
    if not epochs or not all(isinstance(epoch, int | float) for epoch in epochs):
        raise UserError(f'config.schedule.epochs is {epochs!r}; expected numbers, such as (30, 60, 80)')
    drops = sorted(run.at('epochs', epoch) for epoch in epochs)
    if drops[0] < run.warmup:
        raise UserError(f'config.schedule.epochs is {tuple(epochs)}; expected numbers after warmup_epochs')
    return lambda count: peak * rate ** jnp.sum(jnp.asarray(count)[..., None] >= jnp.array(drops), axis=-1)


def exponential(run: RunLength, peak: float, every_epochs: float, rate: float, staircase: bool = True) -> Schedule:
    """`peak`, times `rate` every `every_epochs` epochs, counted from the start of the run.

    So has TensorFlow's code for MobileNet and EfficientNet: the warm-up replaces the first of the decay, and
    does not delay it. Without `staircase` the rate falls with every step.
    """
    return optax.exponential_decay(peak, run.period('every_epochs', every_epochs), rate, staircase=staircase)


def polynomial(run: RunLength, peak: float, power: float = 1.0, end: float = 0.0) -> Schedule:
    """(peak - end) * (1 - t) ** power + end over what the warm-up leaves of the run."""
    return _after_warmup(run, optax.polynomial_schedule(peak, end, power, run.steps - run.warmup))


def cosine(run: RunLength, peak: float, end: float = 0.0) -> Schedule:
    """Half a cosine from `peak` to `end` over what the warm-up leaves of the run (without restarts)."""
    return _after_warmup(run, optax.cosine_decay_schedule(peak, run.steps - run.warmup, alpha=end / peak))


def sgdr(run: RunLength, peak: float, t_0_epochs: float, t_mult: float = 1.0, end: float = 0.0) -> Schedule:
    """Cosines with warm restarts (Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5).

    The first cycle has T_0 = `t_0_epochs`, each one after T_mult times the one before; `cycle_ends` has
    their steps. A restart is at `peak` again; the run may end within a cycle.
    """
    starts = [run.warmup, *_cycles(run, t_0_epochs, t_mult)]
    lengths = [b - a for a, b in itertools.pairwise(starts)]
    cycles = [optax.cosine_decay_schedule(peak, length, alpha=end / peak) for length in lengths]
    return optax.join_schedules([optax.constant_schedule(peak), *cycles], starts[:-1])


def one_cycle(
    run: RunLength,
    peak: float,
    rise: float = 0.3,
    start_divisor: float = 25.0,
    end_divisor: float = 1e4,
    shape: str = 'cosine',
) -> Schedule:
    """Up to `peak` and down again, once (Smith & Topin 2017, arXiv:1708.07120); the rates of PyTorch's OneCycleLR.

    The first update has the first rate, the last update of the run the last one; the peak is at
    rise * steps - 1, which need not be whole.

    Args:
      run: without a warm-up, which the rise is.
      peak: the highest rate.
      rise: part of the run before the peak.
      start_divisor: the first rate is the peak over this.
      end_divisor: the last rate is the first over this.
      shape: 'cosine' or 'linear', of both slopes.
    """
    if run.warmup:
        raise UserError(
            f'config.schedule: one_cycle begins with a rise of its own (rise is {rise}), and the run has a warm-up of '
            f'{run.warmup} steps besides; set schedule.warmup_epochs and schedule.warmup_steps to 0'
        )
    if not 0 < rise < 1:
        raise UserError(f'config.schedule.rise is {rise}; expected between 0 and 1')
    _positive(start_divisor=start_divisor, end_divisor=end_divisor)
    curves = {'cosine': lambda part: (1 - jnp.cos(jnp.pi * part)) / 2, 'linear': lambda part: part}
    curve = lookup('schedule shape', curves, shape)
    start, top, last = peak / start_divisor, rise * run.steps - 1, run.steps - 1
    end = start / end_divisor

    def rate(count):
        count = jnp.asarray(count, jnp.float32)
        up = jnp.clip(count / top, 0.0, 1.0) if top > 0 else 1.0
        down = jnp.clip((count - top) / (last - top), 0.0, 1.0)
        return jnp.where(count <= top, start + (peak - start) * curve(up), end + (peak - end) * curve(1 - down))

    return rate


def trapezoid(run: RunLength, peak: float, decay_epochs: float, end: float = 0.0, shape: str = 'linear') -> Schedule:
    """`peak` until `decay_epochs` before the end, then down to `end`.

    Zhai et al. 2022, arXiv:2106.04560, section 3.5; `shape` is 'linear' or 'one_minus_sqrt' (Hägele et al.
    2024, arXiv:2405.18392, equation 2).
    """
    begin = run.steps - run.at('decay_epochs', decay_epochs)
    if begin < run.warmup:
        raise UserError(
            f'config.schedule: warm-up and decay_epochs={decay_epochs} are longer than the run of {run.steps} steps'
        )
    length, curve = max(run.steps - begin, 1), lookup('schedule shape', {'linear': 1.0, 'one_minus_sqrt': 0.5}, shape)
    return lambda count: peak + (end - peak) * jnp.clip((count - begin) / length, 0.0, 1.0) ** curve


def plateau(
    run: RunLength,
    peak: float,
    rate: float = 0.1,
    patience: int = 2,
    least_gain: float = 0.0,
    cooldown: int = 0,
    end: float = 0.0,
    split: str = 'minival',
    metric: str = 'top1',
) -> Schedule:
    """`peak`, times `rate` whenever `metric` of `split` stops getting better (Krizhevsky et al. 2012, section 5).

    What is given here is the rate before any drop; the drops are a function of the evaluations (plateau.py,
    which has the arguments too).
    """
    return optax.constant_schedule(peak)


SCHEDULES = {
    'constant': constant,
    'step': step,
    'multistep': multistep,
    'exponential': exponential,
    'polynomial': polynomial,
    'cosine': cosine,
    'sgdr': sgdr,
    'one_cycle': one_cycle,
    'trapezoid': trapezoid,
    'plateau': plateau,
}


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
    """What any schedule takes beside its own arguments.

    Attributes:
      warmup_epochs: epochs of a linear rise at the start of the run, from peak / steps to `peak`.
      warmup_steps: the same in steps, instead.
      batch_scaling: 'none', 'linear' (Goyal et al. 2017, arXiv:1706.02677, section 2.1) or 'sqrt' (Krizhevsky
        2014, arXiv:1404.5997, section 5): all rates are times batch_size / reference_batch, or the root of that.
      reference_batch: the batch size that `peak` is stated for.
    """

    warmup_epochs: float = 0.0
    warmup_steps: int = 0
    batch_scaling: str = 'none'
    reference_batch: int = 256

    def warmup(self, run: RunLength) -> int:
        """Returns the steps of the rise."""
        if self.warmup_steps and self.warmup_epochs:
            raise UserError('config.schedule has both warmup_epochs and warmup_steps; expected one of them')
        warmup = self.warmup_steps or round(self.warmup_epochs * run.steps_per_epoch)
        if not 0 <= warmup < max(run.steps, 1):
            key = 'warmup_steps' if self.warmup_steps else 'warmup_epochs'
            raise UserError(
                f'config.schedule.{key} is {getattr(self, key)} ({warmup} steps) in a run of {run.steps} steps; '
                'expected less than the run'
            )
        return warmup

    def factor(self, batch_size: int) -> float:
        """Returns what all rates are multiplied with."""
        _positive(reference_batch=self.reference_batch)
        ratio = batch_size / self.reference_batch
        return lookup('batch_scaling', {'none': 1.0, 'linear': ratio, 'sqrt': math.sqrt(ratio)}, self.batch_scaling)


COMMON = {field.name: field.default for field in dataclasses.fields(ScheduleOptions)}


def make(spec: Mapping, steps: int, steps_per_epoch: float, batch_size: int = 256) -> Schedule:
    """Returns the schedule that a config's `schedule` names.

    Args:
      spec: `name`, arguments of that function, and of `ScheduleOptions`.
      steps: of the run.
      steps_per_epoch: need not be whole.
      batch_size: of the run, for `batch_scaling`.

    Raises:
      UserError: an unknown name or argument, a length longer than the run, a rate that is not positive.
    """
    main, outer, run = _parts(spec, steps, steps_per_epoch)
    peak, factor = dict(spec)['peak'], outer.factor(batch_size)
    schedule = main
    if run.warmup:
        # The first step is taken at peak / warmup, not at 0: no step of the run is without effect.
        rise = optax.linear_schedule(peak / run.warmup, peak, max(run.warmup - 1, 1))
        schedule = optax.join_schedules([rise, lambda count: main(count + run.warmup)], [run.warmup])
    return schedule if factor == 1 else lambda count: factor * schedule(count)


def cycle_ends(spec: Mapping, steps: int, steps_per_epoch: float) -> tuple[int, ...]:
    """Returns after how many updates a cycle of `sgdr` is complete, each up to the end of the run.

    The update before has the lowest rate of its cycle, the one after is a restart: this is where a snapshot
    is taken. Empty for schedules without restarts.
    """
    if dict(spec).get('name') != 'sgdr':
        return ()
    _, _, run = _parts(spec, steps, steps_per_epoch)
    default = inspect.signature(sgdr).parameters['t_mult'].default
    ends = _cycles(run, spec['t_0_epochs'], dict(spec).get('t_mult', default))
    return tuple(end for end in ends if end <= steps)


def _parts(spec: Mapping, steps: int, steps_per_epoch: float) -> tuple[Schedule, ScheduleOptions, RunLength]:
    spec = dict(spec)
    function = lookup('schedule', SCHEDULES, spec.get('name', ''))
    defaults = {name: one.default for name, one in inspect.signature(function).parameters.items() if name != 'run'}
    check_arguments(
        f'schedule {spec["name"]!r}', {k: v for k, v in spec.items() if k != 'name'}, {**defaults, **COMMON}
    )
    if not isinstance(spec.get('peak', 1.0), int | float) or spec.get('peak', 1.0) <= 0:
        raise UserError(f'config.schedule.peak is {spec["peak"]!r}; expected a positive learning rate')
    outer = ScheduleOptions(**{name: value for name, value in spec.items() if name in COMMON})
    bare = RunLength(steps, steps_per_epoch)
    run = dataclasses.replace(bare, warmup=outer.warmup(bare))
    main = construct('schedule', SCHEDULES, {k: v for k, v in spec.items() if k not in COMMON}, run=run)
    return main, outer, run


def _after_warmup(run: RunLength, schedule: Schedule) -> Schedule:
    return lambda count: schedule(count - run.warmup)


def _cycles(run: RunLength, t_0_epochs: float, t_mult: float) -> list[int]:
    """Returns the steps at which cycles end, from the first to the one that reaches the end of the run."""
    run.period('t_0_epochs', t_0_epochs)
    if t_mult < 1:
        raise UserError(f'config.schedule.t_mult is {t_mult}; expected at least 1')
    ends, length, epochs = [], t_0_epochs, t_0_epochs
    # From the sum of the epochs, so that roundings do not add up.
    while not ends or ends[-1] < run.steps:
        ends.append(max(run.warmup + round(epochs * run.steps_per_epoch), (ends[-1] if ends else run.warmup) + 1))
        length *= t_mult
        epochs += length
    return ends


def _positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise UserError(f'config.schedule.{name} is {value}; expected more than 0')
