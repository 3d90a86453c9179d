"""What several papers do to channels that has no parameters: count them, shuffle them, append zeros."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cvresearch.base.arrays import JaxArray
from cvresearch.base.errors import UserError


def scaled_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Returns a number of channels under a width multiplier, as MobileNetV2, MnasNet and EfficientNet round it.

    The nearest multiple of `divisor`, or the next one where that would lose more than a tenth
    (tensorflow/models, research/slim/nets/mobilenet, `_make_divisible`).
    """
    wanted = channels * width
    nearest = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * wanted else nearest + divisor


def channel_shuffle(x: Float[JaxArray, '*batch channels'], groups: int) -> Float[JaxArray, '*batch channels']:
    """Returns (..., channels) with the groups interleaved: 8 channels of 2 groups as 0 4 1 5 2 6 3 7.

    Zhang et al. 2018, arXiv:1707.01083, section 3.1.
    """
    return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)


def zero_padded(
    x: Float[JaxArray, 'batch height width own'], channels: int, strides: int
) -> Float[Array, 'batch _ _ {channels}']:
    """Returns every `strides`-th pixel, with zeros for the channels that x lacks, after its own.

    The shortcut without parameters, option A of He et al. 2015, arXiv:1512.03385, section 3.3; where
    the zeros go the paper leaves open.

    Args:
      x: (batch, height, width, at most `channels`).
      channels: of the result.
      strides: between the pixels that are kept.

    Returns:
      (batch, ceil(height / strides), ceil(width / strides), channels).
    """
    missing = channels - x.shape[-1]
    return jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (0, missing)))


def require_channels(layer: str, got: int, expected: int) -> None:
    """Raises UserError unless a layer got as many channels as its parameters are for."""
    if got != expected:
        raise UserError(f'{layer} got {got} channels, expected {expected}, as its parameters have them')
