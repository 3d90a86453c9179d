"""ResNet. He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition", arXiv:1512.03385,
sections 3 and 4.1, table 1 and figures 2, 3 and 5. And two papers that change its bottleneck only:
- Xie et al. 2016, "Aggregated residual transformations for deep neural networks", arXiv:1611.05431,
  table 1: ResNeXt, whose 3x3 convolution is in groups;
- Zagoruyko & Komodakis 2016, "Wide residual networks", arXiv:1605.07146: WRN-50-2-bottleneck, whose
  3x3 convolution has twice the channels.

Nets of one name differ between sources:
- `resnet50_v1` is the paper's: a bottleneck takes its stride in the first 1x1 convolution (3.86 G
  multiply-adds; also Caffe and Keras). `resnet50`, called v1.5, takes it in the 3x3 (4.09 G; also
  torchvision, timm and fb.resnet.torch). Their weights have equal shapes, so that the weights of one
  load into the other without a complaint, and give poor predictions.
- Shortcuts where the shape changes are zeros appended in the `_a` variants and projections (option B)
  in the rest; `_c` projects everywhere. `plain18` and `plain34` have no shortcuts.
- `zero_init_last` is not in the paper but in Goyal et al. 2017, arXiv:1706.02677, section 5.1.

Convolutions have no bias, since the batch norm after each would take it away again. Keras's have:
`conv_bias` is for its weights.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import lookup
from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.channels import zero_padded
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import global_avg_pool, max_pool


class ResNet(nn.Module):
    """A stem, four stages of blocks, and a linear classifier (table 1).

    Attributes:
      stage_sizes: number of blocks in each stage.
      block: `BasicBlock`, `Bottleneck`, or a partial of the latter.
      shortcut: name of an entry in SHORTCUTS.
      zero_init_last: the last norm of each block starts at zero, and so each block as its shortcut
        (of no use to plain nets, through which nothing would pass).
      conv_bias: convolutions have a bias.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    block: Callable
    shortcut: str = 'B'
    zero_init_last: bool = False
    conv_bias: bool = False
    kernel_init: str = 'he_fan_in'
    bn: NormSpec = NormSpec()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) of any size to (batch, num_classes)."""
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, use_bias=self.conv_bias, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        last_init = nn.initializers.zeros_init() if self.zero_init_last else nn.initializers.ones_init()
        shortcut = functools.partial(lookup('shortcut', SHORTCUTS, self.shortcut), conv=conv, norm=norm)
        block = functools.partial(
            self.block,
            conv=conv,
            norm=norm,
            last_norm=functools.partial(norm, scale_init=last_init),
            act=nn.relu,
            shortcut=shortcut,
        )

        x = conv(64, 7, strides=2, padding=3, name='stem_conv')(x.astype(self.dtype))
        x = nn.relu(norm(name='stem_norm')(x))
        x = max_pool(x, 3, strides=2, padding=1, name='stem_pool')
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                strides = 2 if i > 0 and j == 0 else 1
                x = block(64 * 2**i, strides, name=f'stage{i + 1}_block{j}')(x)
        x = global_avg_pool(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left)."""

    width: int
    strides: int
    conv: Callable
    norm: Callable
    last_norm: Callable
    act: Callable
    shortcut: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, `width`)."""
        y = self.conv(self.width, 3, strides=self.strides, padding=1, name='conv1')(x)
        y = self.act(self.norm(name='norm1')(y))
        y = self.conv(self.width, 3, padding=1, name='conv2')(y)
        y = self.last_norm(name='norm2')(y)
        return self.act(y + self.shortcut(x, self.width, self.strides))


class Bottleneck(nn.Module):
    """A 1x1 convolution that narrows, a 3x3, and a 1x1 that widens (figure 5, right).

    Attributes:
      stride_first: the stride is in the first convolution, as in the paper, not in the second.
      groups: of the 3x3 convolution; ResNeXt's cardinality.
      group_width: channels of each group in the first stage; they double with each stage.
    """

    width: int
    strides: int
    conv: Callable
    norm: Callable
    last_norm: Callable
    act: Callable
    shortcut: Callable
    stride_first: bool = False
    groups: int = 1
    group_width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, 4 * `width`)."""
        inner, outer = self.groups * self.group_width * self.width // 64, 4 * self.width
        first, second = (self.strides, 1) if self.stride_first else (1, self.strides)
        y = self.conv(inner, 1, strides=first, name='conv1')(x)
        y = self.act(self.norm(name='norm1')(y))
        y = self.conv(inner, 3, strides=second, padding=1, groups=self.groups, name='conv2')(y)
        y = self.act(self.norm(name='norm2')(y))
        y = self.conv(outer, 1, name='conv3')(y)
        y = self.last_norm(name='norm3')(y)
        return self.act(y + self.shortcut(x, outer, self.strides))


