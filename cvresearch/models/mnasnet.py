"""MnasNet. Tan, Chen, Pang, Vasudevan, Sandler, Howard & Le 2018, "MnasNet: platform-aware neural
architecture search for mobile", arXiv:1807.11626 (CVPR 2019), figure 7; the block tables of B1 and
small follow the authors' repository (tensorflow/tpu, models/official/mnasnet).

- A1 (`semnasnet_100`): found with squeeze-and-excitation in the search space.
- B1 (`mnasnet1_0`): found without.
- `mnasnet_small`: the 68 M multiply-adds of table 4. A2 and A3 are not published block by block.
Other widths scale all channels but the 1280 of the last convolution, rounded to multiples of 8.

Pitfalls:
- A squeeze has a quarter of the channels that come into the block, not of the expanded ones.
- The first block has no expansion. In `mnasnet_small` it is as wide as the stem; the authors' code
  adds no identity there, timm's does (`first_skip`).
- Padding, epsilon and momentum are by default the authors' (TensorFlow's SAME, 1e-3, 0.99).
  torchvision and timm pad symmetrically with epsilon 1e-5; torchvision takes 0.9997 for the
  momentum, timm 0.9.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

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
from cvresearch.nn.squeeze_excitation import squeeze_excitation
from cvresearch.nn.stochastic_depth import drop_path


class Stage(NamedTuple):
    """Blocks of one width: the first has the strides. `squeeze` is a fraction of a block's input, 0 for none."""

    blocks: int
    kernel_size: int
    strides: int
    expansion: int
    features: int
    squeeze: float = 0.0


A1 = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(3, 5, 2, 3, 40, 0.25), Stage(4, 3, 2, 6, 80),
    Stage(2, 3, 1, 6, 112, 0.25), Stage(3, 5, 2, 6, 160, 0.25), Stage(1, 3, 1, 6, 320),
)  # fmt: skip
B1 = (
    Stage(1, 3, 1, 1, 16), Stage(3, 3, 2, 3, 24), Stage(3, 5, 2, 3, 40), Stage(3, 5, 2, 6, 80),
    Stage(2, 3, 1, 6, 96), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip
SMALL = (
    Stage(1, 3, 1, 1, 8), Stage(1, 3, 2, 3, 16), Stage(2, 3, 2, 6, 16), Stage(4, 5, 2, 6, 32, 0.25),
    Stage(3, 3, 1, 6, 32, 0.25), Stage(3, 5, 2, 6, 88, 0.25), Stage(1, 3, 1, 6, 144),
)  # fmt: skip


class MnasNet(nn.Module):
    """MnasNet.

    Attributes:
      stages: the block table.
      width: factor of all channels but the last convolution's.
      first_skip: an identity around the first block where the widths allow, as in timm.
      stochastic_depth: drop rate of the last block's residual branch, growing linearly with depth.
      padding: 'SAME' as TensorFlow or 'torch' (symmetric).
    """

    num_classes: int
    stages: tuple[Stage, ...] = B1
    stem: int = 32
    width: float = 1.0
    first_skip: bool = False
    dropout: float = 0.2
    stochastic_depth: float = 0.0
    padding: str = 'SAME'
    bn: NormSpec = NormSpec(momentum=0.99, eps=1e-3)
    kernel_init: str | Callable = 'he_fan_out'
    head_init: str | Callable = 'uniform_fan_out'  # of the authors' code
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, num_classes)."""
        conv = functools.partial(
            padded_conv, padding=self.padding, kernel_init=initializer(self.kernel_init), dtype=self.dtype
        )
        norm = self.bn.layer(train, self.dtype)
        scaled = functools.partial(scaled_channels, width=self.width)
        depth, block = sum(stage.blocks for stage in self.stages), 0

        x = x.astype(self.dtype)
        x = nn.relu(norm(name='stem_bn')(conv(scaled(self.stem), 3, strides=2, name='stem_conv')(x)))
        for i, stage in enumerate(self.stages, 1):
            for j in range(stage.blocks):
                drop = self.stochastic_depth * block / (depth - 1) if train else 0.0
                x = InvertedResidual(
                    stage._replace(features=scaled(stage.features), strides=1 if j else stage.strides),
                    skip=self.first_skip or block > 0,
                    drop=drop,
                    conv=conv,
                    norm=norm,
                    name=f'stage{i}_block{j}',
                )(x)
                block += 1
        x = nn.relu(norm(name='last_bn')(conv(1280, 1, name='last_conv')(x)))
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        head = nn.Dense(self.num_classes, kernel_init=initializer(self.head_init), dtype=self.dtype, name='head')
        return head(x).astype(jnp.float32)


class InvertedResidual(nn.Module):
    """1x1 convolution that widens, depthwise convolution, squeeze-and-excitation, 1x1 that narrows.

    The last is linear. The input is added where `skip` and the shapes allow.
    """

    stage: Stage
    skip: bool
    drop: float
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, ceil(height / strides), ..., features)."""
        _, kernel_size, strides, expansion, features, squeeze = self.stage
        inputs, wide = x, x.shape[-1] * expansion
        if expansion > 1:
            x = nn.relu(self.norm(name='expand_bn')(self.conv(wide, 1, name='expand_conv')(x)))
        x = self.conv(wide, kernel_size, strides=strides, groups=wide, name='depthwise_conv')(x)
        x = nn.relu(self.norm(name='depthwise_bn')(x))
        if squeeze:
            reduce = self.conv(max(1, int(inputs.shape[-1] * squeeze)), 1, use_bias=True, name='squeeze_reduce')
            x = squeeze_excitation(x, reduce, self.conv(wide, 1, use_bias=True, name='squeeze_expand'))
        x = self.norm(name='project_bn')(self.conv(features, 1, name='project_conv')(x))
        if not self.skip or x.shape != inputs.shape:
            return x
        if self.drop:
            x = drop_path(x, self.drop, self.make_rng('dropout'))
        return x + inputs


