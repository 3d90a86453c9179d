"""MobileNet. Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto & Adam 2017, "MobileNets:
Efficient Convolutional Neural Networks for Mobile Vision Applications", arXiv:1704.04861, table 1.

A 3x3 convolution for each channel (depthwise), then a 1x1 convolution (pointwise), each followed
by batch norm and a rectifier, thirteen times. Variants:
- `mobilenetv1_100`, `_075`, `_050`, `_025`: the width multiplier, at 224 pixels; with `_192`,
  `_160` or `_128` appended: the same net at that resolution (tables 6 and 7). The net takes any
  size; the resolution only changes the multiply-adds.
- `mobilenetv1_full`: full 3x3 convolutions in place of the separable ones (table 4).
- `mobilenetv1_shallow`: without the five separable layers at 14x14x512 (table 5).

Pitfalls:
- Table 1 prints stride 2 for the last depthwise layer; its output stays 7x7, so the stride is 1.
- The paper says ReLU; the authors' code, and every later one, has ReLU6 (the default here).
- What the paper leaves out is as in the authors' code (TF-slim): weights from a normal of
  deviation 0.09 cut at two deviations, batch norm with momentum 0.9997 and epsilon 1e-3, dropout
  of 0.1 %. Weight decay spares the depthwise kernels there.
- Keras pads stride-2 layers by (0, 1) at any size; that is 'SAME' only where the size is even.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.activations import activation
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.padding import padded_conv
from cvresearch.nn.pool import global_avg_pool

# Table 1: (features, stride of the first layer) of the layers at one resolution.
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2), (1024, 2))


class MobileNet(nn.Module):
    """MobileNet v1.

    Attributes:
      width: multiplier of all numbers of channels (section 3.3).
      repeats: number of layers in each of the five stages.
      separable: False gives the control with full convolutions.
      act: 'relu6', or 'relu' as the text of the paper has it.
      padding: 'SAME' as in TensorFlow, or 'torch': one pixel on every side.
    """

    num_classes: int
    width: float = 1.0
    repeats: tuple[int, ...] = (1, 2, 2, 6, 2)
    separable: bool = True
    act: str = 'relu6'
    dropout: float = 0.001
    bn: NormSpec = NormSpec(momentum=0.9997, eps=1e-3)
    padding: str = 'SAME'
    kernel_init: str | Callable = 'truncated_normal_0.09'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes)."""
        init = initializer(self.kernel_init)
        conv = functools.partial(padded_conv, padding=self.padding, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train)
        act = activation(self.act)

        x = conv(scaled(32, self.width), 3, strides=2, name='stem_conv')(x.astype(self.dtype))
        x = act(norm(name='stem_bn')(x))
        for i, ((features, strides), repeats) in enumerate(zip(STAGES, self.repeats, strict=True), 1):
            for j in range(repeats):
                x = Layer(
                    scaled(features, self.width),
                    strides if j == 0 else 1,
                    self.separable,
                    conv,
                    norm,
                    act,
                    name=f'stage{i}_block{j}',
                )(x)
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class Layer(nn.Module):
    """Figure 3: a depthwise separable convolution (right), or the full one that it replaces (left)."""

    features: int
    strides: int
    separable: bool
    conv: Callable
    norm: Callable
    act: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        if not self.separable:
            x = self.conv(self.features, 3, strides=self.strides, name='full_conv')(x)
            return self.act(self.norm(name='full_bn')(x))
        channels = x.shape[-1]
        x = self.conv(channels, 3, strides=self.strides, groups=channels, name='depthwise_conv')(x)
        x = self.act(self.norm(name='depthwise_bn')(x))
        x = self.conv(self.features, 1, name='pointwise_conv')(x)
        return self.act(self.norm(name='pointwise_bn')(x))


def scaled(features: int, width: float) -> int:
    """Returns the number of channels under a width multiplier: cut to a whole number, at least 8."""
    return max(8, int(features * width))


