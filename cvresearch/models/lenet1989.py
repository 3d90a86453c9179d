"""The zip-code net. LeCun et al. 1989, "Backpropagation applied to handwritten zip code recognition",
Neural Computation 1(4), section 3.2: the first LeNet, which lectures show under the title LeNet-5.

1,256 units, 64,660 connections, 9,760 free parameters. Kernels are shared within a map, biases are
not: each unit has its own. What a kernel sees beyond the border is the background, -1, in both
layers. No pooling: the convolutions move by two.

Not in the paper: which 8 of the 12 maps of H1 each map of H2 sees ("a scheme that will not be
described here"). Here the first four see maps 0 to 7, the next 4 to 11, the last 8 to 11 and 0 to 3,
as in A. Karpathy's reproduction of 2022. Nor are the constants of its scaled tanh; they are taken
from LeCun 1989, "Generalization and network design strategies".
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.models.variant import Variant
from cvresearch.nn.activations import squash
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.shapes import require_size


class LeNet1989(nn.Module):
    """H1 (12 maps of 8x8), H2 (12 maps of 4x4), H3 (30 units) and the output units.

    Attributes:
      squash_head: squash the output units too, as the paper does for its squared error with
        targets of +-1; False suits a softmax.
    """

    num_classes: int
    squash_head: bool = True
    kernel_init: str = 'lecun_1998'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, 16, 16, 1), -1 (background) to 1 (ink), to (batch, num_classes)."""
        require_size('the zip-code net', x.shape, (16,))
        init = initializer(self.kernel_init)
        maps = functools.partial(Maps, conv=functools.partial(Conv, kernel_init=init, dtype=self.dtype))
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)

        x = squash(maps(name='H1')(x.astype(self.dtype)))
        x = squash(maps(name='H2', groups=3)(x[..., SEEN_BY_H2]))
        x = squash(dense(30, name='H3')(x.reshape(x.shape[0], -1)))
        x = dense(self.num_classes, name='head')(x)
        return (squash(x) if self.squash_head else x).astype(jnp.float32)


# Maps of H1 that each third of H2 sees, one third after the other.
SEEN_BY_H2 = np.concatenate([np.arange(first, first + 8) % 12 for first in (0, 4, 8)])


class Maps(nn.Module):
    """Twelve maps: 5x5 kernels that move by two pixels, and a bias for every unit."""

    conv: functools.partial
    groups: int = 1
    background: float = -1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / 2, width / 2, 12)."""
        x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=self.background)
        x = self.conv(12, 5, 2, 'VALID', groups=self.groups, use_bias=False, name='shared')(x)
        return x + self.param('bias', nn.initializers.zeros_init(), x.shape[1:], jnp.float32).astype(x.dtype)


VARIANTS = {
    'lenet_1989': Variant(
        module=LeNet1989,
        input_shape=(16, 16, 1),
        num_classes=10,
        params=9_760,
        macs=63_660,
        paper='LeCun et al. 1989, Neural Computation 1(4)',
        evidence='paper: H1 1,068 + H2 2,592 + H3 5,790 + output 310; MACs: its 64,660 connections less 1,000 biases',
    ),
}
