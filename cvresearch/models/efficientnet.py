"""EfficientNet. Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML, arXiv:1905.11946, table 1, and the nets scaled or simplified from it.

- `efficientnet_b0` to `_b7`: the paper's. `_b8`: Xie et al. 2019, "AdvProp", arXiv:1911.09665.
- `efficientnet_l2`, at 800 pixels, and `_l2_475`: Xie et al. 2019, "Noisy Student",
  arXiv:1911.04252. Meta Pseudo Labels, ALIGN and SAM report on the same net.
- `efficientnet_lite0` to `_lite4`: the authors' nets for small devices (2020, tensorflow/tpu,
  models/official/efficientnet/lite): no squeeze-and-excitation, ReLU6, and stem, head and the
  depth of the first and last stage not scaled. `_lite3_300` and `_lite4_380` are the sizes of timm.

Pitfalls:
- B4 to B7 are not `compound_scaling` at any phi: all that was published, listed in NETS, exceeds the rule
  (`deviations`). B0 to B3 are, rounded.
- Squeeze-and-excitation narrows to a quarter of the block's input, not of its expanded channels.
- Stage 1 expands by one: such a block has no expanding convolution at all.
- Our multiply-adds exceed the paper's for B4 to B7 (4.39G against 4.2G, and so on).
- torchvision and timm's `efficientnet_*` pad symmetrically; TensorFlow, Keras and timm's
  `tf_efficientnet_*` pad 'SAME' (the default here). Weights do not carry over.
- Images: B0 to L2 take ImageNet mean and deviation, Lite takes (x - 127) / 128 of 0 to 255. Keras
  has the first inside the model, from 0 to 255 (with `weights=None` only the division by 255).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names, timm_inverted, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.activations import activation
from cvresearch.nn.channels import scaled_channels
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.padding import padded_conv
from cvresearch.nn.pool import global_avg_pool
from cvresearch.nn.squeeze_excitation import squeeze_excitation
from cvresearch.nn.stochastic_depth import drop_path


class Stage(NamedTuple):
    """One row of table 1; `strides` belongs to the first block."""

    repeats: int
    kernel_size: int
    strides: int
    expansion: int
    features: int


BASELINE = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip


def compound_scaling(
    phi: float, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15
) -> tuple[float, float, float]:
    """Returns the multipliers (width, depth, resolution) of equation 3 at compound coefficient phi.

    Depth alpha ** phi, width beta ** phi, resolution gamma ** phi. The multiply-adds grow by
    (alpha * beta^2 * gamma^2) ** phi, about 2 ** phi with the constants of the paper's grid search.
    """
    return beta**phi, alpha**phi, gamma**phi


# The paper prints no phi. Under this reading B0 to B3 are the rule's, rounded.
PHI = {'b0': 0.0, 'b1': 0.5, 'b2': 1.0, 'b3': 2.0, 'b4': 3.0, 'b5': 4.0, 'b6': 5.0, 'b7': 6.0}


def deviations(name: str) -> dict[str, tuple[float, float]]:
    """Returns where a published net is not the compound rule's: {coefficient: (of the rule, published)}.

    Width and depth of the rule are rounded to a tenth, as the authors do; the resolution is in pixels, and
    2 % of it are taken for rounding.

    Args:
      name: 'b0' to 'b7'.
    """
    published = NETS[name][:3]
    width, depth, resolution = compound_scaling(PHI[name])
    by_rule = (round(width, 1), round(depth, 1), round(NETS['b0'][2] * resolution))
    slack = (0.0, 0.0, 0.02 * published[2])
    rows = zip(('width', 'depth', 'resolution'), by_rule, published, slack, strict=True)
    return {key: (ours, theirs) for key, ours, theirs, most in rows if abs(ours - theirs) > most}


def round_repeats(repeats: int, depth: float) -> int:
    """Returns the number of blocks of a stage under a depth multiplier, rounded up."""
    return math.ceil(depth * repeats)


def scaled_stages(width: float, depth: float, fixed_ends: bool = False) -> list[Stage]:
    """Returns the stages of the baseline under a width and a depth multiplier.

    Args:
      width: multiplier of the numbers of channels.
      depth: multiplier of the numbers of blocks.
      fixed_ends: keep the depth of the first and the last stage, as EfficientNet-Lite does.
    """
    kept = (0, len(BASELINE) - 1) if fixed_ends else ()
    return [
        stage._replace(
            features=scaled_channels(stage.features, width),
            repeats=stage.repeats if i in kept else round_repeats(stage.repeats, depth),
        )
        for i, stage in enumerate(BASELINE)
    ]


class EfficientNet(nn.Module):
    """EfficientNet, and with `se_ratio=0, act='relu6', fixed_ends=True` EfficientNet-Lite.

    Attributes:
      width: multiplier of the numbers of channels.
      depth: multiplier of the numbers of blocks.
      se_ratio: channels of the squeeze-and-excitation's bottleneck by the block's input; 0 for none.
      act: 'silu' (swish) or 'relu6'.
      fixed_ends: do not scale stem, head, and the depth of the first and the last stage.
      stochastic_depth: drop rate at the end of the net; block b of n drops at b / n of it.
      padding: 'SAME' as in TensorFlow, or 'torch': half the kernel on every side.
    """

    num_classes: int
    width: float = 1.0
    depth: float = 1.0
    se_ratio: float = 0.25
    act: str = 'silu'
    fixed_ends: bool = False
    dropout: float = 0.2
    stochastic_depth: float = 0.2
    bn: NormSpec = NormSpec(momentum=0.99, eps=1e-3)
    padding: str = 'SAME'
    kernel_init: str | Callable = 'he_fan_out'
    head_init: str | Callable = 'uniform_fan_out'  # of the authors' code
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes)."""
        conv = functools.partial(
            padded_conv, padding=self.padding, kernel_init=initializer(self.kernel_init), dtype=self.dtype
        )
        norm = self.bn.layer(train)
        act = activation(self.act)
        block = functools.partial(MBConv, se_ratio=self.se_ratio, train=train, conv=conv, norm=norm, act=act)
        stages = scaled_stages(self.width, self.depth, self.fixed_ends)
        total = sum(stage.repeats for stage in stages)
        ends_width = 1.0 if self.fixed_ends else self.width

        x = conv(scaled_channels(32, ends_width), 3, strides=2, name='stem_conv')(x.astype(self.dtype))
        x = act(norm(name='stem_bn')(x))
        before = 0
        for i, stage in enumerate(stages, 1):
            for j in range(stage.repeats):
                rate = self.stochastic_depth * before / total
                strides = stage.strides if j == 0 else 1
                x = block(
                    stage.features,
                    stage.kernel_size,
                    strides,
                    stage.expansion,
                    drop_rate=rate,
                    name=f'stage{i}_block{j}',
                )(x)
                before += 1
        x = conv(scaled_channels(1280, ends_width), 1, name='last_conv')(x)
        x = act(norm(name='last_bn')(x))
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        head = nn.Dense(self.num_classes, kernel_init=initializer(self.head_init), dtype=self.dtype, name='head')
        return head(x).astype(jnp.float32)


