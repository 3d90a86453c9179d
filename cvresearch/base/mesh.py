"""The device mesh and where a run's arrays lie on it. One device is a mesh of one.

A batch is sharded over all devices. The parameters, and whatever has their names and shapes (moments, averages), are
sharded over the axis 'shard' and replicated along the axis 'data': (N, 1) is plain data parallelism, (1, N) is fully
sharded (ZeRO stage 3: Rajbhandari et al. 2020, arXiv:1910.02054), (A, B) is both.
"""

import dataclasses
import math
import re
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from cvresearch.base import trees
from cvresearch.base.errors import UserError, check_arguments

AnyMesh = Mesh | AbstractMesh  # of devices that are there, or of any
AXES = ('data', 'shard')
LEAST = 1 << 14  # numbers in an array that is worth dividing
KNOBS: dict[str, Any] = dict(data=-1, shard=1, least=LEAST, rules=())  # of a config's `mesh`, and their defaults


def shape(data: int, shard: int, devices: int, batch: int = 0) -> tuple[int, int]:
    """Returns (copies of the parameters, devices over which each is sharded).

    Args:
      data: the first; -1 for as many as there are devices for, or as divide the batch.
      shard: the second.
      devices: how many there are.
      batch: images that they share out; 0 if any number will do.

    Raises:
      UserError: they do not fit the devices.
    """
    copies = devices // shard if data == -1 and shard > 0 else data
    if shard < 1 or copies < 1 or copies * shard > devices or (data == -1 and devices % shard):
        raise UserError(
            f'config.mesh has data={data} and shard={shard}, but there are {devices} devices; expected a product of at '
            'most that, or data=-1 for all of them and a shard that divides them'
        )
    if data == -1 and batch:
        copies = max((c for c in range(1, copies + 1) if batch % (c * shard) == 0), default=copies)
    return copies, shard


def make_mesh(data: int = -1, shard: int = 1, batch: int = 0) -> Mesh:
    """Returns the mesh of `shape`, over the first of the devices.

    Devices of one host are neighbours along 'shard'. So a host's part of a batch is one piece of it.
    """
    devices = jax.devices()
    several = jax.process_count() > 1  # each has its part of a batch to compute
    copies, shard = shape(data, shard, len(devices), 0 if several else batch)
    if several and copies * shard < len(devices):
        raise UserError(
            f'config.mesh takes {copies * shard} of the {len(devices)} devices of {jax.process_count()} hosts; '
            'expected all of them, as each host computes its part'
        )
    return Mesh(np.array(devices[: copies * shard]).reshape(copies, shard), AXES)


def abstract(data: int, shard: int, devices: int, batch: int = 0) -> AbstractMesh:
    """Returns the mesh of `shape` over so many devices that need not be there: for shapes and sizes alone."""
    return AbstractMesh(shape(data, shard, devices, batch), AXES)


def devices(mesh: AnyMesh) -> list[Any]:
    """Returns the devices of a mesh that are there."""
    return [*cast(Mesh, mesh).devices.flat]


