"""Feature maps inside a net, by name: for transfer, visualisation and dense prediction.

One mechanism for all architectures: whatever the top module's children return. A name is a child's
('C3', 'stage2_block0'), or a stage's ('stage2'), which is what its last child returns. An activation
that the top module applies to it, as VGG does to its convolutions, comes after.
"""

from collections.abc import Iterable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError, nearest
from cvresearch.nn import overrides


def names(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns the names that `features` takes, in the order in which they are computed.

    Returns:
      {name: shape of one image's feature}; nothing is computed.
    """
    model = overrides.unrolled(model)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes: dict[str, tuple[int, ...]] = {}

    def note(call, arguments, keywords, context):
        result = call(*arguments, **keywords)
        if _is_child(context.module, context.method_name) and isinstance(result, jax.Array):
            shapes[context.module.name] = tuple(result.shape[1:])
        return result

    with nn.intercept_methods(note):
        # Variables are made on the way. Not by `init`, which runs auxiliary heads too.
        rngs = {'params': jax.random.key(0)}
        jax.eval_shape(lambda x: model.apply({}, x, train=False, mutable=True, rngs=rngs), image)
    stages = {stage_of(name): shape for name, shape in shapes.items() if stage_of(name)}
    return {**shapes, **stages}


def features(
    model: nn.Module, variables: dict, images: Float[AnyArray, 'batch height width channels'], wanted: Iterable[str]
) -> dict[str, Float[Array, 'batch ...']]:
    """Returns the features of a batch, in evaluation mode.

    Args:
      model: of `registry.build`.
      variables: its parameters and statistics, in any layout of its blocks (nn/stacked.py).
      images: (batch, height, width, channels), normalized as the model expects.
      wanted: names, as `names` gives them.

    Returns:
      {name: (batch, ...)}.

    Raises:
      UserError: a name that the net does not have.
    """
    wanted, known = list(wanted), names(model, images.shape[1:])
    for name in wanted:
        if name not in known:
            raise UserError(f'{type(model).__name__} has no feature {name!r}; {nearest(name, known)}')
    last = {stage_of(child): child for child in known if stage_of(child)}
    model, variables = overrides.separate(model, variables)
    _, state = cast(
        Any, model.apply(variables, images, train=False, capture_intermediates=_is_child, mutable=['intermediates'])
    )
    return {name: state['intermediates'][last.get(name, name)]['__call__'][-1] for name in wanted}


def _is_child(module: nn.Module, method: str) -> bool:
    return method == '__call__' and len(module.path) == 1


def stage_of(name: str) -> str:
    """Returns 'stage2' for 'stage2_block0', '' for what is no block of a stage."""
    stage, separator, _ = name.partition('_')
    return stage if separator and stage.startswith('stage') and stage[5:].isdigit() else ''
