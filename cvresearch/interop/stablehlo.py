"""A net as StableHLO, by `jax.export`: one file that any later JAX runs on CPU, GPU and TPU, without this package.

    exported = jax.export.deserialize(bytearray(Path('net.stablehlo').read_bytes()))
    logits = exported.call(images)              # weights inside
    logits = exported.call(weights, images)     # weights beside: safetensors.numpy.load_file(...)
"""

from collections.abc import Callable

import jax
import numpy as np
from flax import traverse_util
from jax import export

from cvresearch.base import trees
from cvresearch.base.errors import UserError

PLATFORMS = ('cpu', 'cuda', 'tpu')


def to_stablehlo(
    function: Callable, images: jax.ShapeDtypeStruct, weights: dict[str, np.ndarray] | None = None
) -> bytes:
    """Returns a function of images as a serialised StableHLO program for `PLATFORMS`; the batch is free.

    Args:
      function: images -> logits, with the weights inside; with `weights`, (variables, images) -> logits.
      images: shape, with a symbol as batch, and type; see `inference.image_spec`.
      weights: the variables as `flat` returns them, if they shall be an argument of the program.

    Raises:
      UserError: the program calls code that only this installation has.
    """
    arguments = (images,)
    if weights is not None:
        shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
        arguments = (shapes, images)
        of_tree = function
        function = lambda weights, images: of_tree(traverse_util.unflatten_dict(weights, sep='/'), images)  # noqa: E731
    # An assertion on the batch would be a custom call, which not every consumer of StableHLO takes.
    unasserted = [export.DisabledSafetyCheck.shape_assertions()]
    try:
        exported = export.export(jax.jit(function), platforms=PLATFORMS, disabled_checks=unasserted)(*arguments)
    except ValueError as error:
        raise UserError(f'the net cannot be exported as StableHLO: {" ".join(str(error).split())}') from error
    if b'custom_call' in exported.mlir_module_serialized:
        raise UserError('the net cannot be exported as StableHLO: it calls code that only this installation has')
    return bytes(exported.serialize())


def flat(variables: dict) -> dict[str, np.ndarray]:
    """Returns variables by name, 'params/conv1/kernel'."""
    return {name: np.asarray(leaf) for name, leaf in trees.named_leaves(variables)}
