"""Learning rates as functions of the step. Lengths are in epochs, as papers state them."""

from collections.abc import Callable

import optax

from cvresearch.base.errors import UserError, construct


def constant(peak: float, warmup_epochs: float = 0.0, *, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """`peak` throughout."""
    return _warmed(lambda length: optax.constant_schedule(peak), peak, warmup_epochs, steps, steps_per_epoch)


def cosine(
    peak: float, warmup_epochs: float = 0.0, end: float = 0.0, *, steps: int, steps_per_epoch: float
) -> optax.Schedule:
    """Half a cosine from `peak` to `end` over the run (Loshchilov & Hutter 2017, without restarts)."""
    return _warmed(
        lambda length: optax.cosine_decay_schedule(peak, length, alpha=end / peak),
        peak, warmup_epochs, steps, steps_per_epoch,
    )  # fmt: skip


def multi_step(
    peak: float, epochs: tuple[float, ...], rate: float = 0.1, warmup_epochs: float = 0.0, *,
    steps: int, steps_per_epoch: float,
) -> optax.Schedule:  # fmt: skip
    """`peak`, times `rate` at each of `epochs` (counted from the start of the run)."""
    drops = {round((epoch - warmup_epochs) * steps_per_epoch): rate for epoch in epochs}
    if min(drops, default=0) < 0 or max(drops, default=0) > steps:
        raise UserError(
            f'config.schedule.epochs is {tuple(epochs)}; expected numbers between warmup_epochs and epochs'
        )
    return _warmed(
        lambda length: optax.piecewise_constant_schedule(peak, drops), peak, warmup_epochs, steps, steps_per_epoch
    )


def exponential(
    peak: float, every_epochs: float, rate: float, warmup_epochs: float = 0.0, staircase: bool = True, *,
    steps: int, steps_per_epoch: float,
) -> optax.Schedule:  # fmt: skip
    """`peak`, times `rate` every `every_epochs` epochs."""
    return _warmed(
        lambda length: optax.exponential_decay(
            peak, max(1, round(every_epochs * steps_per_epoch)), rate, staircase=staircase
        ),
        peak, warmup_epochs, steps, steps_per_epoch,
    )  # fmt: skip


SCHEDULES = {'constant': constant, 'cosine': cosine, 'multi_step': multi_step, 'exponential': exponential}


def make(spec, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Returns the schedule that a config's `schedule` names.

    Raises:
      UserError: an unknown name or argument, a warm-up longer than the run, a rate that is not positive.
    """
    return construct('schedule', SCHEDULES, spec, steps=steps, steps_per_epoch=steps_per_epoch)


def _warmed(
    after: Callable[[int], optax.Schedule], peak: float, warmup_epochs: float, steps: int, steps_per_epoch: float
) -> optax.Schedule:
    """Puts a linear warm-up from peak / warm-up steps to `peak` before `after(steps left)`."""
    warmup = round(warmup_epochs * steps_per_epoch)
    if peak <= 0:
        raise UserError(f'config.schedule.peak is {peak}; expected a positive learning rate')
    if not 0 <= warmup < max(steps, 1):
        raise UserError(
            f'config.schedule.warmup_epochs is {warmup_epochs} ({warmup} steps) in a run of {steps} steps; '
            'expected less than the run'
        )
    main = after(steps - warmup)
    if not warmup:
        return main
    # The first step is taken at peak / warmup, not at 0: no step of the run is without effect.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, main], [warmup])
