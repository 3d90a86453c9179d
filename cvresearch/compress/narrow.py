"""Structured pruning: whole features go, and the net is really narrower.

Li, Kadav, Durdanovic, Samet & Graf 2017, "Pruning filters for efficient ConvNets", arXiv:1608.08710: the filters with
the least sum of magnitudes go, and with them the channels of the layers that take them. Which those are is found by
trial: a feature that is not a number shows, one at a time, in the channels that only copy it. So the features of a
chain of layers can go, and the inner ones of a block whose ends are tied by a sum (section 3.3 of the paper); what
is tied by a sum, shuffled, or mixed on its way (a gate of squeeze and excitation, local response normalization) stays.
`nn/stored.py` computes with what is left.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.compress.layer_calls import Call, calls
from cvresearch.nn.conv import Conv
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.stored import Stored
from cvresearch.optim.kernels import chosen, require_share

TOLERANCE = 1e-3  # between logits of the narrow net and of the net with zeros, over the largest
FEWEST = 3  # features of a layer that is tried: fewer might broadcast where they do not fit
Flat = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Taker:
    """A layer that is given another's features as they are.

    Attributes:
      call: of that layer.
      places: of its input channels that are feature 0; feature c is at c places further.
    """

    call: Call
    places: tuple[int, ...]

    @property
    def copies(self) -> bool:
        """Whether it gives each feature by itself: a norm, or a depthwise convolution."""
        return isinstance(self.call.module, BatchNorm) or getattr(self.call.module, 'groups', 1) > 1


def narrow(
    module: nn.Module,
    variables: Mapping,
    input_shape: tuple[int, int, int],
    share: float,
    layers: Iterable[str] | None = None,
) -> tuple[nn.Module, dict]:
    """Returns a net without a share of the features of its layers, and its variables.

    It gives the logits of the net in which those features are zero, which is checked on an image. A layer keeps at
    least one feature.

    Args:
      module: the net, its blocks one by one.
      variables: of the net.
      input_shape: (height, width, channels).
      share: of each layer's features to drop.
      layers: that become narrower; all whose features can go if None.

    Raises:
      UserError: a share outside 0 to 1, or a layer or a net whose features cannot simply go.
    """
    require_share('the share of the channels to prune', share)
    variables = jax.tree.map(np.asarray, dict(variables))
    takers = _takers(module, variables, input_shape)
    if not takers:
        raise UserError(
            'the channels of this net cannot be pruned: sums tie them, or something between its layers '
            'mixes them; use the scope layer or global'
        )
    every = dict.fromkeys(
        call.layer for call in calls(module, variables, input_shape) if not isinstance(call.module, BatchNorm)
    )
    wanted = set(takers) if layers is None or set(every) <= set(layers) else set(chosen(every, layers))
    if tied := sorted(wanted - set(takers)):
        raise UserError(
            f'the channels of {tied[0]!r} cannot be pruned: a sum ties them, something mixes them on '
            'their way, or they are the classes; leave that layer out, or use another scope'
        )
    flat = {path: np.asarray(leaf) for path, leaf in trees.named_leaves(variables)}
    kept = {layer: _largest(flat[f'params/{layer}/kernel'], share) for layer in takers if layer in wanted}
    narrower = trees.nested(_without(flat, {layer: (takers[layer], of_layer) for layer, of_layer in kept.items()}))
    zeroed = trees.nested(_with_zeros(flat, {layer: (takers[layer], of_layer) for layer, of_layer in kept.items()}))
    _check(module, input_shape, zeroed, narrower)
    return Stored(module), narrower


def _largest(kernel: np.ndarray, share: float) -> np.ndarray:
    """Returns which features stay, bool (features,): those with the largest sums of magnitudes."""
    scores = np.abs(kernel).sum(tuple(range(kernel.ndim - 1)), dtype=np.float64)
    kept = np.zeros(len(scores), bool)
    kept[np.argsort(-scores, kind='stable')[: max(len(scores) - round(share * len(scores)), 1)]] = True
    return kept


def _takers(module: nn.Module, variables: Mapping, input_shape: tuple[int, int, int]) -> dict[str, list[Taker]]:
    """Returns the layers whose features can go, in the order of the net, and for each the layers that take them."""
    seen = calls(module, variables, input_shape)
    times = {call.layer: sum(other.layer == call.layer for other in seen) for call in seen}
    touched = _touched(module, seen)
    flat = {path: np.asarray(leaf) for path, leaf in trees.named_leaves(variables)}
    image = np.random.default_rng(0).normal(size=(1, *input_shape)).astype(np.float32)
    layers = {call.layer: call for call in seen if not isinstance(call.module, BatchNorm)}
    takers: dict[str, list[Taker] | None] = {}
    claimed: dict[str, dict[str, set[int]]] = {}  # by layer, the channels of others that its features arrive at
    for layer, call in layers.items():
        features = call.got.shape[-1]
        first, last = (touched(_with_nan(flat, layer, at), image) for at in (0, features - 1))
        takers[layer] = _matched(seen, first, last, features)
        claimed[layer] = _claims(seen, first, last, features)
    result = {}
    for layer, takers_of in takers.items():
        alone = getattr(layers[layer].module, 'groups', 1) == 1 and times[layer] == 1
        features = layers[layer].got.shape[-1]
        if not takers_of or not alone or features < FEWEST or any(times[taker.call.layer] > 1 for taker in takers_of):
            continue
        # Where another layer's features arrive too, a sum or a product ties them; depthwise ones pass on what they get.
        others = set(layers) - {layer} - {taker.call.layer for taker in takers_of if taker.copies}
        if any(places & claimed[other].get(at, set()) for at, places in claimed[layer].items() for other in others):
            continue
        if _runs(module, trees.nested(_without(flat, {layer: (takers_of, np.arange(features) > 0)})), input_shape):
            result[layer] = takers_of
    return result


def _claims(seen: list[Call], first: Mapping, last: Mapping, features: int) -> dict[str, set[int]]:
    """Returns the channels of each layer's input that are some of a layer's features, by that layer."""
    claims = {}
    for call in seen:
        places, ends = (np.flatnonzero(touched[call.layer]) for touched in (first, last))
        if isinstance(call.module, BatchNorm) or not len(places):
            continue
        in_order = np.array_equal(places + features - 1, ends)
        claims[call.layer] = (
            set((places[:, None] + np.arange(features)).reshape(-1).tolist())
            if in_order
            else set(range(call.given.shape[-1]))
        )
    return claims


def _touched(module: nn.Module, seen: list[Call]) -> Callable[[Mapping, np.ndarray], dict[str, np.ndarray]]:
    """Returns the function of (variables, image) to the channels of each layer's input that are not numbers.

    A layer that mixes its channels is given zeros for these, so that they show on every other way too.
    """
    mixes = {call.layer for call in seen if not Taker(call, ()).copies}

    def run(variables, image):
        missing_of = {}

        def intercept(call, arguments, keywords, context):
            layer = '/'.join(context.module.path)
            if context.method_name != '__call__' or not isinstance(context.module, Conv | nn.Dense | BatchNorm):
                return call(*arguments, **keywords)
            missing = jnp.isnan(x := arguments[0])
            missing_of[layer] = missing.any(tuple(range(x.ndim - 1)))
            return call(jnp.where(missing, 0, x) if layer in mixes else x, *arguments[1:], **keywords)

        with nn.intercept_methods(intercept):
            module.apply(variables, image, train=False)
        return missing_of

    jitted = jax.jit(run)
    return lambda variables, image: jax.device_get(jitted(variables, image))


def _with_nan(flat: Flat, layer: str, feature: int) -> dict:
    kernel = flat[f'params/{layer}/kernel'].copy()
    kernel[..., feature] = np.nan
    return trees.nested({**flat, f'params/{layer}/kernel': kernel})


def _matched(seen: list[Call], first: Mapping, last: Mapping, features: int) -> list[Taker] | None:
    """Returns the layers that are given single features; None where the features come in another order or mixed."""
    takers = []
    for call in seen:
        places, ends = (np.flatnonzero(touched[call.layer]) for touched in (first, last))
        if not len(places):
            continue
        if not np.array_equal(places + features - 1, ends):
            return None
        takers.append(Taker(call, tuple(places.tolist())))
        module = call.module
        if getattr(module, 'groups', 1) > 1 and not module.groups == module.features == call.given.shape[-1]:
            return None
    return takers


def _runs(module: nn.Module, variables: Mapping, input_shape: tuple[int, int, int]) -> bool:
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    try:
        jax.eval_shape(lambda v, x: Stored(module).apply(v, x, train=False), variables, image)
    except Exception:  # whatever a net meets in arrays of other shapes
        return False
    return True


def _edits(flat: Flat, goes: Mapping[str, tuple[list[Taker], np.ndarray]]) -> dict[tuple[str, int], np.ndarray]:
    """Returns what stays of each array's axis, bool, by (path, axis)."""
    stays: dict[tuple[str, int], np.ndarray] = {}

    def drop(path: str, axis: int, where: np.ndarray) -> None:
        if path in flat:
            stays_of = stays.setdefault((path, axis), np.ones(flat[path].shape[axis], bool))
            stays_of[where] = False

    for layer, (takers, kept) in goes.items():
        gone = np.flatnonzero(~kept)
        for leaf in ('kernel', 'bias'):
            drop(f'params/{layer}/{leaf}', -1, gone)
        for taker in takers:
            where = (np.array(taker.places)[:, None] + gone).reshape(-1)
            owner = taker.call.layer
            if not taker.copies:
                drop(f'params/{owner}/kernel', -2, where)
                continue
            for leaf in ('kernel', 'scale', 'bias'):
                drop(f'params/{owner}/{leaf}', -1, where)
            for leaf in ('mean', 'var'):
                drop(f'batch_stats/{owner}/{leaf}', -1, where)
    return stays