def replicated(mesh: AnyMesh) -> NamedSharding:
    """Returns the placement of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: AnyMesh) -> NamedSharding:
    """Returns the placement of a batch: its first axis is divided over the mesh."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def by_example_in_parts(mesh: AnyMesh) -> NamedSharding:
    """Returns the placement of a batch in parts: the examples of each part are divided over the mesh."""
    return NamedSharding(mesh, PartitionSpec(None, AXES))


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and which of its parameters are sharded over it, along which axis.

    Attributes:
      mesh: with the axes `AXES`.
      least: numbers in an array from which on it is sharded, along the longest axis that the devices divide, the
        last of equals. Others are replicated.
      rules: pairs (pattern, axis); the first that matches counts, before `least`. The regular expression is searched
        for in a parameter's name, 'stage1_block2/conv1/kernel'; its moments and averages lie as the parameter does.
        The axis is the parameter's own (-1 the last), None for replicated.
    """

    mesh: AnyMesh
    least: int = LEAST
    rules: tuple = ()

    @classmethod
    def of(cls, spec, devices: int | None = None, batch: int = 0) -> 'Layout':
        """Makes the layout that a config's `mesh` describes.

        Args:
          spec: `data` and `shard` of `shape`, `least` and `rules`.
          devices: on so many that need not be there; on those that are, by default.
          batch: images that the devices share out at once; see `shape`.

        Raises:
          UserError: an unknown key, a value of another type, more devices than there are.
        """
        check_arguments('config.mesh', dict(spec), KNOBS)
        knobs = KNOBS | dict(spec)
        axes = {axis: knobs.pop(axis) for axis in AXES}
        mesh = make_mesh(**axes, batch=batch) if devices is None else abstract(**axes, devices=devices, batch=batch)
        rules = tuple(map(tuple, knobs.pop('rules')))
        for rule in rules:
            if len(rule) != 2 or not isinstance(rule[0], str) or not isinstance(rule[1], int | None):
                raise UserError(f"config.mesh.rules has {rule!r}; expected pairs such as ('head/kernel', 0)")
        return cls(mesh, rules=rules, **knobs)

    @classmethod
    def of_config(cls, config, devices: int | None = None) -> 'Layout':
        """Makes the layout of a run: with data=-1 over as many devices as divide what goes through the net at once."""
        return cls.of(config.mesh, devices, config.batch_size // max(config.updates.get('accumulate', 1), 1))

    @property
    def divides(self) -> bool:
        """Whether parameters are sharded at all."""
        return self.mesh.shape['shard'] > 1

    def of_variables(self, named: dict) -> dict[str, NamedSharding]:
        """Returns the placement of each array or shape, by name.

        Raises:
          UserError: a rule that matches nothing, or an axis that does not divide.
        """
        unused = {pattern for pattern, _ in self.rules}
        placed = {name: self._of_array(name, x.shape, unused) for name, x in named.items()}
        if unused:
            raise UserError(f'config.mesh.rules: {min(unused)!r} matches no parameter; they are {", ".join(named)}')
        return placed

    def _of_array(self, name: str, shape: tuple[int, ...], unused: set[str]) -> NamedSharding:
        stacked = trees.is_stacked(name)
        block_shape, shards = shape[stacked:], self.mesh.shape['shard']
        matching = [rule for rule in self.rules if any(re.search(rule[0], block) for block in trees.block_names(name))]
        divisible = [axis for axis, length in enumerate(block_shape) if length % shards == 0]
        if matching:
            pattern, axis = matching[0]
            unused.discard(pattern)
        elif math.prod(block_shape) >= self.least:
            axis = max(divisible, key=lambda axis: (block_shape[axis], axis), default=None)
        else:
            axis = None
        if axis is None or not self.divides:
            return replicated(self.mesh)
        if not -len(block_shape) <= axis < len(block_shape) or block_shape[axis] % shards:
            raise UserError(
                f'config.mesh.rules divides {name}, of shape {block_shape}, along axis {axis} over {shards} devices; '
                'expected an axis whose length they divide, or None'
            )
        before = stacked + axis % len(block_shape)
        return NamedSharding(self.mesh, PartitionSpec(*(None,) * before, 'shard'))

    def of_state(self, state, named: dict):
        """Returns the placements of a tree's leaves: where a parameter's name ends a leaf's path, the parameter's.

        Args:
          state: a pytree of arrays or shapes.
          named: the parameters, {'C1/kernel': an array or a shape}. What is not one of them, or has another shape,
            lies whole on every device.
        """
        placed = self.of_variables(named)

        def leaf(path, x) -> NamedSharding:
            name = trees.owner('/'.join(map(trees.key_name, path)), named)
            return placed[name] if name and named[name].shape == x.shape else replicated(self.mesh)

        return jax.tree_util.tree_map_with_path(leaf, state)


def bytes_per_device(tree, placements) -> int:
    """Returns the bytes that one device holds of arrays, or of shapes, so placed."""

    def leaf(x, placement) -> int:
        return math.prod(placement.shard_shape(x.shape)) * x.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(leaf, tree, placements)))


def check_batch(name: str, size: int, mesh: AnyMesh) -> None:
    """Raises UserError unless a batch of `size` divides over the mesh."""
    if size < 1 or size % mesh.size:
        raise UserError(
            f'config.{name} is {size}, which does not divide over {mesh.size} devices; use a multiple of {mesh.size}'
        )


def fitting(size: int, mesh: AnyMesh) -> int:
    """Returns the batch size of an evaluation, made a multiple of the devices: the rest of a batch is filled up.

    Raises:
      UserError: no image at all.
    """
    if size < 1:
        raise UserError(f'config.eval_batch_size is {size}; expected at least 1')
    return -(-size // mesh.size) * mesh.size


def place(batch, mesh: AnyMesh):
    """Puts a batch, a dict of NumPy arrays holding this host's examples, on the mesh."""
    sharding = by_example(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def shapes_of(batch: dict, size: int, mesh: AnyMesh) -> dict:
    """Returns the shapes, dtypes and places on a mesh of a batch with `size` examples, given one of any size.

    What has several rows for each label has them in the larger batch too.
    """
    placed, here = by_example(mesh), len(batch['label'])

    def leaf(x) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size * len(x) // here, *x.shape[1:]), x.dtype, sharding=placed)

    return jax.tree.map(leaf, batch)
