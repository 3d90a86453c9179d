"""NFNet-F0 to F6 and F4+. Brock, De, Smith & Simonyan 2021, "High-performance large-scale image
recognition without normalization", ICML, arXiv:2102.06171, sections 4.1 and 4.2, tables 1 and 2.

Residual nets without batch norm: every convolution standardises its kernel over its fan-in, every
activation is scaled to keep unit variance (gamma), and each block divides its input by the standard
deviation expected there (beta) and weighs its branch by alpha = 0.2 and a gain that starts at 0.

Variants carry timm's names: `dm_nfnet_*` are DeepMind's nets, `nfnet_*` in timm are others. Their
input size is the paper's test size; training was at 192, 224, 256, 320, 384, 416, 448 pixels.

Where the authors' code (Apache-2.0, deepmind-research/nfnets) and timm differ, the defaults here
are the authors' and the reference sets timm's:
- GELU by its tanh approximation, timm's exactly;
- kernels: variance * fan-in is kept above 1e-4, timm adds 1e-5 to the variance;
- stochastic depth: block i of n is dropped at rate * i / n and kept blocks are not scaled up.

F4+: the authors' code would round the inner width 192 of its first stage down to one group of 128;
the paper's 527 M parameters need 192 in one group, as here. Its stem ends in 128 maps, as in
the other variants and as counted in the facts (526,959,220 and 366.2 G); the authors' code has half
of the first stage's width there, `stem_width=192` (527,033,076 and 367.4 G; the paper: 527 M, 367 G).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax

from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn import devices
from cvresearch.nn.channels import require_channels
from cvresearch.nn.conv import Conv, conv2d
from cvresearch.nn.initializers import initializer
from cvresearch.nn.pool import avg_pool, global_avg_pool
from cvresearch.nn.squeeze_excitation import SqueezeExcitation
from cvresearch.nn.stochastic_depth import is_off

# 1 / standard deviation of each activation of a standard normal variable.
GAMMA = {'gelu': 1.7015043497085571, 'relu': 1.7139588594436646, 'silu': 1.7881293296813965}
ACTIVATIONS = {
    'gelu': functools.partial(nn.gelu, approximate=False),
    'gelu_tanh': functools.partial(nn.gelu, approximate=True),
    'relu': nn.relu,
    'silu': nn.silu,
}
GROUP_WIDTH = 128


def scaled_activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns an activation times the gamma that gives it unit variance."""
    function, gamma = ACTIVATIONS[name], GAMMA[name.removesuffix('_tanh')]
    return lambda x: function(x) * gamma


