"""Batch norms folded into the convolutions before them: the same function with fewer layers."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.compress.layer_calls import calls
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.stored import Stored

TOLERANCE = 1e-3  # of the logits of the folded net, over the largest


def fold_norms(module: nn.Module, variables: Mapping, input_shape: tuple[int, int, int]) -> dict:
    """Returns variables in which every batch norm that follows a convolution or dense layer is part of it.

    kernel' = kernel * scale / sqrt(var + eps), bias' = (bias - mean) * scale / sqrt(var + eps) + offset. The norm has
    no variables left; `Stored(module)` takes them. Norms elsewhere (before a convolution) stay.

    Args:
      module: the net, its blocks one by one.
      variables: {'params', 'batch_stats'}.
      input_shape: (height, width, channels).

    Raises:
      UserError: the folded net gives other logits, as where a layer's output goes to more than its norm.
    """
    seen = calls(module, variables, input_shape)
    before = {id(call.got): call for call in seen if not isinstance(call.module, BatchNorm)}
    folded = {key: _copied(tree) for key, tree in variables.items()}
    for call in seen:
        if isinstance(call.module, BatchNorm) and id(call.given) in before:
            _fold(folded, before[id(call.given)].layer, call.layer, call.module)
    folded = {key: _without_empty(tree) for key, tree in folded.items()}
    folded = {key: tree for key, tree in folded.items() if tree}
    image = np.random.default_rng(0).normal(size=(1, *input_shape)).astype(np.float32)
    expected, got = (
        np.asarray(jax.jit(net.apply)(values, image)) for net, values in ((module, variables), (Stored(module), folded))
    )
    if not np.abs(expected - got).max() <= TOLERANCE * np.abs(expected).max():
        raise UserError('the norms of this net cannot be folded: something else takes what a norm is given')
    return folded


def _fold(variables: dict, layer: str, norm: str, module: BatchNorm) -> None:
    params, statistics = _node(variables['params'], layer), _node(variables['batch_stats'], norm)
    of_norm = _node(variables['params'], norm) if module.use_scale or module.use_bias else {}
    factor = of_norm.get('scale', np.float64(1)) / np.sqrt(np.asarray(statistics['var'], np.float64) + module.eps)
    bias = (params.get('bias', np.float64(0)) - np.asarray(statistics['mean'], np.float64)) * factor
    params['kernel'] = np.asarray(params['kernel'] * factor, np.float32)
    params['bias'] = np.asarray(bias + of_norm.get('bias', np.float64(0)), np.float32)
    statistics.clear()
    of_norm.clear()


def _node(tree: dict, path: str) -> dict:
    for part in path.split('/'):
        tree = tree[part]
    return tree


def _copied(tree):
    return {key: _copied(value) for key, value in tree.items()} if isinstance(tree, Mapping) else np.asarray(tree)


def _without_empty(tree):
    if not isinstance(tree, dict):
        return tree
    inner = {key: _without_empty(value) for key, value in tree.items()}
    return {key: value for key, value in inner.items() if not (isinstance(value, dict) and not value)}
