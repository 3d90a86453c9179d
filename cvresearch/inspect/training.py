"""How a net trains: sizes of activations and gradients by layer, and the loss around the parameters."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cvresearch.base import trees
from cvresearch.inspect.program import ACTIVATIONS, Images, Program, trace
from cvresearch.nn.overrides import separate

BINS = 50
# What a net may apply to a layer; of these a layer's values are looked at.
_APPLIED = (*ACTIVATIONS, 'tanh', 'logistic')


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Values of a layer over a batch.

    Attributes:
      mean: of all values that are finite.
      std: their standard deviation.
      dead: share of the channels that are zero at every place of every image.
      finite: share of the values that are finite.
      counts: of the finite values between the edges.
      edges: one more than counts, from the least value to the largest.
    """

    mean: float
    std: float
    dead: float
    finite: float
    counts: Int[np.ndarray, ' bins']
    edges: Float[np.ndarray, ' bins+1']

    @classmethod
    def of(cls, values: np.ndarray) -> 'Distribution':
        """Returns the distribution of values (..., channels)."""
        values = np.asarray(values, np.promote_types(values.dtype, np.float32))
        dead = (values.reshape(-1, values.shape[-1]) == 0).all(0).mean()
        finite = np.isfinite(values)
        share = float(finite.mean())
        values = values if share == 1 else values[finite]
        if not values.size:
            return cls(math.nan, math.nan, float(dead), share, np.zeros(BINS, int), np.linspace(0, 1, BINS + 1))
        counts, edges = np.histogram(values.astype(np.float64), BINS)
        mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        return cls(float(mean), float(std), float(dead), share, counts, edges)

    @property
    def record(self) -> dict:
        """What a row of the records says of it; None for what is not defined."""
        mean, std = (value if math.isfinite(value) else None for value in (self.mean, self.std))
        return dict(
            mean=mean,
            std=std,
            dead=self.dead,
            finite=self.finite,
            least=float(self.edges[0]),
            most=float(self.edges[-1]),
            counts=self.counts.tolist(),
        )

    @classmethod
    def from_record(cls, record: dict) -> 'Distribution':
        """Returns what `record` was made of."""
        mean, std = (math.nan if record[name] is None else record[name] for name in ('mean', 'std'))
        counts = np.asarray(record['counts'])
        edges = np.linspace(record['least'], record['most'], len(counts) + 1)
        return cls(mean, std, record['dead'], record['finite'], counts, edges)


@dataclasses.dataclass(frozen=True)
class Probe:
    """A function that looks at layers, traced once for batches of one shape.

    Attributes:
      layers: names of values (inspect/program.py), in the order in which they are computed.
      measure: (variables, images, target) -> (loss, what each layer gives, the gradient of the loss by it). A pure
        function to be compiled; variables are those of `nn.overrides.separate`.
    """

    layers: tuple[str, ...]
    measure: Callable[[dict, Any, Any], tuple[jax.Array, list[jax.Array], list[jax.Array]]]


def probe(
    module: nn.Module,
    variables: dict,
    images: Images | jax.ShapeDtypeStruct,
    loss: Callable,
    layers: Sequence[str] | None = None,
    train: bool = False,
) -> Probe:
    """Returns a probe of a net; nothing is computed.

    Args:
      module, variables: a net with its blocks one by one (`nn.overrides.separate`); the variables may be shapes.
      images: (images, height, width, channels), or their shape.
      loss: (logits, target) -> a number. Auxiliary heads add theirs, times the net's `aux_weight`.
      layers: names of values; `main_layers` if None.
      train: as of `program.trace`.

    Raises:
      UserError: a layer that the net does not have.
    """
    program = trace(module, variables, images, train)
    wanted = tuple(layers or main_layers(program, variables['params']))
    places = [program.place(name) for name in wanted]

    def measure(variables, images, target):
        run = functools.partial(program.run, variables, images)
        shapes = jax.eval_shape(lambda: run(keep=places)[1])
        zeros = {place: jnp.zeros(x.shape, x.dtype) for place, x in zip(places, shapes, strict=True)}

        def objective(zeros):
            logits, kept = run(keep=[*places, *program.auxiliary], add=zeros)
            values, heads = kept[: len(places)], kept[len(places) :]
            total = loss(logits, target) + sum(module.aux_weight * loss(head, target) for head in heads)
            return total, values

        (total, values), gradients = jax.value_and_grad(objective, has_aux=True)(zeros)
        return total, values, [gradients[place] for place in places]

    return Probe(wanted, measure)


