"""BN-Inception, or Inception-v2. Ioffe & Szegedy 2015, "Batch normalization: accelerating deep
network training by reducing internal covariate shift", ICML, arXiv:1502.03167, section 4.2 and
figure 5. A GoogLeNet with two 3x3 kernels for the 5x5, reductions inside modules 3c and 4e,
average pooling in most modules, and neither response normalization nor dropout.

- `inception_v2`, the paper's: the first convolution is separable, a 7x7 with 8 maps for each
  channel and a 1x1; 96 features after the pooling of 4c and 4d. TF-slim calls it so.
- `inception_v2_plain_stem`: the same with a plain 7x7 convolution.
- `bn_inception`: as in Caffe and its PyTorch port (Cadene's bninception): plain stem, biases
  before batch norm, 128 features after the pooling of 4c and 4d, eps 1e-5, Caffe's padding.

Pitfalls: "Inception-v2" is also a net of the Inception-v3 paper (see inception_v3.py). With
Caffe's padding a strided convolution rounds up as the pooling beside it does only where the
maps have even sizes. Caffe's average pooling counts the padding, TensorFlow's does not.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import UserError
from cvresearch.models.variant import Variant
from cvresearch.nn.channels import require_channels
from cvresearch.nn.conv import Conv
from cvresearch.nn.inception import ConvBN, Inception, halve
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import avg_pool, global_avg_pool, max_pool

# Figure 5: features of 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3; pooling, projection.
# Modules without a 1x1 halve the grid. The projection of 4c and 4d is a choice (None).
STAGES = (
    ((64, 64, 64, 64, 96, 'avg', 32), (64, 64, 96, 64, 96, 'avg', 64), (0, 128, 160, 64, 96, 'halve', 0)),
    (
        (224, 64, 96, 96, 128, 'avg', 128),
        (192, 96, 128, 96, 128, 'avg', 128),
        (160, 128, 160, 128, 160, 'avg', None),
        (96, 128, 192, 160, 192, 'avg', None),
        (0, 128, 192, 192, 256, 'halve', 0),
    ),
    ((352, 192, 320, 160, 224, 'avg', 128), (352, 192, 320, 192, 224, 'max', 128)),
)


def module(widths: tuple, projection: int) -> tuple:
    """Returns the branches of a module, given a row of `STAGES` and the projection of 4c and 4d."""
    ones, reduce, threes, double_reduce, doubles, pool, projected = widths
    strides = 1 if ones else 2
    branches = (
        ((reduce, 1), (threes, 3, strides)),
        ((double_reduce, 1), (doubles, 3), (doubles, 3, strides)),
    )
    if not ones:
        return *branches, (pool,)
    return ((ones, 1),), *branches, (pool, (projection if projected is None else projected, 1))


class BNInception(nn.Module):
    """BN-Inception.

    Attributes:
      num_classes: number of logits.
      separable_stem: the first convolution is separable.
      projection: features after the pooling of modules 4c and 4d.
      conv_bias: convolutions have biases, which batch norm undoes.
      count_include_pad: average pooling counts the padding.
      padding: 'SAME' as TensorFlow; 'torch' (and Caffe): half the kernel on every side, sizes
        after pooling rounded up.
      bn_scale: batch norm has gammas; TF-slim's has none.
    """

    num_classes: int
    separable_stem: bool = True
    projection: int = 96
    conv_bias: bool = False
    count_include_pad: bool = False
    padding: str = 'SAME'
    dropout: float = 0.0
    bn_scale: bool = True
    bn: NormSpec = NormSpec(eps=1e-3)
    kernel_init: str = 'he_normal'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, num_classes).

        Raises:
          UserError: with padding 'torch', images whose branches cannot be concatenated.
        """
        image = x.shape[1:]
        init = initializer(self.kernel_init)
        plain = functools.partial(Conv, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype, use_scale=self.bn_scale)
        conv = functools.partial(
            ConvBN, padding=self.padding, conv=functools.partial(plain, use_bias=self.conv_bias), norm=norm
        )
        window = dict(window=3, strides=1, padding='SAME')
        pools = dict(
            avg=functools.partial(avg_pool, **window, count_include_pad=self.count_include_pad),
            max=functools.partial(max_pool, **window),
            halve=functools.partial(halve, padding=self.padding),
        )

        x = x.astype(self.dtype)
        if self.separable_stem:
            maps = x.shape[-1]
            if self.has_variable('params', 'stem_depthwise'):
                kernel = self.get_variable('params', 'stem_depthwise')['kernel']
                require_channels('BN-Inception', maps, kernel.shape[-1] // 8)
            padding = 3 if self.padding == 'torch' else self.padding
            x = plain(8 * maps, 7, 2, padding, groups=maps, use_bias=False, name='stem_depthwise')(x)
            x = conv(64, 1, name='stem_conv1')(x)
        else:
            x = conv(64, 7, 2, name='stem_conv1')(x)
        x = pools['halve'](x, name='stem_pool1')
        x = conv(64, 1, name='stem_conv2')(x)
        x = conv(192, 3, name='stem_conv3')(x)
        x = pools['halve'](x, name='stem_pool2')
        if self.padding == 'torch' and (x.shape[1] % 4 or x.shape[2] % 4 or 0 in x.shape):
            raise UserError(
                f'BN-Inception with padding {self.padding!r} got images of {image[0]}x{image[1]}x{image[2]}, '
                "expected sides that are multiples of 32; or padding='SAME'"
            )
        for i, stage in enumerate(STAGES, 1):
            for j, widths in enumerate(stage):
                x = Inception(module(widths, self.projection), conv, pools, name=f'stage{i}_block{j}')(x)
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


_FACTS = functools.partial(
    Variant,
    module=BNInception,
    input_shape=(224, 224, 3),
    num_classes=1000,
    paper='Ioffe & Szegedy 2015, arXiv:1502.03167',
)
VARIANTS = {
    'inception_v2': _FACTS(
        params=11_188_288,
        macs=1_934_857_216,
        evidence='arithmetic, layer by layer; separable stem of the paper and TF-slim',
    ),
    'inception_v2_plain_stem': _FACTS(
        params=11_194_984,
        macs=2_018_851_840,
        arguments=dict(separable_stem=False),
        evidence='arithmetic, layer by layer',
    ),
    'bn_inception': _FACTS(
        params=11_295_240,
        macs=2_032_600_064,
        evidence="arithmetic, layer by layer; = Cadene's bninception",
        arguments=dict(
            separable_stem=False, projection=128, conv_bias=True, count_include_pad=True, padding='torch', bn_eps=1e-5
        ),
    ),
}