class NFNet(nn.Module):
    """A normalizer-free net; `depths` and `widths` are of its four stages, `stem_width` of the stem's last map."""

    num_classes: int
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (256, 512, 1536, 1536)
    stem_width: int = 128
    dropout: float = 0.2
    stochastic_depth: float = 0.25
    alpha: float = 0.2
    act: str = 'gelu_tanh'
    eps: float = 1e-4
    eps_added: bool = False
    kernel_init: str | Callable = 'lecun_fan_in'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes)."""
        conv = functools.partial(
            StandardisedConv,
            eps=self.eps,
            eps_added=self.eps_added,
            kernel_init=initializer(self.kernel_init),
            dtype=self.dtype,
        )
        act = scaled_activation(self.act)
        block = functools.partial(NFBlock, conv=conv, act=act, train=train, alpha=self.alpha)

        x = x.astype(self.dtype)
        stem = ((16, 2), (32, 1), (64, 1), (self.stem_width, 2))
        for i, (features, strides) in enumerate(stem, 1):
            x = conv(features, 3, strides=strides, name=f'stem_conv{i}')(x)
            x = act(x) if i < len(stem) else x

        index, variance = 0, 1.0
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            for j in range(depth):
                drop = self.stochastic_depth * index / sum(self.depths)
                strides = 2 if j == 0 and stage > 1 else 1
                x = block(width, strides, beta=variance**-0.5, drop=drop, name=f'stage{stage}_block{j}')(x)
                # The shortcut of a stage's first block is itself of unit variance.
                variance = (1.0 if j == 0 else variance) + self.alpha**2
                index += 1

        x = act(conv(2 * self.widths[-1], 1, name='final_conv')(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(global_avg_pool(x))
        head = nn.Dense(self.num_classes, kernel_init=initializer('normal_0.01'), dtype=self.dtype, name='head')
        return head(x).astype(jnp.float32)


class StandardisedConv(nn.Module):
    """A convolution by gain * (kernel - mean) / (standard deviation * sqrt(fan-in)), for each output feature.

    The gain is (1, 1, 1, features), as PyTorch has it.
    """

    features: int
    kernel_size: int
    strides: int = 1
    groups: int = 1
    eps: float = 1e-4
    eps_added: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, features)."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        if self.has_variable('params', 'kernel'):
            expected = self.get_variable('params', 'kernel').shape[2] * self.groups
            require_channels(f'convolution {"/".join(self.path)}', x.shape[-1], expected)
        kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
        gain = self.param('gain', nn.initializers.ones_init(), (1, 1, 1, self.features), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,), jnp.float32)
        rows = kernel.reshape(-1, self.features)
        fan_in, variance = rows.shape[0], jnp.var(rows, axis=0)
        if self.eps_added:
            scaled = fan_in * (variance + self.eps)
        else:
            scaled = jnp.maximum(fan_in * variance, self.eps)
        kernel = (kernel - jnp.mean(rows, axis=0)) * (lax.rsqrt(scaled) * gain)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return conv2d(x, devices.whole(kernel), strides=self.strides, groups=self.groups) + bias


class NFBlock(nn.Module):
    """A bottleneck with two grouped 3x3 convolutions, squeeze-and-excitation and a gain (section 4.1, figure 3)."""

    width: int
    strides: int
    beta: float
    drop: float
    alpha: float
    train: bool
    conv: Callable[..., nn.Module]
    act: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, width)."""
        inner = self.width // 2
        grouped = functools.partial(self.conv, inner, 3, groups=max(1, inner // GROUP_WIDTH))
        y = self.act(x) * self.beta
        if self.strides > 1 or x.shape[-1] != self.width:
            pooled = avg_pool(y, 2, 2, 'SAME') if self.strides > 1 else y
            x = self.conv(self.width, 1, name='shortcut')(pooled)
        y = self.conv(inner, 1, name='conv1')(y)
        y = grouped(strides=self.strides, name='conv2')(self.act(y))
        y = grouped(name='conv2b')(self.act(y))
        y = self.conv(self.width, 1, name='conv3')(self.act(y))
        gate = SqueezeExcitation(2, functools.partial(Conv, kernel_size=1, dtype=y.dtype), name='se')
        y = 2 * gate(y)  # a sigmoid is 1/2 on average
        if self.train and self.drop and not is_off():
            kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - self.drop, (len(y), 1, 1, 1))
            y *= kept.astype(y.dtype)
        gain = self.param('skipinit_gain', nn.initializers.zeros_init(), (), jnp.float32)
        return x + y * (self.alpha * gain).astype(y.dtype)


_PAPER = 'Brock et al. 2021, ICML, arXiv:2102.06171, tables 1 and 2'
_MEASURED = 'timm 1.0.31 dm_nfnet: parameters, and multiply-adds by hooks; equal to the paper to the printed digit'


def _variant(depth: int, size: int, params: int, macs: int, evidence: str = _MEASURED, **arguments) -> Variant:
    """Returns the variant whose stages are `depth` times as deep as F0's."""
    return Variant(
        module=NFNet,
        input_shape=(size, size, 3),
        num_classes=1000,
        params=params,
        macs=macs,
        paper=_PAPER,
        evidence=evidence,
        arguments=dict(depths=tuple(depth * n for n in (1, 2, 6, 3)), **arguments),
    )


VARIANTS = {
    'dm_nfnet_f0': _variant(1, 256, 71_489_284, 12_384_198_656, dropout=0.2),
    'dm_nfnet_f1': _variant(2, 320, 132_634_256, 35_538_968_576, dropout=0.3),
    'dm_nfnet_f2': _variant(3, 352, 193_779_228, 62_592_978_944, dropout=0.4),
    'dm_nfnet_f3': _variant(4, 416, 254_924_200, 114_763_501_568, dropout=0.4),
    'dm_nfnet_f4': _variant(5, 512, 316_069_172, 215_241_187_328, dropout=0.5),
    'dm_nfnet_f5': _variant(6, 544, 377_214_144, 289_757_106_176, dropout=0.5),
    'dm_nfnet_f6': _variant(7, 576, 438_359_116, 377_280_307_200, dropout=0.5),
    'dm_nfnet_f4_plus': _variant(
        5, 512, 526_959_220, 366_205_976_576, dropout=0.5, widths=(384, 768, 2048, 2048),
        evidence='timm 1.0.31 code with these widths and inner width 192 in stage 1; paper: 527 M, 367 G, '
                 'as a stem of 192 has',
    ),
}  # fmt: skip

_TIMM = Names(
    {'stem_{layer}': 'stem.{layer}', 'head': 'head.fc', 'stage{i}_block{j}': 'stages.{i-1}.{j}'},
    within(
        'stage{i}_block{j}/',
        'stages.{i-1}.{j}.',
        {
            'shortcut': 'downsample.conv',
            'se/{layer}': 'attn_last.{layer}',
            '{layer}': '{layer}',
        },
    ),
    {'{layer}': '{layer}'},
)

REFERENCES = {
    f'timm/{name}': Reference(
        variant=name, rename=_TIMM, arguments=dict(act='gelu', eps=1e-5, eps_added=True), input_shape=(72, 72, 3)
    )
    for name in VARIANTS
    if name != 'dm_nfnet_f4_plus'
}