def appended(x: jax.Array, features: int, strides: int, conv: Callable, norm: Callable) -> jax.Array:
    """Option A: every second pixel, and zeros for the channels that x lacks. No parameters."""
    return zero_padded(x, features, strides)


def projected(x: jax.Array, features: int, strides: int, conv: Callable, norm: Callable) -> jax.Array:
    """Option C: a 1x1 convolution, always."""
    return norm(name='shortcut_norm')(conv(features, 1, strides=strides, name='shortcut_conv')(x))


def projected_where_needed(x: jax.Array, features: int, strides: int, conv: Callable, norm: Callable) -> jax.Array:
    """Option B: x itself, a 1x1 convolution only where the block changes the shape."""
    if strides == 1 and features == x.shape[-1]:
        return x
    return projected(x, features, strides, conv, norm)


def absent(x: jax.Array, features: int, strides: int, conv: Callable, norm: Callable) -> float:
    """A plain net has none (figure 3, middle)."""
    return 0.0


# Section 4.1, "Identity vs. projection shortcuts".
SHORTCUTS = {'A': appended, 'B': projected_where_needed, 'C': projected, 'none': absent}

# Table 1.
STAGE_SIZES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

V1 = functools.partial(Bottleneck, stride_first=True)


def _resnext(groups: int, group_width: int) -> Callable:
    return functools.partial(Bottleneck, groups=groups, group_width=group_width)


_HE = 'He et al. 2015, arXiv:1512.03385'
_ZAGORUYKO = 'Zagoruyko & Komodakis 2016, arXiv:1605.07146'
_XIE = 'Xie et al. 2016, arXiv:1611.05431'
_MAHAJAN = 'Mahajan et al. 2018, arXiv:1805.00932'
_TALLY = 'arithmetic, layer by layer'
_TORCHVISION = 'torchvision 0.28.0, measured: parameters, and forward hooks on convolutions and linear layers'
_TIMM = 'timm 1.0.31, measured: parameters, and forward hooks on convolutions and linear layers'


def _variant(depth: int, block: Callable, params: int, macs: int, evidence: str, paper: str = _HE, **arguments):
    return Variant(
        module=ResNet,
        arguments=dict(stage_sizes=STAGE_SIZES[depth], block=block, **arguments),
        input_shape=(224, 224, 3),
        num_classes=1000,
        params=params,
        macs=macs,
        paper=paper,
        evidence=evidence,
    )


