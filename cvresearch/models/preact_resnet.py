"""Pre-activation ResNet. He, Zhang, Ren & Sun 2016, "Identity mappings in deep residual networks",
arXiv:1603.05027, section 3, figure 4e, tables 3 to 5; the structure where the text leaves it open is
as in the authors' code, KaimingHe/resnet-1k-layers and facebookarchive/fb.resnet.torch.

A block is norm, ReLU, convolution, and so on, and nothing follows the addition. Where the number of
channels changes, the shortcut is a projection of the activated input. The first activation comes right
after the first convolution, and the first block goes on from there (the paper's appendix); the last comes
before the global pooling.

Nets of one name differ between sources:
- `resnetv2_50` and the like are the paper's, with the stride in the 3x3 convolution. timm pools first and
  activates then: `norm_in_stem=False`.
- `resnetv2_50_keras` and the like follow keras.applications: also activated after the pooling, the
  stride of a stage in its last block (and in the last three stages of the four, one earlier), biases on
  convolutions that no norm follows, and zeros, not minus infinity, around the map that is pooled: it has
  negative values too.
- The authors' code for 32x32 images takes the stride of a bottleneck in its first 1x1 convolution:
  `stride_first=True`, 3.1 M multiply-adds fewer than counted here. Depth 110, with two 3x3 convolutions
  in a block, exists with projections and as `_a`, with zeros for new channels.

Of each stage all blocks but the first are identical and compiled once (nn/stacked.py).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.channels import zero_padded
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import global_avg_pool, max_pool
from cvresearch.nn.stacked import Repeating


class PreActResNet(Repeating):
    """A stem, stages of pre-activation blocks, a last activation, and a linear classifier.

    Attributes:
      stage_sizes: number of blocks in each stage.
      width: channels out of the first stage; they double with each stage.
      bottleneck: blocks of 1x1, 3x3 and 1x1 convolutions; otherwise of two 3x3.
      small_images: the stem is a 3x3 convolution; otherwise a 7x7 with stride 2, and pooling.
      norm_in_stem: the first activation is before the pooling, not after it.
      stride_first: the stride is in the first convolution of a bottleneck, not in the 3x3.
      late_stride: a stage halves the map in its last block, the last stage not at all; otherwise all
        but the first stage do so in their first block.
      projection: of shortcuts where the number of channels changes; otherwise zeros are appended.
      conv_bias: convolutions that no norm follows have a bias.
      zeros_in_pool: pooling pads the map with zeros.
      zero_init_last: the last convolution of each block starts at zero, and so each block as its
        shortcut. (Not the last norm: through its ReLU no gradient would come back from zero.)
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    width: int = 256
    bottleneck: bool = True
    small_images: bool = False
    norm_in_stem: bool = True
    stride_first: bool = False
    late_stride: bool = False
    projection: bool = True
    conv_bias: bool = False
    zeros_in_pool: bool = False
    zero_init_last: bool = False
    kernel_init: str = 'he_fan_in'
    bn: NormSpec = NormSpec()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) of any size to (batch, num_classes)."""
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, use_bias=False, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        end = functools.partial(conv, use_bias=self.conv_bias)
        last = functools.partial(end, kernel_init=initializer('zeros')) if self.zero_init_last else end
        block = functools.partial(
            Block,
            conv=conv,
            end=end,
            last=last,
            norm=norm,
            act=nn.relu,
            projection=self.projection,
            bottleneck=self.bottleneck,
            stride_first=self.stride_first,
        )

        x = self._stem(x.astype(self.dtype), end, norm)
        stages = len(self.stage_sizes)
        for i, size in enumerate(self.stage_sizes):
            prefix, of_stage = f'stage{i + 1}_block', functools.partial(block, features=self.width * 2**i)
            first, last = (1, 2 if i < stages - 1 else 1) if self.late_stride else (2 if i else 1, 1)
            alike = size if last == 1 else size - 1
            x = of_stage(strides=first, activated=self.norm_in_stem and i == 0, name=f'{prefix}0')(x)
            x = self.repeat(of_stage, prefix, range(1, alike), x)
            if alike < size:
                x = of_stage(strides=last, name=f'{prefix}{alike}')(x)
        x = global_avg_pool(nn.relu(norm(name='last_norm')(x)))
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)

    def _stem(self, x: jax.Array, conv: Callable, norm: Callable) -> jax.Array:
        if self.small_images:
            x = conv(16, 3, padding=1, name='stem_conv')(x)
        else:
            x = conv(64, 7, strides=2, padding=3, name='stem_conv')(x)
        if self.norm_in_stem:
            x = nn.relu(norm(name='stem_norm')(x))
        if self.small_images:
            return x
        if self.zeros_in_pool:
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return max_pool(x, 3, strides=2, padding=0 if self.zeros_in_pool else 1, name='stem_pool')


class Block(nn.Module):
    """Convolutions, each of an activated map, added to the input (figure 4e).

    Attributes:
      features: channels of the output.
      end: makes the projection, which no norm follows.
      last: makes the last convolution, which none follows either.
      activated: the input is already.
    """

    features: int
    conv: Callable
    end: Callable
    last: Callable
    norm: Callable
    act: Callable
    bottleneck: bool
    projection: bool
    stride_first: bool
    strides: int = 1
    activated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, `features`)."""
        y = x if self.activated else self.act(self.norm(name='norm1')(x))
        shortcut = self._shortcut(x, y)
        plan = self._plan()
        for number, (features, size, strides) in enumerate(plan, 1):
            if number > 1:
                y = self.act(self.norm(name=f'norm{number}')(y))
            conv = self.last if number == len(plan) else self.conv
            y = conv(features, size, strides=strides, padding=size // 2, name=f'conv{number}')(y)
        return y + shortcut

    def _plan(self) -> list[tuple[int, int, int]]:
        """Returns (features, kernel size, strides) of the convolutions."""
        if not self.bottleneck:
            return [(self.features, 3, self.strides), (self.features, 3, 1)]
        first, second = (self.strides, 1) if self.stride_first else (1, self.strides)
        return [(self.features // 4, 1, first), (self.features // 4, 3, second), (self.features, 1, 1)]

    def _shortcut(self, x: jax.Array, activated: jax.Array) -> jax.Array:
        if x.shape[-1] != self.features and self.projection:
            return self.end(self.features, 1, strides=self.strides, name='shortcut_conv')(activated)
        return zero_padded(x, self.features, self.strides)


_PAPER = 'He et al. 2016, arXiv:1603.05027'
_TALLY = 'arithmetic, layer by layer'

_BASIC = dict(stage_sizes=(18, 18, 18), width=16, bottleneck=False, small_images=True)
_BOTTLENECK = dict(width=64, small_images=True)
_KERAS = dict(norm_in_stem=False, late_stride=True, conv_bias=True, zeros_in_pool=True)

_SMALL = functools.partial(Variant, module=PreActResNet, input_shape=(32, 32, 3), num_classes=10)
_LARGE = functools.partial(
    Variant, module=PreActResNet, input_shape=(224, 224, 3), num_classes=1000, paper=f'{_PAPER}, table 5'
)

# Blocks by stage; parameters and multiply-adds as timm has the net, and as Keras has it.
_IMAGENET = {
    50: ((3, 4, 6, 3), (25_549_352, 4_089_184_256), (25_568_360, 3_482_255_360)),
    101: ((3, 4, 23, 3), (44_541_480, 7_801_405_440), (44_577_896, 7_194_476_544)),
    152: ((3, 8, 36, 3), (60_185_128, 11_513_626_624), (60_236_904, 10_906_697_728)),
}

VARIANTS = {
    'preact_resnet110_cifar10': _SMALL(
        arguments=_BASIC, params=1_730_522, macs=253_149_824, paper=f'{_PAPER}, table 3',
        evidence=f'{_TALLY}, with 1x1 projections',
    ),
    'preact_resnet110_a_cifar10': _SMALL(
        arguments=dict(**_BASIC, projection=False), params=1_727_962, macs=252_887_680, paper=f'{_PAPER}, table 3',
        evidence=f'{_TALLY}, with option A: the layers of the ResNet-110 of 2015',
    ),
    'preact_resnet164_cifar10': _SMALL(
        arguments=dict(**_BOTTLENECK, stage_sizes=(18, 18, 18)), params=1_703_258, macs=247_646_720,
        paper=f'{_PAPER}, table 4', evidence=f'{_TALLY}; the paper has 1.7 M',
    ),
    'preact_resnet1001_cifar10': _SMALL(
        arguments=dict(**_BOTTLENECK, stage_sizes=(111, 111, 111)), params=10_327_706, macs=1_490_995_712,
        paper=f'{_PAPER}, table 4', evidence=f'{_TALLY}, with a projection in each stage; the paper has 10.2 M',
    ),
    'resnetv2_200': _LARGE(
        arguments=dict(stage_sizes=(3, 24, 36, 3)), params=64_666_152, macs=15_007_481_856, evidence=_TALLY
    ),
}  # fmt: skip
for _depth, (_sizes, _timm_counts, _keras_counts) in _IMAGENET.items():
    VARIANTS[f'resnetv2_{_depth}'] = _LARGE(
        arguments=dict(stage_sizes=_sizes),
        params=_timm_counts[0],
        macs=_timm_counts[1],
        evidence='timm 1.0.31, measured: parameters, and forward hooks on convolutions and linear layers',
    )
    VARIANTS[f'resnetv2_{_depth}_keras'] = _LARGE(
        arguments=dict(stage_sizes=_sizes, **_KERAS),
        params=_keras_counts[0],
        macs=_keras_counts[1],
        evidence='keras 3.15.1, measured: trainable parameters and multiply-adds',
    )

_TIMM = Names(
    {'stem_conv': 'stem.conv', 'last_norm': 'norm', 'head': 'head.fc'},
    within(
        'stage{i}_block{j}/',
        'stages.{i-1}.blocks.{j}.',
        {
            'conv{n}': 'conv{n}',
            'norm{n}': 'norm{n}',
            'shortcut_conv': 'downsample.conv',
        },
    ),
)
_KERAS_NAMES = Names(
    {'stem_conv': 'conv1_conv', 'last_norm': 'post_bn', 'head': 'predictions'},
    within(
        'stage{i}_block{j}/',
        'conv{i+1}_block{j+1}_',
        {
            'conv{n}': '{n}_conv',
            'norm1': 'preact_bn',
            'norm{n}': '{n-1}_bn',
            'shortcut_conv': '0_conv',
        },
    ),
)

REFERENCES = {
    **{
        f'timm/resnetv2_{depth}': Reference(
            f'resnetv2_{depth}',
            _TIMM,
            dict(norm_in_stem=False, bn_unbiased=True),
            as_convolution=('head',),
            input_shape=(64, 64, 3),
        )
        for depth in _IMAGENET
    },
    **{
        f'keras/ResNet{depth}V2': Reference(
            f'resnetv2_{depth}_keras',
            _KERAS_NAMES,
            dict(bn_eps=1.001e-5, bn_momentum=0.99),
            input_shape=(64, 64, 3),
            published=((r'probs/(.*)', r'predictions/\1'),),  # as keras-applications 1.0 named it
        )
        for depth in _IMAGENET
    },
}
