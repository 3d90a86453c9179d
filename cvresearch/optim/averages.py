"""Averages of the weights over the steps, as schedules: which part of the average each new value is.

average <- (1 - part) * average + part * value, for the parameters and the statistics of norms alike. As the
part is a function of the step alone, an average has no state beside its value.
"""

import jax.numpy as jnp
import optax

from cvresearch.base.errors import UserError, construct


def none() -> None:
    """No average."""
    return None


def ema(steps: int, steps_per_epoch: float, decay: float = 0.9999, warmup: bool = True) -> optax.Schedule:
    """An exponential moving average, as of `tf.train.ExponentialMovingAverage`.

    Args:
      decay: of the average, by the step.
      warmup: the decay of the update numbered n, from 0, is at most (1 + n) / (10 + n), so that the average
        forgets the initial weights at any length of the run.
    """
    if not 0 <= decay < 1:
        raise UserError(f'config.average.decay is {decay}; expected 0 <= decay < 1')

    def part(n):
        return 1 - (jnp.minimum(decay, (1 + n) / (10 + n)) if warmup else decay)

    return part


def swa(steps: int, steps_per_epoch: float, start_epochs: float, every_epochs: float = 1.0) -> optax.Schedule:
    """Stochastic weight averaging (Izmailov et al. 2018, arXiv:1803.05407, algorithm 1).

    The mean of the weights at `start_epochs` and every `every_epochs` after; until then the weights themselves.
    The paper computes the statistics of batch norm anew at the end: that is `config.precise_batches`.
    """
    start, period = round(start_epochs * steps_per_epoch), max(1, round(every_epochs * steps_per_epoch))
    if not 0 <= start <= steps or every_epochs <= 0:
        raise UserError(
            f'config.average: start_epochs is {start_epochs} and every_epochs {every_epochs} in a run of '
            f'{steps / steps_per_epoch:g} epochs; expected a start within the run and a positive period'
        )

    def part(n):
        since = jnp.maximum(n + 1 - start, 0)  # none at the start, and before it
        return jnp.where(since % period == 0, 1 / (since // period + 1), 0.0)

    return part


def polyak(steps: int, steps_per_epoch: float, start_epochs: float = 0.0) -> optax.Schedule:
    """The mean of the weights after every step from `start_epochs` on (Polyak & Juditsky 1992)."""
    return swa(steps, steps_per_epoch, start_epochs, 1 / steps_per_epoch)


AVERAGES = {'none': none, 'ema': ema, 'swa': swa, 'polyak': polyak}


def make(spec, steps: int, steps_per_epoch: float) -> optax.Schedule | None:
    """Returns the part that the weights after each update have in their average, by the number of the update.

    Raises:
      UserError: an unknown name or argument, a start after the end of the run.
    """
    return construct('average', AVERAGES, spec, steps=steps, steps_per_epoch=steps_per_epoch)
