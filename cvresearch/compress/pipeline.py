"""A net made smaller in one go, without training: factors, pruning, shared weights, int8, each if it is asked for."""

import dataclasses
from collections.abc import Iterable, Mapping

import flax.linen as nn
import numpy as np

from cvresearch.base.errors import UserError, lookup
from cvresearch.compress import int8, narrow, prune
from cvresearch.compress.layer_calls import calls
from cvresearch.nn.conv import Conv
from cvresearch.nn.stored import Stored
from cvresearch.optim import factorise, sharing
from cvresearch.optim.kernels import chosen, kernels, require_share, with_kernels

SCOPES = {'layer': prune.by_layer, 'global': prune.everywhere}
RANKS = {
    'energy': factorise.rank_by_energy,
    'size': factorise.rank_by_size,
    'macs': factorise.rank_by_macs,
    'rank': lambda kernel, rank, method: rank,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is done to a net.

    Attributes:
      prune: share of the weights that become zero, 0 to 1; of the channels with the scope 'channels'.
      scope: 'layer': the share of each layer; 'global': of all together; 'channels': whole features go.
      quality: in place of `prune`: weights below so many deviations of their layer become zero; 0 for none.
      svd: 'energy=0.9', 'size=0.2', 'macs=0.5' or 'rank=64': which rank the factors have; '' for none.
      svd_method: 'output' or 'separable'.
      bits: of a shared weight, 1 to 8; 0 for none.
      kmeans: 'lloyd' or 'optimal'.
      int8: 'minmax', 'percentile' or 'entropy': how ranges are found; '' for none.
      per_tensor: one scale for a whole kernel.
      layers: that factors, pruning and shared weights are for; empty for all.
    """

    prune: float = 0.0
    scope: str = 'layer'
    quality: float = 0.0
    svd: str = ''
    svd_method: str = 'output'
    bits: int = 0
    kmeans: str = 'lloyd'
    int8: str = ''
    per_tensor: bool = False
    layers: tuple[str, ...] = ()

    def __post_init__(self):
        require_share('the share to prune', self.prune)
        lookup('scope of pruning', SCOPES | {'channels': None}, self.scope)
        if self.bits and not 1 <= self.bits <= sharing.MOST_BITS:
            raise UserError(f'bits is {self.bits}; expected a whole number from 1 to {sharing.MOST_BITS}')
        lookup('method of k-means', sharing.METHODS, self.kmeans)
        if self.svd:
            self.rank()
            lookup('method of factorisation', factorise.METHODS, self.svd_method)
        if self.prune and self.quality:
            raise UserError('a share and a quality were given; expected one of them to say what is pruned')
        if self.svd and self.scope == 'channels':
            raise UserError('svd and the scope channels do not go together; give one of them')
        if self.int8 and (self.bits or self.svd or self.scope == 'channels'):
            raise UserError('int8 goes with pruning of weights alone, not with bits, svd or channels; give one of them')
        if self.int8:
            lookup('method of calibration', int8.METHODS, self.int8)

    def rank(self) -> tuple[str, float]:
        """Returns what `svd` says: the choice of a rank, and its number.

        Raises:
          UserError: it says nothing of that kind, or a number out of range.
        """
        by, _, text = self.svd.partition('=')
        lookup('choice of a rank', RANKS, by)
        try:
            value = int(text) if by == 'rank' else float(text)
        except ValueError as error:
            expected = 'such as energy=0.9, size=0.2, macs=0.5 or rank=64'
            raise UserError(f'svd is {self.svd!r}; expected {expected}') from error
        if by != 'rank':
            require_share(f'the share of svd, {by},', value)
        elif value < 1:
            raise UserError(f'the rank is {value}; expected at least 1, and at most the full rank of a layer')
        return by, value


def compress(
    module: nn.Module,
    variables: Mapping,
    input_shape: tuple[int, int, int],
    settings: Settings,
    images: Iterable[np.ndarray] = (),
) -> tuple[nn.Module, dict]:
    """Returns a smaller net and its variables.

    Args:
      module: the net, its blocks one by one.
      variables: of the net.
      input_shape: (height, width, channels).
      settings: what is done.
      images: batches of normalized images, for int8.

    Raises:
      UserError: a layer that does not exist, a rank above full, a net that cannot be made narrower, no images.
    """
    weights = kernels(variables['params'])
    layers = chosen(weights, settings.layers or None)
    if settings.svd:
        ungrouped = {
            call.layer
            for call in calls(module, variables, input_shape)
            if not isinstance(call.module, Conv) or call.module.groups == 1
        }
        ranks = _ranks({name: weights[name] for name in layers if name in ungrouped}, settings)
        factors = factorise.by_layer(weights, ranks, settings.svd_method)
        params = factorise.with_factors(variables['params'], factors)
        module, variables = Stored(module), {**variables, 'params': params}
        weights = kernels(variables['params'])
        layers = [name for name in weights if name in layers or name.rpartition('/')[0] in factors]
    if settings.scope == 'channels' and settings.prune:
        module, variables = narrow.narrow(module, variables, input_shape, settings.prune, layers)
        weights = kernels(variables['params'])
    elif settings.prune or settings.quality:
        masks = _masks({name: weights[name] for name in layers}, settings)
        weights = {
            name: np.where(masks[name], kernel, 0) if name in masks else kernel for name, kernel in weights.items()
        }
    if settings.bits:
        weights |= {name: sharing.share(weights[name], settings.bits, settings.kmeans).weights() for name in layers}
    variables = {**variables, 'params': with_kernels(variables['params'], weights)}
    if settings.int8:
        per_channel = not settings.per_tensor
        variables = int8.quantise(module, variables, input_shape, images, settings.int8, per_channel)
        module = Stored(module)
    return module, variables


def _masks(weights: Mapping[str, np.ndarray], settings: Settings) -> prune.Masks:
    if settings.quality:
        return prune.by_deviation(dict(weights), settings.quality)
    return SCOPES[settings.scope](dict(weights), settings.prune)


def _ranks(weights: Mapping[str, np.ndarray], settings: Settings) -> dict[str, int]:
    """Returns the rank of each layer that factors make smaller."""
    by, value = settings.rank()
    choose = RANKS[by]
    ranks = {}
    for name, kernel in weights.items():
        if settings.svd_method == 'separable' and (kernel.ndim != 4 or kernel.shape[0] == 1 or kernel.shape[1] == 1):
            continue
        rank = choose(kernel, value, method=settings.svd_method)
        rows, columns = factorise.sides(kernel.shape, settings.svd_method)
        if by == 'rank' and settings.layers and not 1 <= rank <= min(rows, columns):
            raise UserError(f'the rank of {name!r} is {rank}; expected 1 to {min(rows, columns)}, its full rank')
        if factorise.is_smaller(rows, columns, rank):
            ranks[name] = rank
    if not ranks:
        raise UserError(f'{settings.svd} makes no layer smaller; expected a lower rank, or layers that are larger')
    return ranks
