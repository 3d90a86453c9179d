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
import re
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import lookup
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
                    widths, strides, opens_with_act=(i, j) != (1, 0), residual=self.residual,
                    conv=conv, norm=norm, sep=sep, pool=pool, name=f'stage{i}_block{j}',
                )  # fmt: skip
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
        module=Xception, input_shape=(299, 299, 3), num_classes=1000, params=22_855_952, macs=8_357_403_496,
        paper='Chollet 2016, arXiv:1610.02357',
        evidence='params: paper, Table 3, and keras 3.15.1 measured (trainable); macs: keras 3.15.1 layer shapes',
    ),
}  # fmt: skip


# Modules of both libraries number the blocks throughout: ours of (stage, block) is theirs.
_NUMBER = {
    (str(i), str(j)): 1 + j + sum(len(blocks) for _, blocks in STAGES[: i - 1])
    for i, (_, blocks) in enumerate(STAGES, 1)
    for j in range(len(blocks))
}
_TIMM_SEP = {'/depthwise': '.conv1', '/pointwise': '.pointwise'}
_STRIDED = [number for key, number in _NUMBER.items() if STAGES[int(key[0]) - 1][0] > 1]


def _timm(path: str) -> str:
    if path == 'head':
        return 'fc'
    if found := re.fullmatch(r'(stem|tail)_(?:conv|sep|(bn))(\d)(/.*)?', path):
        flow, is_norm, i, rest = found.groups()
        number = int(i) + (1 if flow == 'stem' else 3)
        return f'bn{number}' if is_norm else f'conv{number}{_TIMM_SEP.get(rest, "")}'
    stage, block, rest = re.fullmatch(r'stage(\d)_block(\d)/(.*)', path).groups()
    number = _NUMBER[stage, block]
    if rest.startswith('skip'):
        return f'block{number}.{rest.replace("_conv", "").replace("_", "")}'
    layer, i, rest = re.fullmatch(r'(sep|bn)(\d)(/.*)?', rest).groups()
    position = 3 * int(i) + (number > 1) + (layer == 'bn')
    return f'block{number}.rep.{position}{_TIMM_SEP.get(rest, "")}'


def _keras(path: str) -> str:
    """The two kernels of a separable layer keep '/depthwise' and '/pointwise' after the layer's name."""
    if path == 'head':
        return 'predictions'
    if found := re.fullmatch(r'stem_(conv|bn)(\d)', path):
        return f'block1_conv{int(found[2]) + 1}{"_bn" if found[1] == "bn" else ""}'
    if found := re.fullmatch(r'tail_(sep|bn)(\d)(/.*)?', path):
        number = 2 + len(_NUMBER)
    else:
        stage, block, rest = re.fullmatch(r'stage(\d)_block(\d)/(.*)', path).groups()
        number = 1 + _NUMBER[stage, block]
        if rest.startswith('skip'):  # nameless in Keras, so numbered
            count = _STRIDED.index(number - 1)
            return ('conv2d' if rest == 'skip_conv' else 'batch_normalization') + (f'_{count}' if count else '')
        found = re.fullmatch(r'(sep|bn)(\d)(/.*)?', rest)
    layer, i, kernel = found.groups()
    return f'block{number}_sepconv{int(i) + 1}{"_bn" if layer == "bn" else kernel}'


REFERENCES = {
    'timm/legacy_xception': Reference(
        variant='xception', rename=_timm, input_shape=(96, 96, 3),
        arguments=dict(padding='torch', bn_eps=1e-5, bn_momentum=0.9, bn_unbiased=True),
    ),
    'keras/Xception': Reference(variant='xception', rename=_keras, input_shape=(96, 96, 3)),
}  # fmt: skip
