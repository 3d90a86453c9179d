"""ShuffleNet. Zhang, Zhou, Lin & Sun 2018, "ShuffleNet: an extremely efficient convolutional
neural network for mobile devices", CVPR, arXiv:1707.01083.

Bottlenecks whose 1x1 convolutions are grouped, with a channel shuffle between the groups.

- `shufflenet_g{1,2,3,4,8}_x1_0`: table 1, five numbers of groups at about 140M multiply-adds.
- `shufflenet_g3_x0_5`, `_x1_5`, `_x2_0`: the widths of tables 2 and 5.

Pitfalls:
- The first 1x1 convolution of the first stage is not grouped: it sees few channels (section 3.3).
- No ReLU follows the depthwise convolution (section 3.2).
- A unit with stride 2 appends its maps to the average-pooled input, so its own branch has the
  difference of the widths. The pooling counts the padding, as the authors' PyTorch code does;
  the paper does not say.
- The stem keeps its 24 maps at width 1.5 and has 12 at 0.5 and 48 at 2: so the paper's multiply-adds
  come out.
- The authors' code has no bias in the classifier; the counts here are with one.
- The paper's multiply-adds agree with ours less the classifier's in table 1, and with all of ours
  at the other widths.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.variant import Variant
from cvresearch.nn.channels import channel_shuffle
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import avg_pool, global_avg_pool, max_pool

UNITS = (4, 8, 4)


class ShuffleNet(nn.Module):
    """Three stages of shuffle units.

    Attributes:
      num_classes: number of logits.
      groups: of the 1x1 convolutions.
      width: maps of the first stage; each later stage has twice its predecessor's.
      stem_width: maps of the stem.
      dropout: rate before the classifier.
      bn: constants of the batch norms.
      kernel_init: initialiser of the convolutions; the paper names none.
      dtype: of the computation.
    """

    num_classes: int
    groups: int = 3
    width: int = 240
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
        unit = functools.partial(ShuffleUnit, conv=conv, norm=norm, act=nn.relu)

        x = conv(self.stem_width, 3, strides=2, padding=1, name='stem_conv')(x.astype(self.dtype))
        x = max_pool(nn.relu(norm(name='stem_bn')(x)), 3, 2, padding=1, name='stem_pool')
        for i, units in enumerate(UNITS, 1):
            for j in range(units):
                x = unit(
                    self.width * 2 ** (i - 1),
                    self.groups,
                    strides=2 if j == 0 else 1,
                    first_groups=1 if (i, j) == (1, 0) else self.groups,
                    name=f'stage{i}_block{j}',
                )(x)
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added or appended to the input (figure 2b, 2c)."""

    features: int
    groups: int
    strides: int
    first_groups: int
    conv: Callable
    norm: Callable
    act: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        narrow = self.features // 4
        new = self.features - (x.shape[-1] if self.strides == 2 else 0)
        y = self.conv(narrow, 1, groups=self.first_groups, name='conv1')(x)
        y = channel_shuffle(self.act(self.norm(name='bn1')(y)), self.groups)
        y = self.conv(narrow, 3, strides=self.strides, padding=1, groups=narrow, name='conv2')(y)
        y = self.conv(new, 1, groups=self.groups, name='conv3')(self.norm(name='bn2')(y))
        y = self.norm(name='bn3')(y)
        if self.strides == 1:
            return self.act(x + y)
        shortcut = avg_pool(x, 3, 2, padding=1, count_include_pad=True, name='shortcut_pool')
        return self.act(jnp.concatenate([shortcut, y], axis=-1))


_SHUFFLENET = functools.partial(
    Variant,
    module=ShuffleNet,
    input_shape=(224, 224, 3),
    num_classes=1000,
    paper='Zhang et al. 2018, CVPR, arXiv:1707.01083',
)
_TALLY = 'arithmetic, layer by layer; the paper says {} multiply-adds'.format
_TABLE_1 = "arithmetic, layer by layer; the paper says {} multiply-adds, ours less the classifier's".format

VARIANTS = {
    'shufflenet_g1_x1_0': _SHUFFLENET(
        params=1_531_936, macs=143_078_976, evidence=_TABLE_1('143M'),
        arguments=dict(groups=1, width=144),
    ),
    'shufflenet_g2_x1_0': _SHUFFLENET(
        params=1_733_848, macs=140_836_512, evidence=_TABLE_1('140M'),
        arguments=dict(groups=2, width=200),
    ),
    'shufflenet_g3_x1_0': _SHUFFLENET(
        params=1_865_728, macs=137_460_672, evidence=_TABLE_1('137M'),
        arguments=dict(groups=3, width=240),
    ),
    'shufflenet_g4_x1_0': _SHUFFLENET(
        params=1_968_344, macs=134_339_776, evidence=_TABLE_1('133M'),
        arguments=dict(groups=4, width=272),
    ),
    'shufflenet_g8_x1_0': _SHUFFLENET(
        params=2_434_768, macs=138_365_952, evidence=_TABLE_1('137M'),
        arguments=dict(groups=8, width=384),
    ),
    'shufflenet_g3_x0_5': _SHUFFLENET(
        params=718_324, macs=37_589_856, evidence=_TALLY('38M'),
        arguments=dict(groups=3, width=120, stem_width=12),
    ),
    'shufflenet_g3_x1_5': _SHUFFLENET(
        params=3_442_168, macs=292_443_552, evidence=_TALLY('292M'),
        arguments=dict(groups=3, width=360),
    ),
    'shufflenet_g3_x2_0': _SHUFFLENET(
        params=5_450_776, macs=524_045_184, evidence=_TALLY('524M'),
        arguments=dict(groups=3, width=480, stem_width=48),
    ),
}  # fmt: skip
