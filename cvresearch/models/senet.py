"""SENet. Hu, Shen, Albanie, Sun & Wu 2017, "Squeeze-and-excitation networks", arXiv:1709.01507,
sections 3 and 4, table 1 and figure 3.

- `legacy_seresnet50`, `101` and `152` are the paper's: ResNets with squeeze-and-excitation on each
  residual branch, before the addition. As in the authors' Caffe files, the stride is in the first
  1x1 convolution, and the stem pools without padding, output sizes rounded up.
- `legacy_seresnext50_32x4d` and `101` (table 2): the same on ResNeXts, whose stride is in the 3x3.
- `seresnet50` is the later form: the stride in the 3x3, symmetric padding.
- `legacy_senet154` is the net of the ILSVRC 2017 entry: 64 groups, 3x3 convolutions in the stem and
  on the shortcuts, half as many channels in the first 1x1, dropout before the classifier.

The names are timm's; its `senet154` is the last one with symmetric padding in the stem's pool.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import ceil_padding, global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least
from cvresearch.nn.squeeze_excitation import SqueezeExcitation


class SENet(nn.Module):
    """A stem, four stages of bottlenecks, and a linear classifier.

    Attributes:
      stage_sizes: number of blocks in each stage.
      block: `SEBottleneck`, or a partial of it.
      stem: (kernel size, features) of the stem's convolutions; the first has stride 2.
      ceil_pool: the stem's pool has no padding but rounds its output size up, as Caffe; otherwise
        it is padded by 1 on every side.
      reduction: channels by hidden units of squeeze-and-excitation.
      dropout: rate before the classifier; 0.2 in the paper's SENet-154.
      zero_init_last: the last norm of each block starts at zero; not in the paper.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    block: Callable
    stem: tuple[tuple[int, int], ...] = ((7, 64),)
    ceil_pool: bool = True
    reduction: int = 16
    dropout: float = 0.0
    zero_init_last: bool = False
    kernel_init: str = 'he_fan_in'
    bn: NormSpec = NormSpec()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, num_classes)."""
        require_at_least('SENet', x.shape, 3 if self.ceil_pool else 1)
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, use_bias=False, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        last_init = nn.initializers.zeros_init() if self.zero_init_last else nn.initializers.ones_init()
        block = functools.partial(
            self.block,
            conv=conv,
            norm=norm,
            last_norm=functools.partial(norm, scale_init=last_init),
            recalibrate=functools.partial(
                SqueezeExcitation, self.reduction, functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)
            ),
        )

        x = x.astype(self.dtype)
        for i, (kernel, features) in enumerate(self.stem, start=1):
            x = conv(features, kernel, strides=2 if i == 1 else 1, padding=kernel // 2, name=f'stem_conv{i}')(x)
            x = nn.relu(norm(name=f'stem_norm{i}')(x))
        padding = [ceil_padding(size, 3, 2) for size in x.shape[1:3]] if self.ceil_pool else 1
        x = max_pool(x, 3, strides=2, padding=padding, name='stem_pool')
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                strides = 2 if i > 0 and j == 0 else 1
                x = block(64 * 2**i, strides, name=f'stage{i + 1}_block{j}')(x)
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class SEBottleneck(nn.Module):
    """ResNet's bottleneck with squeeze-and-excitation before the addition (figure 3).

    Attributes:
      inner: features of the 1x1 and the 3x3 convolution, as multiples of `width`.
      groups: of the 3x3 convolution.
      stride_first: the stride is in the first convolution, not in the second.
      shortcut_kernel: size of the convolution on shortcuts that have a stride.
    """

    width: int
    strides: int
    conv: Callable
    norm: Callable
    last_norm: Callable
    recalibrate: Callable
    inner: tuple[int, int] = (1, 1)
    groups: int = 1
    stride_first: bool = True
    shortcut_kernel: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, 4 * `width`)."""
        outer = 4 * self.width
        features = [multiple * self.width for multiple in self.inner]
        first, second = (self.strides, 1) if self.stride_first else (1, self.strides)
        y = self.conv(features[0], 1, strides=first, name='conv1')(x)
        y = nn.relu(self.norm(name='norm1')(y))
        y = self.conv(features[1], 3, strides=second, padding=1, groups=self.groups, name='conv2')(y)
        y = nn.relu(self.norm(name='norm2')(y))
        y = self.conv(outer, 1, name='conv3')(y)
        y = self.last_norm(name='norm3')(y)
        y = self.recalibrate(name='se')(y)
        if self.strides > 1 or x.shape[-1] != outer:
            kernel = self.shortcut_kernel if self.strides > 1 else 1
            x = self.conv(outer, kernel, strides=self.strides, padding=kernel // 2, name='shortcut_conv')(x)
            x = self.norm(name='shortcut_norm')(x)
        return nn.relu(x + y)


_SENET154 = dict(
    stage_sizes=(3, 8, 36, 3), stem=((3, 64), (3, 64), (3, 128)), dropout=0.2,
    block=functools.partial(SEBottleneck, inner=(2, 4), groups=64, stride_first=False, shortcut_kernel=3),
)  # fmt: skip
_RESNEXT = functools.partial(SEBottleneck, inner=(2, 2), groups=32, stride_first=False)
_V15 = dict(block=functools.partial(SEBottleneck, stride_first=False), ceil_pool=False)


def _variant(params: int, macs: int, **arguments) -> Variant:
    return Variant(
        module=SENet,
        arguments=arguments,
        input_shape=(224, 224, 3),
        num_classes=1000,
        params=params,
        macs=macs,
        paper='Hu et al. 2017, arXiv:1709.01507',
        evidence='timm 1.0.31, measured: parameters, and forward hooks on convolutions and linear layers',
    )


VARIANTS = {
    'legacy_seresnet50': _variant(28_088_024, 3_860_488_192, stage_sizes=(3, 4, 6, 3), block=SEBottleneck),
    'legacy_seresnet101': _variant(49_326_872, 7_574_937_600, stage_sizes=(3, 4, 23, 3), block=SEBottleneck),
    'legacy_seresnet152': _variant(66_821_848, 11_288_993_792, stage_sizes=(3, 8, 36, 3), block=SEBottleneck),
    'legacy_seresnext50_32x4d': _variant(27_559_896, 4_232_994_816, stage_sizes=(3, 4, 6, 3), block=_RESNEXT),
    'legacy_seresnext101_32x4d': _variant(48_955_416, 7_974_739_968, stage_sizes=(3, 4, 23, 3), block=_RESNEXT),
    'seresnet50': _variant(28_088_024, 4_091_699_200, stage_sizes=(3, 4, 6, 3), **_V15),
    'legacy_senet154': _variant(115_088_984, 20_688_363_520, **_SENET154),
}

_BLOCK = {
    'conv{n}': 'conv{n}',
    'norm{n}': 'bn{n}',
    'shortcut_conv': 'downsample.0',
    'shortcut_norm': 'downsample.1',
}
_LEGACY = Names(
    {'stem_conv{n}': 'layer0.conv{n}', 'stem_norm{n}': 'layer0.bn{n}', 'head': 'last_linear'},
    within('stage{i}_block{j}/', 'layer{i}.{j}.', {**_BLOCK, 'se/{layer}': 'se_module.{layer}'}),
)
_TIMM = Names(
    {'stem_conv1': 'conv1', 'stem_norm1': 'bn1', 'head': 'fc'},
    within('stage{i}_block{j}/', 'layer{i}.{j}.', {**_BLOCK, 'se/{layer}': 'se.{layer}'}),
)
# The stem is an nn.Sequential of three convolutions, but for its last norm.
_TIMM_DEEP_STEM = Names(
    {
        'stem_conv1': 'conv1.0',
        'stem_norm1': 'conv1.1',
        'stem_conv2': 'conv1.3',
        'stem_norm2': 'conv1.4',
        'stem_conv3': 'conv1.6',
        'stem_norm3': 'bn1',
    },
    _TIMM.table,
)


def _reference(variant: str, rename: Names, **arguments) -> Reference:
    size = 32 if variant == 'legacy_senet154' else 64
    return Reference(
        variant,
        rename,
        arguments=dict(bn_unbiased=True, **arguments),
        as_convolution=(r'.*/se/fc\d',),
        input_shape=(size, size, 3),
    )


REFERENCES = {
    **{f'timm/{name}': _reference(name, _LEGACY) for name in VARIANTS if name.startswith('legacy_')},
    'timm/seresnet50': _reference('seresnet50', _TIMM),
    'timm/seresnet101': _reference('legacy_seresnet101', _TIMM, **_V15),
    'timm/seresnet152': _reference('legacy_seresnet152', _TIMM, **_V15),
    **{
        f'timm/{name}': _reference(f'legacy_{name}', _TIMM, ceil_pool=False)
        for name in ('seresnext50_32x4d', 'seresnext101_32x4d')
    },
    'timm/senet154': _reference('legacy_senet154', _TIMM_DEEP_STEM, ceil_pool=False),
}
