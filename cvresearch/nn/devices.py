"""For which devices a net is traced. Some operations are written in another way for some of them."""

import contextlib
from collections.abc import Iterator

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from cvresearch.base.arrays import JaxArray

_MESH = jax.make_user_context(default_value=None)  # what is traced under one mesh is not taken for another


@contextlib.contextmanager
def traced_for(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Within it, nets are traced for the devices of a mesh, over which the examples of a batch are divided."""
    with _MESH(mesh):
        yield


def mesh() -> Mesh | None:
    """Returns the mesh that is traced for; None for shapes alone, and where nobody has said."""
    current = _MESH.value
    return current if isinstance(current, Mesh) else None


def platform() -> str:
    """Returns 'cpu', 'gpu' or 'tpu': of the mesh that is traced for, or of JAX's own devices."""
    current = mesh()
    return current.devices.flat[0].platform if current else jax.default_backend()


def whole(x: Float[JaxArray, '*shape']) -> Float[JaxArray, '*shape']:
    """Returns an array, and its gradient, whole on every device of a TPU's mesh; as it is elsewhere.

    For what is computed of parameters: XLA would compute it divided, as their gradients are, and gather it at each use.
    """
    current = mesh()
    if current is None or current.size == 1 or platform() != 'tpu':
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(current, PartitionSpec()))