class MBConv(nn.Module):
    """Inverted residual block (Sandler et al. 2018) with squeeze-and-excitation (Hu et al. 2018)."""

    features: int
    kernel_size: int
    strides: int
    expansion: int
    se_ratio: float
    drop_rate: float
    train: bool
    conv: Callable
    norm: Callable
    act: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        shortcut, narrow = x, x.shape[-1]
        channels = narrow * self.expansion
        if self.expansion != 1:
            x = self.conv(channels, 1, name='expand_conv')(x)
            x = self.act(self.norm(name='expand_bn')(x))
        x = self.conv(channels, self.kernel_size, strides=self.strides, groups=channels, name='depthwise_conv')(x)
        x = self.act(self.norm(name='depthwise_bn', writes_gradient=self.se_ratio > 0)(x))
        if self.se_ratio:
            reduce = self.conv(max(1, int(narrow * self.se_ratio)), 1, use_bias=True, name='se_reduce')
            expand = self.conv(channels, 1, use_bias=True, name='se_expand')
            x = squeeze_excitation(x, reduce, expand, self.act)
        x = self.conv(self.features, 1, name='project_conv')(x)
        x = self.norm(name='project_bn')(x)
        if self.strides != 1 or self.features != narrow:
            return x
        if self.train and self.drop_rate:
            x = drop_path(x, self.drop_rate, self.make_rng('dropout'))
        return x + shortcut


