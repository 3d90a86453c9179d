"""Xception. Chollet 2016, "Xception: deep learning with depthwise separable convolutions",
arXiv:1610.02357 (CVPR 2017), section 3 and figure 5.

Inception's hypothesis taken to its end: channels and space are separated altogether. 36
convolutions in 14 modules; all but the first and the last have a residual connection.

Pitfalls:
- Batch norm comes after the pointwise convolution only. Nothing lies between depthwise and
  pointwise: a ReLU there costs accuracy (section 4.7, figure 10; `intermediate_act`).
- No ReLU opens the first block (the stem has just ended in one), and the max pooling comes before
  the addition, not after it.
- The two stem convolutions are not padded. The poolings are, and TensorFlow's SAME differs from
  PyTorch's symmetric padding on maps of even size (74 at 299 pixels): `padding`.
- Keras and the paper's weights have epsilon 1e-3, timm's port of them 1e-5.

Not here: the fully connected layers that the paper puts before the classifier for JFT.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import lookup
from cvresearch.models.names import Names, numbered, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.padding import padding_of
from cvresearch.nn.pool import global_avg_pool, max_pool
from cvresearch.nn.separable import SeparableConv
from cvresearch.nn.shapes import require_at_least

# Figure 5. Stages of (strides, blocks); a block is the widths of its separable convolutions.
STAGES = (
    (2, ((128, 128), (256, 256), (728, 728))),  # entry flow
    (1, ((728, 728, 728),) * 8),  # middle flow
    (2, ((728, 1024),)),  # exit flow
)
TAIL = (1536, 2048)

BETWEEN = {'none': None, 'relu': nn.relu, 'elu': nn.elu}  # section 4.7


class Xception(nn.Module):
    """Xception.

    Attributes:
      intermediate_act: between depthwise and pointwise convolution: 'none', 'relu' or 'elu'
        (section 4.7).
      residual: with the residual connections (section 4.6).
      padding: of the max poolings, 'SAME' as TensorFlow or 'torch' (symmetric).
    """

    num_classes: int
    dropout: float = 0.5
    intermediate_act: str = 'none'
    residual: bool = True
    padding: str = 'SAME'
    bn: NormSpec = NormSpec(momentum=0.99, eps=1e-3)
    kernel_init: str | Callable = 'glorot_uniform'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, num_classes).

        Raises:
          UserError: images of less than 7x7, which the stem leaves nothing of.
        """
        require_at_least('Xception', x.shape, 7)
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, use_bias=False, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        between = lookup('intermediate activation', BETWEEN, self.intermediate_act)
        sep = functools.partial(SeparableConv, conv=conv, between=between)
        pool = functools.partial(max_pool, window=3, strides=2, padding=padding_of(self.padding, 3))

        x = x.astype(self.dtype)
        for i, (features, strides) in enumerate([(32, 2), (64, 1)]):
            x = conv(features, 3, strides=strides, padding='VALID', name=f'stem_conv{i}')(x)
            x = nn.relu(norm(name=f'stem_bn{i}')(x))
        for i, (strides, blocks) in enumerate(STAGES, 1):
            for j, widths in enumerate(blocks):
                block = Block(
                    widths,
                    strides,
                    opens_with_act=(i, j) != (1, 0),
                    residual=self.residual,
                    conv=conv,
                    norm=norm,
                    sep=sep,
                    pool=pool,
                    name=f'stage{i}_block{j}',
                )
                x = block(x)
        for i, features in enumerate(TAIL):
            x = sep(features, name=f'tail_sep{i}')(x)
            x = nn.relu(norm(name=f'tail_bn{i}')(x))
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class Block(nn.Module):
    """ReLU, separable convolution, batch norm, once for each width; then pooling where strided."""

    widths: tuple[int, ...]
    strides: int
    opens_with_act: bool
    residual: bool
    conv: Callable
    norm: Callable
    sep: Callable
    pool: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, ceil(height / strides), ..., widths[-1])."""
        skip = x
        for i, features in enumerate(self.widths):
            x = nn.relu(x) if i or self.opens_with_act else x
            x = self.sep(features, name=f'sep{i}')(x)
            x = self.norm(name=f'bn{i}')(x)
        if self.strides > 1:
            x = self.pool(x)
        if not self.residual:
            return x
        if self.strides > 1:
            skip = self.conv(self.widths[-1], 1, strides=self.strides, name='skip_conv')(skip)
            skip = self.norm(name='skip_bn')(skip)
        return x + skip


VARIANTS = {
    'xception': Variant(
        module=Xception,
        input_shape=(299, 299, 3),
        num_classes=1000,
        params=22_855_952,
        macs=8_357_403_496,
        paper='Chollet 2016, arXiv:1610.02357',
        evidence='params: paper, Table 3, and keras 3.15.1 measured (trainable); macs: keras 3.15.1 layer shapes',
    ),
}

# Both libraries number the blocks throughout, and Keras the nameless shortcuts of the strided ones.
_BLOCKS = [
    (f'stage{i}_block{j}/', strides) for i, (strides, blocks) in enumerate(STAGES, 1) for j in range(len(blocks))
]
_STRIDED = [block for block, strides in _BLOCKS if strides > 1]


def _in_timm(block: str, number: int) -> dict[str, str]:
    table = {'skip_conv': 'skip', 'skip_bn': 'skipbn'}
    for i in range(3):
        position = 3 * i + (number > 1)  # a ReLU is first, but in the first block
        table |= {
            f'sep{i}/depthwise': f'rep.{position}.conv1',
            f'sep{i}/pointwise': f'rep.{position}.pointwise',
            f'bn{i}': f'rep.{position + 1}',
        }
    return within(block, f'block{number}.', table)


_TIMM = Names(
    {
        'stem_conv{n}': 'conv{n+1}',
        'stem_bn{n}': 'bn{n+1}',
        'tail_bn{n}': 'bn{n+3}',
        'head': 'fc',
        'tail_sep{n}/depthwise': 'conv{n+3}.conv1',
        'tail_sep{n}/pointwise': 'conv{n+3}.pointwise',
    },
    *(_in_timm(block, number) for number, (block, _) in enumerate(_BLOCKS, 1)),
)
# The two kernels of a separable layer keep '/depthwise' and '/pointwise' after the layer's name.
_SEPARABLE = {'sep{n}/{kernel}': 'sepconv{n+1}/{kernel}', 'bn{n}': 'sepconv{n+1}_bn'}
_KERAS = Names(
    {'stem_conv{n}': 'block1_conv{n+1}', 'stem_bn{n}': 'block1_conv{n+1}_bn', 'head': 'predictions'},
    *(within(block, f'block{number}_', _SEPARABLE) for number, (block, _) in enumerate(_BLOCKS, 2)),
    within('tail_', f'block{2 + len(_BLOCKS)}_', _SEPARABLE),
    numbered(f'{block}skip_' for block in _STRIDED),
)


REFERENCES = {
    'timm/legacy_xception': Reference(
        variant='xception',
        rename=_TIMM,
        input_shape=(96, 96, 3),
        arguments=dict(padding='torch', bn_eps=1e-5, bn_momentum=0.9, bn_unbiased=True),
    ),
    'keras/Xception': Reference(variant='xception', rename=_KERAS, input_shape=(96, 96, 3)),
}