_MNASNET = functools.partial(
    Variant, module=MnasNet, input_shape=(224, 224, 3), num_classes=1000, paper='Tan et al. 2018, arXiv:1807.11626'
)
_TORCHVISION = 'torchvision 0.28.0 measured; macs: forward hooks (conv + linear)'
_TIMM = 'timm 1.0.31 measured; macs: forward hooks (conv + linear)'
_SMALL = dict(stages=SMALL, stem=8, dropout=0.0)

VARIANTS = {
    'mnasnet0_5': _MNASNET(arguments=dict(width=0.5), params=2_218_512, macs=104_455_968, evidence=_TORCHVISION),
    'mnasnet0_75': _MNASNET(arguments=dict(width=0.75), params=3_170_208, macs=215_493_104, evidence=_TORCHVISION),
    'mnasnet1_0': _MNASNET(
        params=4_383_312, macs=314_415_872, evidence=f"{_TORCHVISION}; authors' repository 4.4 M, 315 M"
    ),
    'mnasnet1_3': _MNASNET(arguments=dict(width=1.3), params=6_282_256, macs=526_362_432, evidence=_TORCHVISION),
    'mnasnet_140': _MNASNET(arguments=dict(width=1.4), params=7_115_728, macs=588_799_408, evidence=_TIMM),
    'mnasnet_small': _MNASNET(
        arguments=_SMALL, params=2_030_264, macs=68_339_184, evidence=f'{_TIMM}; paper 2.0 M, 68 M'
    ),
    'semnasnet_100': _MNASNET(
        arguments=dict(stages=A1),
        params=3_887_038,
        macs=311_579_072,
        evidence=f'{_TIMM}; paper 3.9 M, 312 M',
    ),
} | {
    name: _MNASNET(arguments=dict(stages=A1, width=width), params=params, macs=macs, evidence=_TIMM)
    for name, width, params, macs in (
        ('semnasnet_050', 0.5, 2_082_006, 103_162_992),
        ('semnasnet_075', 0.75, 2_912_278, 223_448_480),
        ('semnasnet_140', 1.4, 6_105_992, 586_317_952),
    )
}

# Blocks of the first stage do not expand, and so have other names for the rest.
_TORCHVISION_NAMES = Names(
    {
        'stem_conv': 'layers.0',
        'stem_bn': 'layers.1',
        'last_conv': 'layers.14',
        'last_bn': 'layers.15',
        'head': 'classifier.1',
    },
    within(
        'stage1_block0/',
        'layers.',
        {
            'depthwise_conv': '3',
            'depthwise_bn': '4',
            'project_conv': '6',
            'project_bn': '7',
        },
    ),
    within(
        'stage{i}_block{j}/',
        'layers.{i+6}.{j}.layers.',
        {
            'expand_conv': '0',
            'expand_bn': '1',
            'depthwise_conv': '3',
            'depthwise_bn': '4',
            'project_conv': '6',
            'project_bn': '7',
        },
    ),
)
_TIMM_NAMES = timm_inverted()

_AS_TORCH = dict(padding='torch', bn_eps=1e-5, bn_unbiased=True)

REFERENCES = {
    f'torchvision/{name}': Reference(
        variant=name,
        rename=_TORCHVISION_NAMES,
        input_shape=(64, 64, 3),
        arguments=dict(_AS_TORCH, bn_momentum=0.9997),
        version=2,
    )
    for name in ('mnasnet0_5', 'mnasnet0_75', 'mnasnet1_0', 'mnasnet1_3')
} | {
    f'timm/{name}': Reference(
        variant=variant,
        rename=_TIMM_NAMES,
        input_shape=(64, 64, 3),
        arguments=dict(_AS_TORCH, bn_momentum=0.9, first_skip=name == 'mnasnet_small'),
    )
    for name, variant in {
        'mnasnet_050': 'mnasnet0_5',
        'mnasnet_075': 'mnasnet0_75',
        'mnasnet_100': 'mnasnet1_0',
        **{name: name for name in ('mnasnet_140', 'mnasnet_small')},
        **{name: name for name in VARIANTS if name.startswith('semnasnet')},
    }.items()
}
