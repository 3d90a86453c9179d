"""Pruning while a net trains: how much at which step, which weights go, and that they stay away.

Han, Pool, Tran & Dally 2015, "Learning both weights and connections for efficient neural networks",
arXiv:1506.02626; Zhu & Gupta 2017, "To prune, or not to prune", arXiv:1710.01878.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.optim.kernels import require_share


def one_shot(share: float, step: int = 0) -> Callable[[int], float]:
    """Returns the schedule that prunes everything at one step."""
    require_share('the share to prune', share)
    return lambda at: share if at >= step else 0.0


def iterative(share: float, steps: Iterable[int]) -> Callable[[int], float]:
    """Returns the schedule that keeps the same share of what is left at each of some steps (Han et al., section 3.4).

    Args:
      share: dropped after the last.
      steps: at which to prune.
    """
    require_share('the share to prune', share)
    steps = sorted(steps)
    if not steps:
        raise UserError('iterative pruning has no steps; expected at least one')
    return lambda at: share if at >= steps[-1] else 1 - (1 - share) ** (sum(at >= s for s in steps) / len(steps))


def cubic(share: float, begin: int, end: int, first: float = 0.0, every: int = 1) -> Callable[[int], float]:
    """Returns the schedule s + (s0 - s)(1 - (t - t0) / (t1 - t0))^3 (Zhu & Gupta, equation 1).

    Args:
      share: at the end, s.
      begin: step t0; nothing is pruned before.
      end: step t1.
      first: share at the begin, s0.
      every: steps between two changes.

    Raises:
      UserError: a share outside 0 to 1, or an end that is not after the begin.
    """
    require_share('the share to prune', share)
    require_share('the share to prune at first', first)
    if not begin < end or every < 1:
        raise UserError(f'a schedule from step {begin} to {end}, every {every}; expected an end after the begin')

    def at_step(at: int) -> float:
        if at < begin:
            return 0.0
        if at >= end:
            return share
        part = (at - begin) // every * every / (end - begin)
        return share + (first - share) * (1 - part) ** 3

    return at_step


@dataclasses.dataclass(frozen=True)
class Rounds:
    """When a training prunes, and how much is away after each time.

    Attributes:
      steps: before whose updates it prunes, increasing.
      share_at: of (what is dropped in the end, a step), what is dropped from that step on.
    """

    steps: tuple[int, ...]
    share_at: Callable[[float, int], float]

    def numbers(self, share: float, weights: int) -> np.ndarray:
        """Returns how many of some weights are away before the first round and after each, int32 (rounds + 1,)."""
        shares = [0.0, *(self.share_at(share, step) for step in self.steps)]
        return np.array([round(fraction * weights) for fraction in shares], np.int32)

    def made(self, step: jax.Array) -> jax.Array:
        """Returns how many rounds have been made once a step is arrived at, int32 ()."""
        return jnp.searchsorted(jnp.array(self.steps), step, side='right').astype(jnp.int32)


def _at_once(begin: int, end: int, rounds: int) -> Rounds:
    return Rounds((begin,), lambda share, at: one_shot(share, begin)(at))


def _in_equal_parts(begin: int, end: int, rounds: int) -> Rounds:
    steps = _spread(begin, end, rounds)
    return Rounds(steps, lambda share, at: iterative(share, steps)(at))


def _cubically(begin: int, end: int, rounds: int) -> Rounds:
    # At the begin itself the equation drops nothing.
    return Rounds(_spread(begin, end, rounds + 1)[1:], lambda share, at: cubic(share, begin, end)(at))


def _spread(begin: int, end: int, number: int) -> tuple[int, ...]:
    if not begin < end:
        raise UserError(f'pruning goes on from step {begin} to {end}; expected an end after the begin')
    return tuple(sorted({round(step) for step in np.linspace(begin, end, number)}))


SCHEDULES = {'one_shot': _at_once, 'iterative': _in_equal_parts, 'cubic': _cubically}


def without_smallest(weights: jax.Array, mask: jax.Array, number: jax.Array) -> jax.Array:
    """Returns a mask that drops a number of weights: those that are away already, then the least of the others.

    Of equal magnitudes the earlier in row-major order are dropped first, so that the number is exact.

    Args:
      weights: any shape.
      mask: bool, in that shape; False where a weight is away.
      number: of weights that are away then, int32 (); fewer than are away now change nothing.
    """
    # Below every magnitude, so that what is away stays away and is counted first.
    magnitudes = jnp.where(mask, jnp.abs(weights), -1).reshape(-1)
    order = jnp.argsort(magnitudes, stable=True)
    kept = jnp.ones(magnitudes.shape, bool).at[order].set(jnp.arange(magnitudes.size) >= number, unique_indices=True)
    return kept.reshape(weights.shape) & mask


def without_smallest_of_all(
    weights: Sequence[jax.Array], masks: Sequence[jax.Array], number: jax.Array
) -> list[jax.Array]:
    """Returns `without_smallest` of some layers together."""
    # As one row: the smallest of all layers, whichever have them, is another choice than a share of each.
    joined, mask = (jnp.concatenate([leaf.reshape(-1) for leaf in arrays]) for arrays in (weights, masks))
    parts = jnp.split(without_smallest(joined, mask, number), np.cumsum([leaf.size for leaf in weights])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, weights, strict=True)]


def above_deviation(weights: jax.Array, mask: jax.Array, quality: float) -> jax.Array:
    """Returns a mask that drops what is below quality times the deviation of the weights that are left (section 3.4).

    Args:
      weights: of a layer.
      mask: bool, in their shape; False where a weight is away.
      quality: times the deviation.
    """
    return mask & (jnp.abs(weights) >= quality * jnp.std(weights, where=mask))


def dropout_rate(before: float, connections: int, kept_connections: int) -> float:
    """Returns the rate of dropout for retraining, D sqrt(C_r / C_o) (Han et al., equation 2).

    Args:
      before: rate with which the dense net was trained.
      connections: weights of the layer before pruning, C_o.
      kept_connections: after it, C_r.
    """
    if not 0 <= kept_connections <= connections or not connections:
        raise UserError(f'{kept_connections} of {connections} connections are kept; expected 0 to {connections}')
    return before * math.sqrt(kept_connections / connections)
