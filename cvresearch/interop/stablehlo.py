"""A net as StableHLO, by `jax.export`: one file that any later JAX runs on CPU, GPU and TPU, without this package.

exported = jax.export.deserialize(bytearray(Path('net.stablehlo').read_bytes()))
logits = exported.call(images)              # weights inside
logits = exported.call(weights, images)     # weights beside: safetensors.numpy.load_file(...)
"""

import dataclasses
import re
from collections.abc import Callable

import jax
import numpy as np
from flax import traverse_util
from jax import export
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir

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
      UserError: the program calls code that not every platform has, or the package flatbuffers is not installed.
    """
    arguments = (images,)
    if weights is not None:
        shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
        arguments = (shapes, images)
        of_tree = function
        function = lambda weights, images: of_tree(traverse_util.unflatten_dict(weights, sep='/'), images)  # noqa: E731
    try:
        exported = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    except ValueError as error:
        raise UserError(f'the net cannot be exported as StableHLO: {" ".join(str(error).split())}') from error
    try:
        return bytes(_without_assertions(exported).serialize())
    except ImportError as error:
        raise UserError("StableHLO files need flatbuffers; pip install 'cvresearch[export]'") from error


def _without_assertions(exported: export.Exported) -> export.Exported:
    """Returns the program without the check that the batch is at least 1.

    The check is a custom call, which not every consumer of StableHLO takes, and `Exported.call` checks the same by
    itself.
    """
    match = re.search(rb'StableHLO_v([\d.]+)', exported.mlir_module_serialized)
    assert match is not None  # every program begins with it
    version = match[1].decode()
    with mlir.make_ir_context() as context:
        module = stablehlo.deserialize_portable_artifact(context, exported.mlir_module_serialized)
        calls = []

        def visit(operation):
            if operation.name == 'stablehlo.custom_call':
                calls.append(operation)
            return ir.WalkResult.ADVANCE

        module.operation.walk(visit)
        for call in calls:
            if (name := ir.StringAttr(call.attributes['call_target_name']).value) != 'shape_assertion':
                raise UserError(
                    f'the net cannot be exported as StableHLO: it calls {name!r}, which not every platform has'
                )
            call.erase()
        return dataclasses.replace(
            exported, mlir_module_serialized=stablehlo.serialize_portable_artifact(module, version)
        )


def flat(variables: dict) -> dict[str, np.ndarray]:
    """Returns variables by name, 'params/conv1/kernel'."""
    return {name: np.asarray(leaf) for name, leaf in trees.named_leaves(variables)}
