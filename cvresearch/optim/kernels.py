"""The weights of a net that compression works on: the kernels of its convolutions and dense layers, by layer."""

from collections.abc import Iterable, Mapping

import jax
import numpy as np

from cvresearch.base import trees
from cvresearch.base.errors import UserError, nearest

Kernels = dict[str, np.ndarray]


def kernels(params: Mapping) -> Kernels:
    """Returns the kernels of convolutions and dense layers by their layer's path, 'stage1_block0/conv1'.

    The two of a factored layer are named 'fc6/first' and 'fc6/second'.

    Raises:
      UserError: the net has none.
    """
    named = ((_layer(path, leaf), leaf) for path, leaf in trees.named_leaves(params))
    arrays = {layer: np.asarray(leaf) for layer, leaf in named if layer is not None}
    if not arrays:
        raise UserError('the net has no kernel of a convolution or a dense layer: nothing can be compressed')
    return arrays


def with_kernels(params: Mapping, changed: Mapping[str, np.ndarray]) -> dict:
    """Returns the parameters with other kernels in some layers."""

    def replaced(path, leaf):
        layer = _layer('/'.join(map(trees.key_name, path)), leaf)
        return changed.get(layer, leaf) if layer is not None else leaf

    return jax.tree_util.tree_map_with_path(replaced, dict(params))


def _layer(path: str, leaf) -> str | None:
    """Returns the name under which a parameter is compressed, None where it stays as it is."""
    layer, _, name = path.rpartition('/')
    if name not in ('kernel', 'first', 'second') or np.ndim(leaf) < 2:
        return None
    return layer if name == 'kernel' else path


def chosen(known: Mapping[str, object], wanted: Iterable[str] | None) -> list[str]:
    """Returns the layers that are wanted, in the net's own order; all if None.

    Raises:
      UserError: a layer that does not exist.
    """
    if wanted is None:
        return list(known)
    wanted = list(wanted)
    for layer in wanted:
        if layer not in known:
            raise UserError(f'the net has no layer {layer!r}; {nearest(layer, known)}')
    return [layer for layer in known if layer in wanted]


def require_share(what: str, share: float) -> None:
    """Raises UserError unless a share is from 0 to 1."""
    if not 0 <= share <= 1:
        raise UserError(f'{what} is {share}; expected a share from 0 to 1')
