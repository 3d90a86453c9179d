"""Structured pruning: whole features go, and the net is really narrower.

Li, Kadav, Durdanovic, Samet & Graf 2017, "Pruning filters for efficient ConvNets", arXiv:1608.08710: the filters with
the least sum of magnitudes go, and with them the channels of the next layer. That is done where a net is a chain:
convolutions and dense layers one after another, each taking what the one before gave, with norms, activations, pooling
and flattening between. `nn/stored.py` computes with what is left.
"""

from collections.abc import Iterable, Mapping

import flax.linen as nn
import jax
import numpy as np

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.compress.layer_calls import Call, calls
from cvresearch.compress.layers import chosen, require_share
from cvresearch.nn.conv import Conv
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.stored import Stored

TOLERANCE = 1e-3  # between logits of the narrow net and of the net with zeros, over the largest


def narrow(
    module: nn.Module, variables: Mapping, input_shape: tuple[int, int, int], share: float,
    layers: Iterable[str] | None = None,
) -> tuple[nn.Module, dict]:  # fmt: skip
    """Returns a net without a share of the features of its layers, and its variables.

    It gives the logits of the net in which those features are zero, which is checked on an image. The last layer, whose
    features are the classes, keeps all; the others keep at least one.

    Args:
      module: the net, its blocks one by one.
      variables: of the net.
      input_shape: (height, width, channels).
      share: of each layer's features to drop.
      layers: that become narrower; all if None.

    Raises:
      UserError: a share outside 0 to 1, or a net that is no chain, in which features cannot simply go.
    """
    require_share('the share of the channels to prune', share)
    chain, norms = _chain(calls(module, variables, input_shape))
    flat = {path: np.asarray(leaf) for path, leaf in trees.named_leaves(dict(variables))}
    wanted = set(chosen({call.layer: None for call in chain}, layers))
    narrower, zeroed = dict(flat), dict(flat)
    kept_inputs = None  # of the layer, which features of the one before are left
    for number, call in enumerate(chain):
        path = f'params/{call.layer}/kernel'
        kernel = flat[path]
        scores = np.abs(kernel).sum(tuple(range(kernel.ndim - 1)), dtype=np.float64)
        drop = round(share * len(scores)) if call.layer in wanted and number < len(chain) - 1 else 0
        kept = np.sort(np.argsort(-scores, kind='stable')[: max(len(scores) - drop, 1)])
        lost = np.setdiff1d(np.arange(len(scores)), kept)
        if kept_inputs is not None:
            narrower[path] = np.take(narrower[path], _rows(call, kernel, *kept_inputs), axis=-2)
        narrower[path] = narrower[path][..., kept]
        for name in _by_feature(flat, call.layer, norms):
            narrower[name] = flat[name][kept]
        for name in (path, *_by_feature(flat, call.layer, norms)):
            if not name.endswith('/var'):
                zeroed[name] = np.where(np.isin(np.arange(len(scores)), lost), 0, zeroed[name])
        kept_inputs = (kept, len(scores))
    _check(module, input_shape, _nested(zeroed, variables), _nested(narrower, variables))
    return Stored(module), _nested(narrower, variables)


def _chain(seen: list[Call]) -> tuple[list[Call], dict[str, str]]:
    """Returns the convolutions and dense layers, and {norm: the layer it follows}.

    Raises:
      UserError: a layer runs twice, has groups, or takes another number of channels than the one before it gives.
    """
    chain, norms = [], {}
    for call in seen:
        if isinstance(call.module, BatchNorm):
            if chain:
                norms[call.layer] = chain[-1].layer
            continue
        before = chain[-1].got.shape[-1] if chain else call.given.shape[-1]
        groups = call.module.groups if isinstance(call.module, Conv) else 1
        if groups > 1 or call.given.shape[-1] % before or call.layer in {
            other.layer for other in chain
        }:
            raise UserError(f'the net is no chain of layers (see {call.layer!r}): its channels cannot be pruned; '
                            'use the scope layer or global')  # fmt: skip
        chain.append(call)
    return chain, norms


def _rows(call: Call, kernel: np.ndarray, kept: np.ndarray, features: int) -> np.ndarray:
    """Returns the inputs of a layer that are left; after flattening a feature is at every place of the map."""
    places = kernel.shape[-2] // features
    return (np.arange(places)[:, None] * features + kept).reshape(-1)


def _by_feature(flat: Mapping, layer: str, norms: Mapping[str, str]) -> list[str]:
    """Returns the names of the arrays with an entry for each feature of a layer: its bias, and its norms'."""
    owners = {f'params/{layer}': ('bias',)} | {
        f'{kind}/{norm}': ('scale', 'bias', 'mean', 'var') for norm, of in norms.items() if of == layer
        for kind in ('params', 'batch_stats')
    }  # fmt: skip
    return [name for owner, leaves in owners.items() for leaf in leaves if (name := f'{owner}/{leaf}') in flat]


def _nested(flat: Mapping[str, np.ndarray], like: Mapping) -> dict:
    return jax.tree_util.tree_map_with_path(lambda path, _: flat['/'.join(map(trees.key_name, path))], dict(like))


def _check(module: nn.Module, input_shape: tuple[int, int, int], zeroed: Mapping, narrower: Mapping) -> None:
    image = np.random.default_rng(0).normal(size=(1, *input_shape)).astype(np.float32)
    expected = np.asarray(jax.jit(module.apply)(zeroed, image))
    try:
        got = np.asarray(jax.jit(Stored(module).apply)(narrower, image))
    except Exception as error:  # whatever a net meets in arrays of other shapes
        raise UserError(f'the channels of this net cannot be pruned ({type(error).__name__}); use the scope layer or '
                        'global') from error  # fmt: skip
    if not np.abs(expected - got).max() <= TOLERANCE * np.abs(expected).max():
        raise UserError('the channels of this net cannot be pruned: something between its layers mixes them; use the '
                        'scope layer or global')  # fmt: skip
