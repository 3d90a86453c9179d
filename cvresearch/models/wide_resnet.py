"""Wide residual nets for 32x32 images. Zagoruyko & Komodakis 2016, "Wide residual networks",
arXiv:1605.07146, section 2 and table 1.

Few pre-activation blocks of two 3x3 convolutions, `widen` times as wide as He et al.'s. Where the number of
channels changes, the shortcut is a 1x1 convolution of the activated input, with no norm after it. Dropout, if
any, is between the convolutions of a block (section 2.4: 0.3 on CIFAR). WRN-50-2-bottleneck, for ImageNet, is
a ResNet-50 with a wider 3x3 and stands there.

Of each group all blocks but the first are identical and compiled once (nn/stacked.py).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import UserError
from cvresearch.models.variant import Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import global_avg_pool
from cvresearch.nn.stacked import Repeating


class WideResNet(Repeating):
    """WRN-`depth`-`widen` (table 1).

    Attributes:
      depth: 6n + 4, for n blocks in each of three groups.
      widen: factor to the widths 16, 32 and 64.
      dropout: rate, between the convolutions of a block.
      zero_init_last: the last convolution of each block starts at zero, and so each block as its
        shortcut. (Not the last norm: through its ReLU no gradient would come back from zero.)
    """

    num_classes: int
    depth: int
    widen: int
    dropout: float = 0.0
    zero_init_last: bool = False
    kernel_init: str = 'he_fan_in'
    bn: NormSpec = NormSpec()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels), in the paper 32x32x3, to (batch, num_classes)."""
        size, rest = divmod(self.depth - 4, 6)
        if rest or size < 1:
            raise UserError(f'WideResNet got depth {self.depth}, expected 6n + 4')
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, use_bias=False, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        last = functools.partial(conv, kernel_init=initializer('zeros')) if self.zero_init_last else conv
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)

        x = conv(16, 3, padding=1, name='stem_conv')(x.astype(self.dtype))
        for i in range(3):
            prefix = f'stage{i + 1}_block'
            block = functools.partial(
                WideBlock, 16 * 2**i * self.widen, conv=conv, last=last, norm=norm, act=nn.relu, drop=drop
            )
            x = block(strides=2 if i else 1, name=f'{prefix}0')(x)
            x = self.repeat(block, prefix, range(1, size), x)
        x = global_avg_pool(nn.relu(norm(name='last_norm')(x)))
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class WideBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice, added to the input; figure 1d."""

    features: int
    conv: Callable
    last: Callable
    norm: Callable
    act: Callable
    drop: Callable
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, `features`)."""
        y = self.act(self.norm(name='norm1')(x))
        if x.shape[-1] != self.features:
            x = self.conv(self.features, 1, strides=self.strides, name='shortcut_conv')(y)
        elif self.strides > 1:
            x = x[:, :: self.strides, :: self.strides]
        y = self.conv(self.features, 3, strides=self.strides, padding=1, name='conv1')(y)
        y = self.drop(name='drop')(self.act(self.norm(name='norm2')(y)))
        return x + self.last(self.features, 3, padding=1, name='conv2')(y)


# (Depth, widening): parameters, multiply-adds at 32x32 with 10 classes, parameters in the paper.
_NETS = {
    (16, 8): (10_961_370, 1_548_145_664, '11.0 M'),
    (28, 10): (36_479_194, 5_243_328_768, '36.5 M'),
    (40, 4): (8_949_210, 1_298_582_016, '8.9 M'),
}

VARIANTS = {
    f'wide_resnet{depth}_{widen}_cifar10': Variant(
        module=WideResNet,
        arguments=dict(depth=depth, widen=widen),
        input_shape=(32, 32, 3),
        num_classes=10,
        params=params,
        macs=macs,
        paper='Zagoruyko & Komodakis 2016, arXiv:1605.07146',
        evidence=f'arithmetic, layer by layer; the paper has {in_paper}',
    )
    for (depth, widen), (params, macs, in_paper) in _NETS.items()
}