VARIANTS = {
    'plain18': _variant(18, BasicBlock, 11_515_688, 1_794_805_760, _TALLY, shortcut='none'),
    'plain34': _variant(34, BasicBlock, 21_623_848, 3_644_493_824, _TALLY, shortcut='none'),
    'resnet18_a': _variant(18, BasicBlock, 11_515_688, 1_794_805_760, _TALLY, shortcut='A'),
    'resnet18': _variant(18, BasicBlock, 11_689_512, 1_814_073_344, _TORCHVISION),
    'resnet34_a': _variant(34, BasicBlock, 21_623_848, 3_644_493_824, _TALLY, shortcut='A'),
    'resnet34': _variant(34, BasicBlock, 21_797_672, 3_663_761_408, _TORCHVISION),
    'resnet34_c': _variant(34, BasicBlock, 22_716_840, 3_830_747_136, _TALLY, shortcut='C'),
    'resnet50_v1': _variant(50, V1, 25_557_032, 3_857_973_248, _TALLY),
    'resnet101_v1': _variant(101, V1, 44_549_160, 7_570_194_432, _TALLY),
    'resnet152_v1': _variant(152, V1, 60_192_808, 11_282_415_616, _TALLY),
    'resnet50': _variant(50, Bottleneck, 25_557_032, 4_089_184_256, _TORCHVISION),
    'resnet101': _variant(101, Bottleneck, 44_549_160, 7_801_405_440, _TORCHVISION),
    'resnet152': _variant(152, Bottleneck, 60_192_808, 11_513_626_624, _TORCHVISION),
    'wide_resnet50_2': _variant(50, _resnext(1, 128), 68_883_240, 11_398_021_120, _TORCHVISION, _ZAGORUYKO),
    'wide_resnet101_2': _variant(
        101, _resnext(1, 128), 126_886_696, 22_753_050_624, _TORCHVISION, f'torchvision, after {_ZAGORUYKO}'
    ),
    'resnext50_32x4d': _variant(50, _resnext(32, 4), 25_028_904, 4_230_479_872, _TORCHVISION, _XIE),
    'resnext101_32x4d': _variant(101, _resnext(32, 4), 44_177_704, 7_969_996_800, _TIMM, _XIE),
    'resnext101_64x4d': _variant(101, _resnext(64, 4), 83_455_272, 15_460_270_080, _TORCHVISION, _XIE),
    'resnext101_32x8d': _variant(101, _resnext(32, 8), 88_791_336, 16_414_015_488, _TORCHVISION, _MAHAJAN),
    'resnext101_32x16d': _variant(101, _resnext(32, 16), 194_026_792, 36_163_289_088, _TIMM, _MAHAJAN),
    'resnext101_32x32d': _variant(101, _resnext(32, 32), 468_530_472, 87_106_781_184, _TIMM, _MAHAJAN),
}  # fmt: skip


TORCH = Names(
    {'stem_conv': 'conv1', 'stem_norm': 'bn1', 'head': 'fc'},
    within(
        'stage{i}_block{j}/',
        'layer{i}.{j}.',
        {
            'conv{n}': 'conv{n}',
            'norm{n}': 'bn{n}',
            'shortcut_conv': 'downsample.0',
            'shortcut_norm': 'downsample.1',
        },
    ),
)
KERAS = Names(
    {'stem_conv': 'conv1_conv', 'stem_norm': 'conv1_bn', 'head': 'predictions'},
    within(
        'stage{i}_block{j}/',
        'conv{i+1}_block{j+1}_',
        {
            'conv{n}': '{n}_conv',
            'norm{n}': '{n}_bn',
            'shortcut_conv': '0_conv',
            'shortcut_norm': '0_bn',
        },
    ),
)


def _torch(variant: str) -> Reference:
    return Reference(variant, TORCH, arguments=dict(bn_unbiased=True), input_shape=(64, 64, 3))


def _keras(variant: str) -> Reference:
    arguments = dict(conv_bias=True, bn_eps=1.001e-5, bn_momentum=0.99)
    # As keras-applications 1.0 named it, when the files were made.
    published = ((r'probs/(.*)', r'predictions/\1'),)
    return Reference(variant, KERAS, arguments=arguments, published=published, input_shape=(64, 64, 3))


_BOTH = (
    'resnet18',
    'resnet34',
    'resnet50',
    'resnet101',
    'resnet152',
    'wide_resnet50_2',
    'wide_resnet101_2',
    'resnext50_32x4d',
    'resnext101_32x8d',
    'resnext101_64x4d',
)

REFERENCES = {
    **{f'{library}/{name}': _torch(name) for library in ('torchvision', 'timm') for name in _BOTH},
    **{f'timm/{name}': _torch(name) for name in ('resnext101_32x4d', 'resnext101_32x16d', 'resnext101_32x32d')},
    **{f'keras/ResNet{depth}': _keras(f'resnet{depth}_v1') for depth in (50, 101, 152)},
}
