"""MobileNetV2. Sandler, Howard, Zhu, Zhmoginov & Chen 2018, "MobileNetV2: Inverted Residuals and
Linear Bottlenecks", arXiv:1801.04381, table 2.

The residual connects narrow maps; in between, a block expands six times, convolves depthwise and
projects back without an activation. Variants `mobilenetv2_100`, `_140`, `_130`, `_075`, `_050`, `_035`:
the width multiplier, all at 224 pixels; the net takes any size.

Pitfalls:
- Numbers of channels are rounded to multiples of 8. The last convolution keeps 1280 features at
  widths below one and grows above (section 4.1).
- The paper counts 6.9M parameters at width 1.4; the released net has 6,108,776.
- What the paper leaves out is as in the authors' code (TF-slim): weights from a normal of
  deviation 0.09 cut at two deviations, batch norm with momentum 0.997 and epsilon 1e-3, dropout
  of 20 %. Keras has momentum 0.999; torchvision and timm pad symmetrically, with epsilon 1e-5.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names, timm_inverted, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.channels import scaled_channels
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.padding import padded_conv
from cvresearch.nn.pool import global_avg_pool

# Table 2: (expansion t, features c, repeats n, stride of the first block s).
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


class MobileNetV2(nn.Module):
    """MobileNetV2.

    Attributes:
      width: multiplier of the numbers of channels.
      padding: 'SAME' as in TensorFlow, or 'torch': one pixel on every side.
    """

    num_classes: int
    width: float = 1.0
    dropout: float = 0.2
    bn: NormSpec = NormSpec(momentum=0.997, eps=1e-3)
    padding: str = 'SAME'
    kernel_init: str | Callable = 'truncated_normal_0.09'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes)."""
        init = initializer(self.kernel_init)
        conv = functools.partial(padded_conv, padding=self.padding, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train)
        act = nn.relu6

        x = conv(scaled_channels(32, self.width), 3, strides=2, name='stem_conv')(x.astype(self.dtype))
        x = act(norm(name='stem_bn')(x))
        for i, (expansion, features, repeats, strides) in enumerate(STAGES, 1):
            for j in range(repeats):
                x = InvertedResidual(
                    scaled_channels(features, self.width),
                    strides if j == 0 else 1,
                    expansion,
                    conv,
                    norm,
                    act,
                    name=f'stage{i}_block{j}',
                )(x)
        x = conv(scaled_channels(1280, max(1.0, self.width)), 1, name='last_conv')(x)
        x = act(norm(name='last_bn')(x))
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class InvertedResidual(nn.Module):
    """Table 1: expand by 1x1, convolve each channel by 3x3, project by 1x1 without activation."""

    features: int
    strides: int
    expansion: int
    conv: Callable
    norm: Callable
    act: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        shortcut, channels = x, self.expansion * x.shape[-1]
        if self.expansion != 1:
            x = self.conv(channels, 1, name='expand_conv')(x)
            x = self.act(self.norm(name='expand_bn')(x))
        x = self.conv(channels, 3, strides=self.strides, groups=channels, name='depthwise_conv')(x)
        x = self.act(self.norm(name='depthwise_bn')(x))
        x = self.conv(self.features, 1, name='project_conv')(x)
        x = self.norm(name='project_bn')(x)
        return x + shortcut if self.strides == 1 and x.shape[-1] == shortcut.shape[-1] else x


_PAPER = 'Sandler et al. 2018, arXiv:1801.04381, table 4'
_TIMM_HOOKS = 'timm 1.0.31: parameters, forward hooks on convolutions and dense layers'

# Width: trainable parameters, multiply-adds, evidence.
_COUNTS = {
    1.0: (3_504_872, 300_774_272, 'torchvision 0.28.0 (hooks) = keras 3.15.1; paper: 3.4M, 300M'),
    1.4: (6_108_776, 582_195_824, f'{_TIMM_HOOKS} = keras 3.15.1; paper: 6.9M (high), 585M'),
    1.3: (5_386_792, 509_374_560, 'keras 3.15.1: trainable parameters and layer shapes'),
    0.75: (2_636_424, 209_069_792, _TIMM_HOOKS),
    0.5: (1_968_680, 97_131_840, _TIMM_HOOKS),
    0.35: (1_677_128, 59_285_808, _TIMM_HOOKS),
}

VARIANTS = {
    f'mobilenetv2_{100 * width:03.0f}': Variant(
        module=MobileNetV2,
        arguments=dict(width=width),
        input_shape=(224, 224, 3),
        num_classes=1000,
        params=params,
        macs=macs,
        paper=_PAPER,
        evidence=evidence,
    )
    for width, (params, macs, evidence) in _COUNTS.items()
}

# The first block does not expand, and so has other names for the rest.
_FIRST, *_OTHERS = (f'stage{i}_block{j}/' for i, (_, _, repeats, _) in enumerate(STAGES, 1) for j in range(repeats))

_TORCHVISION = Names(
    {
        'stem_conv': 'features.0.0',
        'stem_bn': 'features.0.1',
        'last_conv': 'features.18.0',
        'last_bn': 'features.18.1',
        'head': 'classifier.1',
    },
    within(
        _FIRST,
        'features.1.conv.',
        {
            'depthwise_conv': '0.0',
            'depthwise_bn': '0.1',
            'project_conv': '1',
            'project_bn': '2',
        },
    ),
    *(
        within(
            block,
            f'features.{number}.conv.',
            {
                'expand_conv': '0.0',
                'expand_bn': '0.1',
                'depthwise_conv': '1.0',
                'depthwise_bn': '1.1',
                'project_conv': '2',
                'project_bn': '3',
            },
        )
        for number, block in enumerate(_OTHERS, 2)
    ),
)
_TIMM = timm_inverted()
_LAYERS = {'{layer}_conv': '{layer}', '{layer}_bn': '{layer}_BN'}
_KERAS = Names(
    {
        'stem_conv': 'Conv1',
        'stem_bn': 'bn_Conv1',
        'last_conv': 'Conv_1',
        'last_bn': 'Conv_1_bn',
        'head': 'predictions',
    },
    within(_FIRST, 'expanded_conv_', _LAYERS),
    *(within(block, f'block_{number}_', _LAYERS) for number, block in enumerate(_OTHERS, 1)),
)

_TORCH = functools.partial(
    Reference, arguments=dict(padding='torch', bn_eps=1e-5, bn_momentum=0.9, bn_unbiased=True), input_shape=(72, 64, 3)
)
# The released files are older than the names of today.
_KERAS_PUBLISHED = (
    (r'mobl(\d+)_conv_\d+_(\w+/.*)', r'block_\1_\2'),
    (r'bn(\d+)_conv_\d+_bn_(\w+)(/.*)', r'block_\1_\2_BN\3'),
    (r'block_0_(.*)', r'expanded_conv_\1'),
    (r'Logits/(.*)', r'predictions/\1'),
)

# Keras's MobileNetV2(alpha=0.75) is 'keras/MobileNetV2_075'.
REFERENCES = (
    {
        'torchvision/mobilenet_v2': _TORCH(variant='mobilenetv2_100', rename=_TORCHVISION),
    }
    | {f'timm/{name}': _TORCH(variant=name, rename=_TIMM) for name in VARIANTS if name != 'mobilenetv2_130'}
    | {
        name.replace('mobilenetv2_', 'keras/MobileNetV2_').removesuffix('_100'): Reference(
            variant=name,
            rename=_KERAS,
            arguments=dict(bn_momentum=0.999),
            published=_KERAS_PUBLISHED,
            input_shape=(72, 64, 3),
        )
        for name in VARIANTS
    }
)
