"""Pruning by magnitude without training: which weights a net keeps.

Han, Pool, Tran & Dally 2015, "Learning both weights and connections for efficient neural networks",
arXiv:1506.02626.

Masks are boolean arrays by layer, as `kernels` names them. What a training prunes is in optim/pruning.py.
"""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.optim.kernels import Kernels, chosen, require_share, with_kernels

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
    return {name: part.reshape(kernels[name].shape) for name, part in zip(names, np.split(mask, ends), strict=True)}


def masked(params: Mapping, masks: Masks) -> dict:
    """Returns the parameters with zeros where a mask is False."""
    tree = mask_tree(params, masks)
    return jax.tree.map(lambda leaf, keep: jnp.where(keep, leaf, 0), dict(params), tree)


def mask_tree(params: Mapping, masks: Masks) -> dict:
    """Returns a mask for every parameter, in their structure: all True without masks."""
    return with_kernels(jax.tree.map(lambda leaf: np.ones(np.shape(leaf), bool), dict(params)), masks)