def _without(flat: Flat, goes: Mapping[str, tuple[list[Taker], np.ndarray]]) -> Flat:
    """Returns the arrays without the features that go, and without the channels that took them."""
    result = dict(flat)
    for (path, axis), stays in _edits(flat, goes).items():
        result[path] = np.compress(stays, result[path], axis=axis)
    return result


def _with_zeros(flat: Flat, goes: Mapping[str, tuple[list[Taker], np.ndarray]]) -> Flat:
    """Returns the arrays in which the features that go are zero."""
    result = dict(flat)
    for (path, axis), stays in _edits(flat, goes).items():
        if axis == -1 and not path.endswith('/var'):
            result[path] = np.where(stays, result[path], 0)
    return result


def _check(module: nn.Module, input_shape: tuple[int, int, int], zeroed: Mapping, narrower: Mapping) -> None:
    image = np.random.default_rng(0).normal(size=(1, *input_shape)).astype(np.float32)
    expected = np.asarray(jax.jit(module.apply)(zeroed, image))
    try:
        got = np.asarray(jax.jit(Stored(module).apply)(narrower, image))
    except Exception as error:  # whatever a net meets in arrays of other shapes
        raise UserError(
            f'the channels of this net cannot be pruned ({type(error).__name__}); use the scope layer or global'
        ) from error
    if not np.abs(expected - got).max() <= TOLERANCE * np.abs(expected).max():
        raise UserError(
            'the channels of this net cannot be pruned: something between its layers mixes them; use the '
            'scope layer or global'
        )