_TAN = 'Tan & Le 2019, arXiv:1905.11946, table 2'
_NOISY = 'Xie et al. 2019, arXiv:1911.04252'
_THREE = 'timm 1.0.31 (parameters, hooks on convolutions and dense layers) = torchvision = keras; paper: '
_TIMM = 'timm 1.0.31: parameters, forward hooks on convolutions and dense layers'

# Name: width, depth, resolution, dropout, trainable parameters, multiply-adds, paper, evidence.
NETS = {
    'b0': (1.0, 1.0, 224, 0.2, 5_288_548, 385_814_752, _TAN, _THREE + '5.3M, 0.39B'),
    'b1': (1.0, 1.1, 240, 0.2, 7_794_184, 686_802_832, _TAN, _THREE + '7.8M, 0.70B'),
    'b2': (1.1, 1.2, 260, 0.3, 9_109_994, 993_561_872, _TAN, _THREE + '9.2M, 1.0B'),
    'b3': (1.2, 1.4, 300, 0.3, 12_233_232, 1_827_141_392, _TAN, _THREE + '12M, 1.8B'),
    'b4': (1.4, 1.8, 380, 0.4, 19_341_616, 4_393_771_024, _TAN, _THREE + '19M, 4.2B'),
    'b5': (1.6, 2.2, 456, 0.4, 30_389_784, 10_266_384_752, _TAN, _THREE + '30M, 9.9B'),
    'b6': (1.8, 2.6, 528, 0.5, 43_040_704, 19_067_593_536, _TAN, _THREE + '43M, 19B'),
    'b7': (2.0, 3.1, 600, 0.5, 66_347_960, 37_745_884_192, _TAN, _THREE + '66M, 37B'),
    'b8': (2.2, 3.6, 672, 0.5, 87_413_142, 62_597_461_568, 'Xie et al. 2019, arXiv:1911.09665', _TIMM),
    'l2': (4.3, 5.3, 800, 0.5, 480_309_308, 475_703_653_280, _NOISY, _TIMM),
    'l2_475': (4.3, 5.3, 475, 0.5, 480_309_308, 170_892_857_680, _NOISY, _TIMM),
}

# The same for EfficientNet-Lite. Its table counts more than convolutions and dense layers: 407M for Lite0.
LITE_NETS = {
    'lite0': (1.0, 1.0, 224, 0.2, 4_652_008, 385_187_552),
    'lite1': (1.0, 1.1, 240, 0.2, 5_416_680, 600_185_232),
    'lite2': (1.1, 1.2, 260, 0.3, 6_092_072, 859_736_272),
    'lite3': (1.2, 1.4, 280, 0.3, 8_197_096, 1_383_321_872),
    'lite3_300': (1.2, 1.4, 300, 0.3, 8_197_096, 1_607_554_544),
    'lite4': (1.4, 1.8, 300, 0.3, 13_006_568, 2_553_034_336),
    'lite4_380': (1.4, 1.8, 380, 0.3, 13_006_568, 3_943_564_112),
}

VARIANTS = {
    f'efficientnet_{name}': Variant(
        module=EfficientNet,
        arguments=dict(width=width, depth=depth, dropout=dropout),
        input_shape=(size, size, 3),
        num_classes=1000,
        params=params,
        macs=macs,
        paper=paper,
        evidence=evidence,
    )
    for name, (width, depth, size, dropout, params, macs, paper, evidence) in NETS.items()
} | {
    f'efficientnet_{name}': Variant(
        module=EfficientNet,
        input_shape=(size, size, 3),
        num_classes=1000,
        params=params,
        macs=macs,
        arguments=dict(width=width, depth=depth, dropout=dropout, se_ratio=0.0, act='relu6', fixed_ends=True),
        paper='Tan & Le 2019, arXiv:1905.11946; tensorflow/tpu efficientnet/lite, 2020',
        evidence=_TIMM,
    )
    for name, (width, depth, size, dropout, params, macs) in LITE_NETS.items()
}

