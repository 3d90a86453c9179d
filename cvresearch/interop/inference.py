"""What a net computes when it has left: logits, from normalized images or from raw pixels."""

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from cvresearch.base.errors import UserError
from cvresearch.nn.conv import plain_lowering
from cvresearch.nn.ensemble import Ensemble
from cvresearch.nn.overrides import Net
from cvresearch.nn.stored import Stored

PROBABILITIES = {'softmax': jax.nn.softmax, 'sigmoid': jax.nn.sigmoid}  # of logits


@runtime_checkable
class OfDtype(Protocol):
    """A net that computes in a dtype of its choice."""

    dtype: Any


def function(
    module: nn.Module,
    variables: dict | None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    channels: slice = slice(None),
) -> Callable:
    """Returns images -> logits in evaluation mode, in float32; (variables, images) -> logits if `variables` is None.

    Convolutions are XLA's own operation, whatever the platform.

    Args:
      module: the net.
      variables: its parameters and statistics.
      mean: if given, images are raw pixels, uint8 (batch, height, width, channels) in RGB, and (pixels / 255 - mean)
        / std is what the net sees; None takes normalized images.
      std: likewise.
      channels: the order in which the net takes the channels: slice(None, None, -1) for BGR.
    """
    module = _in_float32(module)

    def logits(variables: dict, images: jax.Array) -> jax.Array:
        if mean is not None and std is not None:
            images = images[..., ::-1] if channels.step == -1 else images
            images = (images.astype(jnp.float32) / 255 - np.array(mean, np.float32)) / np.array(std, np.float32)
        with plain_lowering():
            return cast(jax.Array, module.apply(variables, images, train=False))

    return logits if variables is None else lambda images: logits(variables, images)


def _in_float32(module: nn.Module) -> nn.Module:
    if isinstance(module, (Net, Stored)):
        return module.clone(model=_in_float32(module.model))
    if isinstance(module, Ensemble):
        return module.clone(members=tuple(map(_in_float32, module.members)))
    return module.clone(dtype=jnp.float32) if isinstance(module, OfDtype) else module


def image_spec(input_shape: tuple[int, int, int], raw: bool) -> jax.ShapeDtypeStruct:
    """Returns shape and type of a batch of any number of images, uint8 if `raw`, otherwise float32.

    Raises:
      UserError: a size is not positive.
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise UserError(f'the input shape is {tuple(input_shape)}; expected (height, width, channels), all at least 1')
    (batch,) = export.symbolic_shape('batch')
    return jax.ShapeDtypeStruct((batch, *input_shape), jnp.uint8 if raw else jnp.float32)
