"""What a run needs of each device's memory, from shapes alone: nothing is computed and nothing is compiled."""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import cast

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from cvresearch.base import memory, trees
from cvresearch.base import mesh as meshes
from cvresearch.data import sources
from cvresearch.engine import steps
from cvresearch.engine.experiment import Experiment
from cvresearch.inspect.jaxprs import shaped

PARTS: tuple[str, ...] = ('params', 'optimizer', 'average')
COLUMNS = ('parameter', 'arrays', 'shape', 'axis', *PARTS)


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes of one device's memory.

    Attributes:
      params: the parameters, as they are kept.
      optimizer: moments and whatever else it keeps.
      average: of the weights, and the statistics of norms.
      gradients: of all parameters, before they are sharded.
      gathered: the parameters replicated, while the net uses them; 0 where they are never sharded. As `gradients`, gone
        between updates.
      activations: what the backward pass is handed by the forward pass, for the device's part of a batch.
    """

    params: int
    optimizer: int
    average: int
    gradients: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


def experiment_for(config: ConfigDict, devices: int, mesh: meshes.AnyMesh | None = None) -> Experiment:
    """Returns the parts of a run on so many devices; neither they nor its images need be there.

    Args:
      config: of the run.
      devices: how many.
      mesh: of such devices, where something is to be compiled for them.

    Raises:
      UserError: as `Experiment.from_config`.
    """
    source = sources.without_images(config.data, config.minival, config.transform)
    layout = meshes.Layout.of_config(config, devices)
    return Experiment.from_config(config, source, dataclasses.replace(layout, mesh=mesh) if mesh else layout)


def of(experiment: Experiment, kept: int | None = None) -> Footprint:
    """Returns what an experiment's update needs of each device of its mesh; `kept` are its activations, where known."""
    state = experiment.abstract_state()
    held = lambda tree: meshes.bytes_per_device(tree, jax.tree.map(lambda x: x.sharding, tree))  # noqa: E731
    params = _bytes(jax.tree.leaves(state.params))
    learning = experiment.training_at(0)[1].learning(state.params)
    return Footprint(
        params=held(state.params),
        optimizer=held(state.opt_state),
        average=held((state.average, state.model_state)),
        gradients=_bytes(jax.tree.leaves(learning)),
        gathered=params if experiment.layout.divides else 0,
        activations=activations(experiment) if kept is None else kept,
    )


def activations(experiment: Experiment) -> int:
    """Returns the bytes that the backward pass keeps of the forward pass, on each device.

    They are the residuals of the traced objective that depend on the images: arrays that automatic differentiation
    hands from one pass to the other. The compiler may keep fewer, where it computes cheap ones anew, and needs some
    room beside them; docs/scale.md compares both.
    """
    images_at_once = experiment.plan.batch_size // experiment.recipe.accumulate
    state, shape = experiment.abstract_state(), experiment.source.facts.image_shape
    model, recipe = experiment.training_at(0)
    # The teacher has no backward pass, so nothing of it is kept.
    recipe = dataclasses.replace(recipe, distillation=None)

    def residuals(images, target, params):
        objective = steps.objective(model, experiment.loss, recipe, state_like(params), images, target, key)
        return jax.vjp(objective, recipe.learning(params), has_aux=True)[1]

    def state_like(params):
        return state.replace(params=params, model_state=zeros(state.model_state))

    zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)  # noqa: E731
    key = jax.random.key(0)
    images = jax.ShapeDtypeStruct((images_at_once, *shape), jnp.float32)
    target = jax.ShapeDtypeStruct((images_at_once, experiment.model.num_classes), jnp.float32)
    traced = jax.make_jaxpr(residuals)(images, target, state.params).jaxpr
    # What depends on the parameters alone is the parameters again, which are counted apart.
    dependent = set(traced.invars[:2])
    for equation in traced.eqns:
        if any(x in dependent for x in equation.invars if isinstance(x, core.Var)):
            dependent.update(equation.outvars)
    kept = {x for x in traced.outvars if isinstance(x, core.Var) and x in dependent}
    return _bytes(map(shaped, kept)) // experiment.mesh.size


def rows(experiment: Experiment) -> Iterator[dict]:
    """Yields a row for each group of like parameters: how many, their shape, the axis that is sharded, and the bytes
    that one device holds of them, of their moments and of their averages."""
    state = experiment.abstract_state()
    named = dict(trees.named_leaves(state.params))
    held: dict[str, dict[str, int]] = {name: dict.fromkeys(PARTS, 0) for name in named}
    others = dict.fromkeys(PARTS, 0)
    for part, tree in (
        ('params', state.params),
        ('optimizer', state.opt_state),
        ('average', (state.average, state.model_state)),
    ):
        for path, x in trees.named_leaves(tree):
            of = held.get(trees.owner(path, named), others)
            of[part] += meshes.bytes_per_device(x, x.sharding)
    groups: dict[tuple, list[str]] = {}
    for name, x in named.items():
        axis = next((axis for axis, over in enumerate(cast(NamedSharding, x.sharding).spec) if over), None)
        # Parameters of blocks that differ in their numbers alone are one row.
        groups.setdefault((re.sub(r'\d+', '*', name), x.shape, axis), []).append(name)
    for (pattern, shape, axis), names in groups.items():
        sums = {part: sum(held[name][part] for name in names) for part in PARTS}
        yield dict(
            parameter=pattern if len(names) > 1 else names[0],
            arrays=len(names),
            shape='x'.join(map(str, shape)),
            axis='whole' if axis is None else axis,
            **sums,
        )
    yield dict(parameter='statistics, counters', arrays='', shape='', axis='whole', **others)


def complaint(experiment: Experiment, need: Footprint, limit: int) -> str | None:
    """Returns one line where a plan does not fit a memory of `limit` bytes, None where it does."""
    if need.total <= limit:
        return None
    mib = {field.name: getattr(need, field.name) / 2**20 for field in dataclasses.fields(need)}
    parts = ', '.join(f'{name} {value:,.0f}' for name, value in mib.items() if value)
    sizes = ' x '.join(f'{axis} {size}' for axis, size in experiment.mesh.shape.items())
    return (
        f'on a mesh of {sizes} this run needs about {need.total / 2**20:,.0f} MiB of each device ({parts}), which has '
        f'{limit / 2**20:,.0f}; more devices, a larger config.mesh.shard or config.updates.accumulate, or '
        'config.remat=True need less of each (cvresearch summary --mesh --config ...)'
    )


def check(experiment: Experiment) -> str | None:
    """Returns `complaint` for the devices of an experiment's mesh."""
    here = [device for device in meshes.devices(experiment.mesh) if device.process_index == jax.process_index()]
    return complaint(experiment, of(experiment), memory.of_device(here[0], len(here)))


def _bytes(arrays: Iterable) -> int:
    return sum(x.size * x.dtype.itemsize for x in arrays)
