"""Depthwise separable convolution, as Xception and NASNet have it: one layer, with nothing between its halves."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cvresearch.base.arrays import Images


class SeparableConv(nn.Module):
    """A convolution of each channel by itself, then a 1x1 convolution across them.

    Chollet 2016, arXiv:1610.02357, section 2. (MobileNet's has batch norm and ReLU after each half.)

    Attributes:
      conv: makes a convolution layer without bias.
      between: activation between the two, if any.
    """

    features: int
    conv: Callable
    kernel_size: int = 3
    strides: int = 1
    between: Callable | None = None

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, 'batch _ _ _']:
        """Maps (batch, height, width, channels) to (batch, ceil(height / strides), ..., features)."""
        channels = x.shape[-1]
        x = self.conv(channels, self.kernel_size, strides=self.strides, groups=channels, name='depthwise')(x)
        x = self.between(x) if self.between else x
        return self.conv(self.features, 1, name='pointwise')(x)