# Blocks of the first stage do not expand, and so have other names for the rest.
_TORCHVISION = Names(
    {
        'stem_conv': 'features.0.0',
        'stem_bn': 'features.0.1',
        'last_conv': 'features.8.0',
        'last_bn': 'features.8.1',
        'head': 'classifier.1',
    },
    within(
        'stage1_block{j}/',
        'features.1.{j}.block.',
        {
            'depthwise_conv': '0.0',
            'depthwise_bn': '0.1',
            'se_reduce': '1.fc1',
            'se_expand': '1.fc2',
            'project_conv': '2.0',
            'project_bn': '2.1',
        },
    ),
    within(
        'stage{i}_block{j}/',
        'features.{i}.{j}.block.',
        {
            'expand_conv': '0.0',
            'expand_bn': '0.1',
            'depthwise_conv': '1.0',
            'depthwise_bn': '1.1',
            'se_reduce': '2.fc1',
            'se_expand': '2.fc2',
            'project_conv': '3.0',
            'project_bn': '3.1',
        },
    ),
)
_TIMM = timm_inverted('se')
_KERAS = Names(
    {'last_conv': 'top_conv', 'last_bn': 'top_bn', 'head': 'predictions', 'stem_{layer}': 'stem_{layer}'},
    within(
        'stage{i}_block{j}/',
        'block{i}{j:a}_',
        {
            'depthwise_conv': 'dwconv',
            'depthwise_bn': 'bn',
            '{layer}': '{layer}',
        },
    ),
)


def _lukemelas(depth: float) -> Names:
    stages = scaled_stages(1.0, depth, fixed_ends=True)
    blocks = (f'stage{i}_block{j}/' for i, stage in enumerate(stages, 1) for j in range(stage.repeats))
    return Names(
        {'stem_conv': '_conv_stem', 'stem_bn': '_bn0', 'last_conv': '_conv_head', 'last_bn': '_bn1', 'head': '_fc'},
        *(
            within(
                block,
                f'_blocks.{number}._',
                {
                    'expand_bn': 'bn0',
                    'depthwise_bn': 'bn1',
                    'project_bn': 'bn2',
                    '{layer}': '{layer}',
                },
            )
            for number, block in enumerate(blocks)
        ),
    )


_SMALL = functools.partial(Reference, input_shape=(72, 64, 3))
_SAME = dict(bn_momentum=0.9, bn_unbiased=True)
_SYMMETRIC = dict(padding='torch', bn_eps=1e-5, bn_momentum=0.9, bn_unbiased=True)
_SYMMETRIC_B5 = dict(padding='torch', bn_eps=1e-3, bn_momentum=0.99, bn_unbiased=True)
_LIBRARY_NETS = [name for name in (*NETS, *LITE_NETS) if '_' not in name]  # a name with a size is the same net

REFERENCES = (
    {
        f'torchvision/efficientnet_{b}': _SMALL(
            variant=f'efficientnet_{b}',
            rename=_TORCHVISION,
            arguments=_SYMMETRIC_B5 if b in ('b5', 'b6', 'b7') else _SYMMETRIC,
        )
        for b in list(NETS)[:8]
    }
    | {
        f'timm/{prefix}efficientnet_{net}': _SMALL(variant=f'efficientnet_{net}', rename=_TIMM, arguments=arguments)
        for net in _LIBRARY_NETS
        for prefix, arguments in (('tf_', _SAME), ('', _SYMMETRIC))
    }
    | {f'keras/EfficientNet{b.upper()}': _SMALL(variant=f'efficientnet_{b}', rename=_KERAS) for b in list(NETS)[:8]}
    | {
        f'lukemelas/efficientnet-{net}': Reference(
            variant=f'efficientnet_{net}',
            rename=_lukemelas(LITE_NETS[net][1]),
            arguments=dict(bn_unbiased=True),
            input_shape=(LITE_NETS[net][2], LITE_NETS[net][2], 3),
        )
        for net in ('lite0', 'lite1', 'lite2', 'lite3')
    }
)
