"""The weights of a net that compression works on: the kernels of its convolutions and dense layers, by layer."""

from collections.abc import Iterable, Mapping

import jax
import numpy as np

from cvresearch.base import trees
from cvresearch.base.errors import UserError, nearest

Kernels = dict[str, np.ndarray]


def kernels(params: Mapping) -> Kernels:
    """Returns the kernels of convolutions and dense layers by their layer's path, 'stage1_block0/conv1'.

    Raises:
      UserError: the net has none.
    """
    found = {
        path.rpartition('/')[0]: np.asarray(leaf)
        for path, leaf in trees.named_leaves(params)
        if path.rpartition('/')[2] == 'kernel' and np.ndim(leaf) >= 2
    }
    if not found:
        raise UserError('the net has no kernel of a convolution or a dense layer: nothing can be compressed')
    return found


def with_kernels(params: Mapping, changed: Mapping[str, np.ndarray]) -> dict:
    """Returns the parameters with other kernels in some layers."""

    def replaced(path, leaf):
        layer, _, name = '/'.join(map(trees.key_name, path)).rpartition('/')
        return changed[layer] if name == 'kernel' and layer in changed else leaf

    return jax.tree_util.tree_map_with_path(replaced, dict(params))


def chosen(found: Mapping[str, object], wanted: Iterable[str] | None) -> list[str]:
    """Returns the layers that are wanted, in the net's own order; all if None.

    Raises:
      UserError: a layer that does not exist.
    """
    if wanted is None:
        return list(found)
    wanted = list(wanted)
    for layer in wanted:
        if layer not in found:
            raise UserError(f'the net has no layer {layer!r}; {nearest(layer, found)}')
    return [layer for layer in found if layer in wanted]


def require_share(what: str, share: float) -> None:
    """Raises UserError unless a share is from 0 to 1."""
    if not 0 <= share <= 1:
        raise UserError(f'{what} is {share}; expected a share from 0 to 1')