def main_layers(program: Program, params: Mapping) -> list[str]:
    """Returns the names of what the net's own children give, after the activation that the net applies to it.

    Children without parameters are left out: they are pooling and dropout.
    """
    layers: dict[int, str] = {}
    for name in (name for name in program.names if name in program.modules and name in params):
        active = [after for function in _APPLIED if (after := f'{name}+{function}') in program.names]
        layers.setdefault(program.names[(active or [name])[0]], (active or [name])[0])
    return [layers[place] for place in sorted(layers)]


def activations(
    module: nn.Module, variables: dict, images: Images, layers: Sequence[str] | None = None, train: bool = False
) -> dict[str, Distribution]:
    """Returns the distribution of what each layer gives.

    Args:
      module: the net.
      variables: its parameters and statistics, in any layout of its blocks.
      images: (images, height, width, channels), normalized as the net expects.
      layers: names of values (inspect/program.py); `main_layers` if None.
      train: norms go by the batch, as in training; by the running statistics otherwise, which a new net does not have.

    Raises:
      UserError: a layer that the net does not have.
    """
    measured = _measured(module, variables, images, lambda logits, _: logits.sum(), layers, train)
    return {name: Distribution.of(values) for name, (values, _) in measured.items()}


def gradients(
    module: nn.Module,
    variables: dict,
    images: Images,
    layers: Sequence[str] | None,
    loss: Callable[[jax.Array], jax.Array],
    train: bool = False,
) -> dict[str, Distribution]:
    """Returns the distribution of the gradient of a loss by what each layer gives.

    Args:
      module, variables, images, layers, train: as of `activations`.
      loss: maps logits (images, classes) to a number.

    Raises:
      UserError: a layer that the net does not have.
    """
    measured = _measured(module, variables, images, lambda logits, _: loss(logits), layers, train)
    return {name: Distribution.of(gradient) for name, (_, gradient) in measured.items()}


def _measured(module, variables, images, loss, layers, train) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    module, variables = separate(module, variables)
    compiled = probe(module, variables, images, loss, layers, train)
    _, values, slopes = jax.jit(compiled.measure)(variables, images, None)
    pairs = zip(values, slopes, strict=True)
    return {name: (np.asarray(a), np.asarray(b)) for name, (a, b) in zip(compiled.layers, pairs, strict=True)}


def update_ratios(before: dict, after: dict) -> dict[str, float]:
    """Returns the norm of the change of each parameter over its norm before, by its path; about 1e-3 is usual.

    Args:
      before: parameters before an update.
      after: and after it.
    """
    pairs = zip(trees.named_leaves(before), trees.named_leaves(after), strict=True)
    ratios = {}
    for (path, old), (_, new) in pairs:
        size = float(np.linalg.norm(np.asarray(old, np.float64)))
        change = float(np.linalg.norm(np.asarray(new, np.float64) - np.asarray(old, np.float64)))
        ratios[path] = change / size if size else float('inf') if change else 0.0
    return ratios


def direction(params: dict, seed: int) -> dict:
    """Returns a random direction in which every filter has the norm of the net's; norms and biases do not move.

    Li et al. 2018, arXiv:1712.09913, section 4: a filter is what leads to one feature, the last axis of a kernel.

    Args:
      params: the net's parameters.
      seed: of the direction.
    """
    random = np.random.default_rng(seed)

    def scaled(weight):
        weight = np.asarray(weight)
        if weight.ndim < 2:
            return np.zeros_like(weight)
        drawn = random.standard_normal(weight.shape)
        axes = tuple(range(weight.ndim - 1))
        sizes = [np.sqrt((np.asarray(x, np.float64) ** 2).sum(axes)) for x in (weight, drawn)]
        return (drawn * (sizes[0] / sizes[1])).astype(weight.dtype)

    return jax.tree.map(scaled, params)


def loss_surface(
    loss: Callable[[dict], Any],
    params: dict,
    seeds: tuple[int, int] = (0, 1),
    reach: float = 1.0,
    number: int = 21,
) -> tuple[Float[np.ndarray, ' {number}'], Float[np.ndarray, '{number} {number}']]:
    """Returns the loss on a grid around the parameters, along two directions of `direction`.

    Args:
      loss: maps parameters to a number, best compiled; statistics of norms stay as they are.
      params: the middle of the grid.
      seeds: of the two directions.
      reach: of the grid to either side, in units of the directions.
      number: of places along each; odd, so that the middle is one of them.

    Returns:
      (places along a direction (number,), losses (number, number)).
    """
    first, second = (direction(params, seed) for seed in seeds)
    places = np.linspace(-reach, reach, number)

    @jax.jit
    def moved(a, b, params, first, second):
        return jax.tree.map(lambda p, x, y: p + a * x + b * y, params, first, second)

    def at(a, b):
        return float(loss(moved(np.float32(a), np.float32(b), params, first, second)))

    return places, np.asarray([[at(a, b) for b in places] for a in places])
