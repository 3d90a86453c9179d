"""The device mesh and the two placements a data-parallel run needs. One device is a mesh of one."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cvresearch.base.errors import UserError


def make_mesh(data: int = -1) -> Mesh:
    """Returns a mesh with the axis 'data'.

    Args:
      data: number of devices along that axis; -1 for all there are.

    Raises:
      UserError: more devices are asked for than there are.
    """
    devices = jax.devices()
    size = len(devices) if data == -1 else data
    if not 0 < size <= len(devices):
        raise UserError(
            f'config.mesh.data is {data}, but there are {len(devices)} devices; use -1 for all of them'
        )
    return Mesh(np.array(devices[:size]), ('data',))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the placement of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """Returns the placement of a batch: its first axis is divided over the mesh."""
    return NamedSharding(mesh, PartitionSpec('data'))


def by_example_in_parts(mesh: Mesh) -> NamedSharding:
    """Returns the placement of a batch in parts: the examples of each part are divided over the mesh."""
    return NamedSharding(mesh, PartitionSpec(None, 'data'))


def check_batch(name: str, size: int, mesh: Mesh) -> None:
    """Raises UserError unless a batch of `size` divides over the mesh."""
    if size < 1 or size % mesh.size:
        raise UserError(
            f'config.{name} is {size}, which does not divide over {mesh.size} devices; '
            f'use a multiple of {mesh.size}'
        )


def place(batch, mesh: Mesh):
    """Puts a batch, a dict of NumPy arrays holding this host's examples, on the mesh."""
    sharding = by_example(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
