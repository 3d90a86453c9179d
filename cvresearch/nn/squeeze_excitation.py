"""Squeeze-and-excitation. Hu et al. 2017, "Squeeze-and-excitation networks", arXiv:1709.01507, section 3."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvresearch.base.arrays import Images
from cvresearch.nn.remat import kept


def squeeze_excitation(
    x: Images, reduce: Callable, expand: Callable, act: Callable = nn.relu
) -> Float[Array, 'batch height width channels']:
    """Weighs the channels of a map by what all of the map shows (figure 1).

    Args:
      x: (batch, height, width, channels).
      reduce: layer from (batch, 1, 1, channels) to (batch, 1, 1, hidden): dense, or a 1x1 convolution.
      expand: layer back to (batch, 1, 1, channels).
      act: between the two.

    Returns:
      (batch, height, width, channels), the channels times 0 to 1.
    """
    with jax.named_scope('squeeze'):
        means = kept(jnp.mean(x, axis=(1, 2)))[:, None, None, :]
    return x * kept(nn.sigmoid(expand(act(reduce(means)))))


class SqueezeExcitation(nn.Module):
    """The same with its two layers, fc1 and fc2.

    Attributes:
      reduction: channels by features of fc1.
      layer: makes a layer, given its features and its name.
    """

    reduction: int
    layer: Callable

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, 'batch height width channels']:
        """Maps (batch, height, width, channels) to the same shape."""
        channels = x.shape[-1]
        reduce, expand = self.layer(channels // self.reduction, name='fc1'), self.layer(channels, name='fc2')
        return squeeze_excitation(x, reduce, expand)
