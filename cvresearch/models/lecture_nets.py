"""Three small nets from G. Boracchi's lectures on image classification (Politecnico di Milano).

- `cnn_flattening` and `cnn_gap`: three convolutions, then a hidden dense layer after flattening or
  after global averaging. Trained on MNIST digits in the middle of 64x64 black images, both reach
  99.3 %; on shifted digits the lecture reports 11.0 % for the first and 99.1 % for the second, as
  averaging forgets where a digit was.
- `toy_inception`: one inception module of four branches. The lecture's code shows three of them;
  its summary, followed here, lists all.
The lectures print layers and parameters; what they leave open (initialisation, no dropout) is as
Keras has it.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.variant import Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.pool import global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least, require_size
from cvresearch.nn.sliding import flatten


class SmallCNN(nn.Module):
    """Three 3x3 convolutions, pooling between them, and two dense layers.

    Attributes:
      gap: average the last map over the image; else pool once more and flatten, which ties the net
        to 64x64.
    """

    num_classes: int
    gap: bool = True
    kernel_init: str = 'glorot_uniform'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, 64, 64, channels), other sizes with `gap`, to (batch, num_classes)."""
        if self.gap:
            require_at_least('CNN-GAP', x.shape, 18)
        else:
            require_size('CNN-flattening', x.shape, (64,))
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, kernel_size=3, padding='VALID', kernel_init=init, dtype=self.dtype)
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)

        x = nn.relu(conv(32, name='conv1')(x.astype(self.dtype)))
        x = max_pool(x, 2, name='pool1')
        x = nn.relu(conv(64, name='conv2')(x))
        x = max_pool(x, 2, name='pool2')
        x = nn.relu(conv(128, name='conv3')(x))
        x = global_avg_pool(x) if self.gap else flatten(max_pool(x, 2, name='pool3'))
        x = nn.relu(dense(64, name='hidden')(x))
        return dense(self.num_classes, name='head')(x).astype(jnp.float32)


class ToyInception(nn.Module):
    """A convolution, one inception module of 4 x 32 maps, global averaging, a dense layer."""

    num_classes: int
    kernel_init: str = 'glorot_uniform'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, num_classes)."""
        require_at_least('toy inception', x.shape, 2)
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, kernel_init=init, dtype=self.dtype)

        def layer(x: jax.Array, width: int, kernel: int, name: str) -> jax.Array:
            return nn.relu(conv(width, kernel, name=name)(x))

        x = max_pool(layer(x.astype(self.dtype), 32, 3, 'stem'), 2, name='pool1')
        branches = [
            layer(x, 32, 1, 'stage1_block0_branch1'),
            layer(layer(x, 64, 1, 'stage1_block0_branch2_reduce'), 32, 3, 'stage1_block0_branch2'),
            layer(layer(x, 64, 1, 'stage1_block0_branch3_reduce'), 32, 5, 'stage1_block0_branch3'),
            layer(max_pool(x, 3, 1, 'SAME', name='stage1_block0_pool'), 32, 1, 'stage1_block0_branch4'),
        ]
        x = global_avg_pool(jnp.concatenate(branches, axis=-1))
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


_LECTURE = functools.partial(Variant, num_classes=10, paper='no paper: lectures of G. Boracchi, Politecnico di Milano')

VARIANTS = {
    'cnn_flattening': _LECTURE(
        module=SmallCNN, input_shape=(64, 64, 1), params=388_298, macs=27_520_768,
        evidence='lecture: 388,298, confirmed layer by layer; MACs arithmetic', arguments=dict(gap=False),
    ),
    'cnn_gap': _LECTURE(
        module=SmallCNN, input_shape=(64, 64, 1), params=101_578, macs=27_234_048,
        evidence='lecture: 101,578, confirmed layer by layer; MACs arithmetic',
    ),
    'toy_inception': _LECTURE(
        module=ToyInception, input_shape=(32, 32, 3), params=78_218, macs=20_284_672,
        evidence='lecture, row by row: 896 + 2,112 + 2,112 + 1,056 + 18,464 + 51,232 + 1,056 + 1,290; MACs arithmetic',
    ),
}  # fmt: skip
