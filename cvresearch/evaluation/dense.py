"""Dense evaluation of any net: logits at every position of a larger image, from one pass.

Logits at a position equal the crop's there exactly where no padding is between: in nets without any (LeNet-5,
CNN-GAP). A padded convolution sees zeros beyond the border of a crop, and the rest of the image in dense evaluation:
there the two differ by that alone, in AlexNet, VGG and ResNet as the papers ran them. What is equal in all nets is the
head: its logits at a position equal the original head's on that window of the last map.
"""

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import UserError
from cvresearch.nn import sliding


def window(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Returns the (height, width) of the last map for an image of the net's own size.

    Raises:
      UserError: the net has no such map, or its first dense layer cannot slide.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # By tracing, which asks the net itself and computes nothing.
    with sliding.measuring() as seen:
        jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), images)
    if not seen:
        raise UserError(
            f'{type(model).__name__} has no dense form: it neither averages its last map nor flattens it for a dense '
            'layer; use a protocol of crops'
        )
    return seen[-1]


def logit_map(model: nn.Module, image_shape: tuple[int, int, int]) -> Callable[[dict, jax.Array], jax.Array]:
    """Returns the net as a convolution.

    Args:
      model: with a dense head after a flattened map, or after global average pooling. Its dense layers are converted.
      image_shape: (height, width, channels) of the images that the head was made for.

    Returns:
      (variables, images (batch, height, width, channels)) -> logits, float32 (batch, rows, columns, classes).

    Raises:
      UserError: see `window`.
    """
    size = window(model, image_shape)

    def apply(variables: dict, images: jax.Array) -> jax.Array:
        with sliding.sliding(size):
            return cast(jax.Array, model.apply(variables, images, train=False))

    return apply
