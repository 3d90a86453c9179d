"""For which devices a net is traced and compiled. Some operations are written in another way for some of them."""

import contextlib
import functools
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


@functools.cache
def compiler_options(platform: str) -> dict[str, str | bool] | None:
    """Returns how XLA is to compile an update in place for some kind of devices, or None.

    For CPUs it would copy nearly every parameter first: it does not see that the last use of the old one is before the
    new one is written, unless it looks at the order of operations. Numbers are the same.
    """
    if platform != 'cpu':
        return None
    options: dict[str, str | bool] = {'xla_cpu_copy_insertion_use_region_analysis': True}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # another version, which has no such option
        return None
    return options
