"""How a net trains: sizes of activations and gradients by layer, and the loss around the parameters."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cvresearch.base import trees
from cvresearch.inspect.program import Images, separate, trace

BINS = 50


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Values of a layer over a batch.

    Attributes:
      mean: of all values.
      std: their standard deviation.
      dead: share of the channels that are zero at every place of every image.
      counts: of values between the edges.
      edges: one more than counts, from the least value to the largest.
    """

    mean: float
    std: float
    dead: float
    counts: Int[np.ndarray, ' bins']
    edges: Float[np.ndarray, ' bins+1']


def activations(
    module: nn.Module, variables: dict, images: Images, layers: Sequence[str]
) -> dict[str, Distribution]:  # fmt: skip
    """Returns the distribution of what each layer gives, in evaluation mode.

    Args:
      module: the net.
      variables: its parameters and statistics, in any layout of its blocks.
      images: (images, height, width, channels), normalized as the net expects.
      layers: names of values (inspect/program.py).

    Raises:
      UserError: a layer that the net does not have.
    """
    module, variables = separate(module, variables)
    program = trace(module, variables, images)
    places = [program.place(name) for name in layers]
    _, values = jax.jit(functools.partial(program.run, keep=places))(variables, images)
    return {name: _distribution(np.asarray(value)) for name, value in zip(layers, values, strict=True)}


def gradients(
    module: nn.Module, variables: dict, images: Images, layers: Sequence[str],
    loss: Callable[[jax.Array], jax.Array],
) -> dict[str, Distribution]:  # fmt: skip
    """Returns the distribution of the gradient of a loss by what each layer gives, in evaluation mode.

    Args:
      module, variables, images, layers: as of `activations`.
      loss: maps logits (images, classes) to a number.

    Raises:
      UserError: a layer that the net does not have.
    """
    module, variables = separate(module, variables)
    program = trace(module, variables, images)
    places = [program.place(name) for name in layers]
    _, values = jax.eval_shape(functools.partial(program.run, keep=places), variables, images)

    @jax.jit
    def derived(variables, images, zeros):
        return jax.grad(lambda zeros: loss(program.run(variables, images, add=zeros)[0]))(zeros)

    zeros = {place: jnp.zeros(value.shape, value.dtype) for place, value in zip(places, values, strict=True)}
    found = derived(variables, images, zeros)
    return {name: _distribution(np.asarray(found[place])) for name, place in zip(layers, places, strict=True)}


def _distribution(values: np.ndarray) -> Distribution:
    values = values.astype(np.float64)
    counts, edges = np.histogram(values, BINS)
    dead = (values.reshape(-1, values.shape[-1]) == 0).all(0).mean()
    return Distribution(float(values.mean()), float(values.std()), float(dead), counts, edges)


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
    loss: Callable[[dict], jax.Array], params: dict, seeds: tuple[int, int] = (0, 1), reach: float = 1.0,
    number: int = 21,
) -> tuple[Float[np.ndarray, ' {number}'], Float[np.ndarray, '{number} {number}']]:  # fmt: skip
    """Returns the loss on a grid around the parameters, along two directions of `direction`.

    Args:
      loss: maps parameters to a number; statistics of norms stay as they are.
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
    def at(a, b):
        return loss(jax.tree.map(lambda p, x, y: p + a * x + b * y, params, first, second))

    return places, np.asarray([[float(at(np.float32(a), np.float32(b))) for b in places] for a in places])