_PAPER = 'Howard et al. 2017, arXiv:1704.04861'

# Width: trainable parameters, {resolution: multiply-adds}.
_COUNTS = {
    1.0: (4_231_976, {224: 568_740_352, 192: 418_121_728, 160: 290_675_200, 128: 186_400_768}),
    0.75: (2_585_560, {224: 325_400_448, 192: 239_273_472, 160: 166_396_800, 128: 106_770_432}),
    0.5: (1_331_592, {224: 149_497_088, 192: 109_970_432, 160: 76_524_800, 128: 49_160_192}),
    0.25: (470_072, {224: 41_030_272, 192: 30_212_608, 160: 21_059_200, 128: 13_570_048}),
}

VARIANTS = {
    f'mobilenetv1_{100 * width:03.0f}' + ('' if size == 224 else f'_{size}'): Variant(
        module=MobileNet, arguments=dict(width=width), input_shape=(size, size, 3), num_classes=1000,
        params=params, macs=macs, paper=f'{_PAPER}, tables 6 and 7',
        evidence='keras 3.15.1 MobileNet: trainable parameters and layer shapes; paper for 1.0 at 224: 4.2M, 569M',
    )
    for width, (params, by_size) in _COUNTS.items()
    for size, macs in by_size.items()
} | {
    'mobilenetv1_full': Variant(
        module=MobileNet, arguments=dict(separable=False), input_shape=(224, 224, 3), num_classes=1000,
        params=29_294_088, macs=4_867_293_184, paper=f'{_PAPER}, table 4',
        evidence='arithmetic, layer by layer; paper: 29.3M, 4866M',
    ),
    'mobilenetv1_shallow': Variant(
        module=MobileNet, arguments=dict(repeats=(1, 2, 2, 1, 2)), input_shape=(224, 224, 3), num_classes=1000,
        params=2_887_976, macs=307_323_392, paper=f'{_PAPER}, table 5',
        evidence='arithmetic, layer by layer; paper: 2.9M, 307M',
    ),
}  # fmt: skip


_TIMM = Names(
    {'stem_conv': 'conv_stem', 'stem_bn': 'bn1', 'head': 'classifier'},
    within(
        'stage{i}_block{j}/',
        'blocks.{i-1}.{j}.',
        {
            'depthwise_conv': 'conv_dw',
            'depthwise_bn': 'bn1',
            'pointwise_conv': 'conv_pw',
            'pointwise_bn': 'bn2',
        },
    ),
)
_BLOCKS = [f'stage{i}_block{j}/' for i, blocks in enumerate(MobileNet.repeats, 1) for j in range(blocks)]
_KERAS = Names(
    {'stem_conv': 'conv1', 'stem_bn': 'conv1_bn', 'head': 'conv_preds'},
    *(
        within(
            block,
            'conv_',
            {
                'depthwise_conv': f'dw_{number}',
                'depthwise_bn': f'dw_{number}_bn',
                'pointwise_conv': f'pw_{number}',
                'pointwise_bn': f'pw_{number}_bn',
            },
        )
        for number, block in enumerate(_BLOCKS, 1)
    ),
)

# Keras's MobileNet(alpha=0.75) is 'keras/MobileNet_075'.
REFERENCES = {
    'timm/mobilenetv1_100': Reference(
        variant='mobilenetv1_100',
        rename=_TIMM,
        input_shape=(72, 64, 3),
        arguments=dict(padding='torch', bn_eps=1e-5, bn_momentum=0.9, bn_unbiased=True),
    ),
} | {
    name.replace('mobilenetv1_', 'keras/MobileNet_').removesuffix('_100'): Reference(
        variant=name,
        rename=_KERAS,
        arguments=dict(bn_momentum=0.99),
        input_shape=(96, 64, 3),
        as_convolution=('head',),
    )
    for name in ('mobilenetv1_100', 'mobilenetv1_075', 'mobilenetv1_050', 'mobilenetv1_025')
}
