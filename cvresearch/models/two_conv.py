"""Nets of two convolutions that were published with a result on Fashion-MNIST and described layer by layer.

- `two_conv_tensorflow`: the convolutional net of TensorFlow's tutorial, which Zalando's repository runs
  (zalandoresearch/fashion-mnist, benchmark/convnet.py): 5x5 kernels, 32 and 64 maps, a dense layer of 1,024, dropout
  0.4.
- `two_conv_hardmaru`: the same convolutions and no hidden dense layer (hardmaru/pytorch_notebooks,
  pytorch_tiny_custom_mnist_adam.ipynb).
- `two_conv_cmasch`: 4x4 kernels, the second without padding, batch norm of the image and of the last hidden layer,
  dropout in three places (cmasch/zalando-fashion-mnist, Simple_Convolutional_Neural_Network_Fashion-MNIST.ipynb).

Pitfall: Keras pads a 4x4 kernel by (1, 2), as 'SAME' does here; PyTorch cannot without an explicit padding.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.variant import Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import max_pool
from cvresearch.nn.shapes import require_at_least
from cvresearch.nn.sliding import flatten


class TwoConv(nn.Module):
    """Two convolutions with ReLU and a 2x2 maximum each, then dense layers.

    Attributes:
      widths: maps of the two convolutions.
      kernel: side of their kernels.
      paddings: of the two convolutions, 'SAME' or 'VALID'.
      hidden: widths of the dense layers before the classifier.
      dropouts: rates after the first pooling, the second pooling and the first dense layer.
      norms: whether batch norm stands before the first convolution and before the classifier.
    """

    num_classes: int
    widths: tuple[int, int] = (32, 64)
    kernel: int = 5
    paddings: tuple[str, str] = ('SAME', 'SAME')
    hidden: tuple[int, ...] = ()
    dropouts: tuple[float, float, float] = (0.0, 0.0, 0.0)
    norms: bool = False
    kernel_init: str = 'glorot_uniform'
    bn: NormSpec = NormSpec(momentum=0.99, eps=1e-3)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels), published at 28x28x1, to (batch, num_classes)."""
        require_at_least('TwoConv', x.shape, 2 * (self.kernel + 1))
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, kernel_size=self.kernel, kernel_init=init, dtype=self.dtype)
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)

        x = x.astype(self.dtype)
        if self.norms:
            x = norm(name='image_norm')(x)
        for i, (width, padding) in enumerate(zip(self.widths, self.paddings, strict=True)):
            x = max_pool(nn.relu(conv(width, padding=padding, name=f'conv{i + 1}')(x)), 2, name=f'pool{i + 1}')
            x = nn.Dropout(self.dropouts[i], deterministic=not train)(x)
        x = flatten(x)
        for i, width in enumerate(self.hidden):
            x = nn.relu(dense(width, name=f'hidden{i + 1}')(x))
            if i == 0:
                x = nn.Dropout(self.dropouts[2], deterministic=not train)(x)
        if self.norms:
            x = norm(name='last_norm')(x)
        return dense(self.num_classes, name='head')(x).astype(jnp.float32)


_FASHION = functools.partial(Variant, module=TwoConv, input_shape=(28, 28, 1), num_classes=10)

VARIANTS = {
    'two_conv_cmasch': _FASHION(
        params=493_772,
        macs=9_159_296,
        paper='no paper: cmasch/zalando-fashion-mnist',
        evidence='the notebook: 493,772 trainable; MACs arithmetic: 802,816 + 7,929,856 + 409,600 + 16,384 + 640',
        arguments=dict(
            widths=(64, 64),
            kernel=4,
            paddings=('SAME', 'VALID'),
            hidden=(256, 64),
            dropouts=(0.1, 0.3, 0.5),
            norms=True,
        ),
    ),
    'two_conv_hardmaru': _FASHION(
        params=83_466,
        macs=10_693_760,
        paper='no paper: hardmaru/pytorch_notebooks',
        evidence='arithmetic: 832 + 51,264 + 31,370; MACs 627,200 + 10,035,200 + 31,360',
        arguments=dict(kernel_init='pytorch'),
    ),
    'two_conv_tensorflow': _FASHION(
        params=3_274_634,
        macs=13_883_904,
        paper="no paper: TensorFlow's tutorial, in zalandoresearch/fashion-mnist",
        evidence='arithmetic: 832 + 51,264 + 3,212,288 + 10,250; MACs 627,200 + 10,035,200 + 3,211,264 + 10,240',
        arguments=dict(hidden=(1024,), dropouts=(0.0, 0.0, 0.4)),
    ),
}
