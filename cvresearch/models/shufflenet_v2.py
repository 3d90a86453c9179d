"""ShuffleNet V2. Ma, Zhang, Zheng & Sun 2018, "ShuffleNet V2: practical guidelines for efficient
CNN architecture design", ECCV, arXiv:1807.11164.

One half of the channels passes a unit untouched; the shuffle afterwards mixes the halves.

- `shufflenet_v2_x0_5`, `_x1_0`, `_x1_5`, `_x2_0`: table 5.

Pitfalls:
- Split, then unit, then shuffle, as in figure 3(c) and torchvision. The authors' code shuffles
  before it splits: the same function with permuted weights, so its weights do not fit here.
- The untouched half comes first in the concatenation, the shortcut branch of a unit with stride 2
  likewise.
- No ReLU follows the depthwise convolutions.
- The measured multiply-adds are 1 to 2 % below the paper's 41M, 146M, 299M and 591M.
- The authors' code has dropout 0.2 before the classifier at width 2, and no bias in it; the paper
  mentions neither, and torchvision has neither dropout nor a missing bias.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.channels import channel_shuffle
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import global_avg_pool, max_pool

UNITS = (4, 8, 4)


class ShuffleNetV2(nn.Module):
    """Three stages of split-and-shuffle units.

    Attributes:
      num_classes: number of logits.
      width: maps of the first stage; each later stage has twice its predecessor's.
      last_width: maps of the last 1x1 convolution.
      stem_width: maps of the stem.
      dropout: rate before the classifier.
      bn: constants of the batch norms.
      kernel_init: initialiser of the convolutions; the paper names none.
      dtype: of the computation.
    """

    num_classes: int
    width: int = 116
    last_width: int = 1024
    stem_width: int = 24
    dropout: float = 0.0
    bn: NormSpec = NormSpec()
    kernel_init: str = 'he_normal'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits, float32 (batch, num_classes)."""
        conv = functools.partial(Conv, use_bias=False, kernel_init=initializer(self.kernel_init), dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        unit = functools.partial(ShuffleUnitV2, conv=conv, norm=norm, act=nn.relu)

        x = conv(self.stem_width, 3, strides=2, padding=1, name='stem_conv')(x.astype(self.dtype))
        x = max_pool(nn.relu(norm(name='stem_bn')(x)), 3, 2, padding=1, name='stem_pool')
        for i, units in enumerate(UNITS, 1):
            for j in range(units):
                features, strides = self.width * 2 ** (i - 1), 2 if j == 0 else 1
                x = unit(features, strides, name=f'stage{i}_block{j}')(x)
        x = nn.relu(norm(name='last_bn')(conv(self.last_width, 1, name='last_conv')(x)))
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class ShuffleUnitV2(nn.Module):
    """1x1, depthwise 3x3, 1x1 on half the channels, or on all of them beside a shortcut (figure 3c, 3d)."""

    features: int
    strides: int
    conv: Callable
    norm: Callable
    act: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        conv, norm, act, half = self.conv, self.norm, self.act, self.features // 2
        depthwise = functools.partial(conv, kernel_size=3, strides=self.strides, padding=1)
        if self.strides == 1:
            kept, y = jnp.split(x, 2, axis=-1)
        else:
            channels = x.shape[-1]
            kept = norm(name='shortcut_bn1')(depthwise(channels, groups=channels, name='shortcut_conv1')(x))
            kept = act(norm(name='shortcut_bn2')(conv(half, 1, name='shortcut_conv2')(kept)))
            y = x
        y = act(norm(name='bn1')(conv(half, 1, name='conv1')(y)))
        y = norm(name='bn2')(depthwise(half, groups=half, name='conv2')(y))
        y = act(norm(name='bn3')(conv(half, 1, name='conv3')(y)))
        return channel_shuffle(jnp.concatenate([kept, y], axis=-1), 2)


_TORCH = Names(
    {'stem_conv': 'conv1.0', 'stem_bn': 'conv1.1', 'last_conv': 'conv5.0', 'last_bn': 'conv5.1', 'head': 'fc'},
    within(
        'stage{i}_block{j}/',
        'stage{i+1}.{j}.',
        {  # the ReLUs have numbers too
            'shortcut_conv1': 'branch1.0',
            'shortcut_bn1': 'branch1.1',
            'shortcut_conv2': 'branch1.2',
            'shortcut_bn2': 'branch1.3',
            'conv1': 'branch2.0',
            'bn1': 'branch2.1',
            'conv2': 'branch2.3',
            'bn2': 'branch2.4',
            'conv3': 'branch2.5',
            'bn3': 'branch2.6',
        },
    ),
)

_SHUFFLENET = functools.partial(
    Variant,
    module=ShuffleNetV2,
    input_shape=(224, 224, 3),
    num_classes=1000,
    paper='Ma et al. 2018, ECCV, arXiv:1807.11164, table 5',
)
_MEASURED = 'measured on torchvision 0.28.0, multiply-adds by forward hooks; the paper says {} of them'.format

VARIANTS = {
    'shufflenet_v2_x0_5': _SHUFFLENET(
        params=1_366_792,
        macs=40_476_448,
        evidence=_MEASURED('41M'),
        arguments=dict(width=48),
    ),
    'shufflenet_v2_x1_0': _SHUFFLENET(
        params=2_278_604,
        macs=144_907_992,
        evidence=_MEASURED('146M'),
        arguments=dict(width=116),
    ),
    'shufflenet_v2_x1_5': _SHUFFLENET(
        params=3_503_624,
        macs=295_759_392,
        evidence=_MEASURED('299M'),
        arguments=dict(width=176),
    ),
    'shufflenet_v2_x2_0': _SHUFFLENET(
        params=7_393_996,
        macs=583_253_464,
        evidence=_MEASURED('591M'),
        arguments=dict(width=244, last_width=2048),
    ),
}

REFERENCES = {
    f'torchvision/{name}': Reference(
        variant=name, rename=_TORCH, arguments=dict(bn_unbiased=True), input_shape=(72, 80, 3)
    )
    for name in VARIANTS
}
