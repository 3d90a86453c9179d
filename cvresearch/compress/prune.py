"""Pruning by magnitude: which weights a net keeps, how many at which step, and which layers bear it.

Han, Pool, Tran & Dally 2015, "Learning both weights and connections for efficient neural networks",
arXiv:1506.02626; Zhu & Gupta 2017, "To prune, or not to prune", arXiv:1710.01878.

Masks are boolean arrays by layer, as `layers.kernels` names them. `mask_tree` spreads them over all parameters, so that
an optimizer can hold them (`hold`).
"""

import math
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cvresearch.base.errors import UserError
from cvresearch.compress.layers import Kernels, chosen, require_share, with_kernels

Masks = dict[str, np.ndarray]


def smallest(weights: np.ndarray, share: float) -> np.ndarray:
    """Returns the mask, True where kept, without the round(share * n) weights of the least magnitude.

    Of equal magnitudes the earlier in row-major order are dropped first, so that the number is exact.
    """
    require_share('the share to prune', share)
    magnitudes = np.abs(weights).reshape(-1)
    mask = np.ones(magnitudes.size, bool)
    mask[np.argsort(magnitudes, kind='stable')[: round(share * magnitudes.size)]] = False
    return mask.reshape(weights.shape)


def by_layer(kernels: Kernels, shares: float | Mapping[str, float]) -> Masks:
    """Returns masks that drop a share of each layer's weights.

    Args:
      kernels: by layer.
      shares: to drop: one for every layer, or by layer; layers without one stay whole.

    Raises:
      UserError: a share outside 0 to 1, or a layer that does not exist.
    """
    if not isinstance(shares, Mapping):
        shares = dict.fromkeys(kernels, shares)
    return {layer: smallest(kernels[layer], shares[layer]) for layer in chosen(kernels, shares)}


def by_deviation(kernels: Kernels, quality: float | Mapping[str, float]) -> Masks:
    """Returns masks that drop weights below quality times the deviation of their layer (Han et al., section 3.4).

    Raises:
      UserError: a negative quality, or a layer that does not exist.
    """
    if not isinstance(quality, Mapping):
        quality = dict.fromkeys(kernels, quality)
    masks = {}
    for layer in chosen(kernels, quality):
        if not quality[layer] >= 0:
            raise UserError(f'the quality of {layer!r} is {quality[layer]}; expected at least 0')
        masks[layer] = np.abs(kernels[layer]) >= quality[layer] * kernels[layer].std()
    return masks


def everywhere(kernels: Kernels, share: float, layers: Iterable[str] | None = None) -> Masks:
    """Returns masks that drop a share of all weights together, the least of the net (global pruning).

    Raises:
      UserError: a share outside 0 to 1, or a layer that does not exist.
    """
    names = chosen(kernels, layers)
    mask = smallest(np.concatenate([kernels[name].reshape(-1) for name in names]), share)
    ends = np.cumsum([kernels[name].size for name in names])[:-1]
    return {
        name: part.reshape(kernels[name].shape) for name, part in zip(names, np.split(mask, ends), strict=True)
    }


def masked(params: Mapping, masks: Masks) -> dict:
    """Returns the parameters with zeros where a mask is False."""
    tree = mask_tree(params, masks)
    return jax.tree.map(lambda leaf, keep: jnp.where(keep, leaf, 0), dict(params), tree)


def mask_tree(params: Mapping, masks: Masks) -> dict:
    """Returns a mask for every parameter, in their structure: all True without masks."""
    return with_kernels(jax.tree.map(lambda leaf: np.ones(np.shape(leaf), bool), dict(params)), masks)


def hold(tree) -> optax.GradientTransformation:
    """Returns a transform that keeps pruned weights at zero, to stand last in a chain: it drops their updates.

    Args:
      tree: of masks, as `mask_tree` returns it.
    """

    def update(updates, state, params=None):
        return jax.tree.map(lambda change, keep: jnp.where(keep, change, 0), updates, tree), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def kept(masks: Masks) -> dict[str, float]:
    """Returns the share of weights that each mask keeps."""
    return {layer: float(mask.mean()) for layer, mask in masks.items()}


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


def sensitivity(
    params: Mapping, kernels: Kernels, shares: Iterable[float], measure: Callable[[dict], float],
    layers: Iterable[str] | None = None,
) -> tuple[list[str], np.ndarray]:  # fmt: skip
    """Prunes one layer at a time, the others whole, and measures the net (Han et al., figure 6).

    Args:
      params: of the net.
      kernels: of its layers.
      shares: to drop, each by itself.
      measure: of parameters: accuracy, loss.
      layers: to scan; all if None.

    Returns:
      The layers, and what was measured, float64 (layers, shares).
    """
    names, shares = chosen(kernels, layers), list(shares)
    found = [[measure(masked(params, by_layer(kernels, {name: share}))) for share in shares] for name in names]
    return names, np.array(found, np.float64).reshape(len(names), len(shares))
