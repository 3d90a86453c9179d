"""Residual nets for 32x32 images. He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition",
arXiv:1512.03385, section 4.2 and table 6. And, after the same plan of a stem and three stages:
- Xie et al. 2016, "Aggregated residual transformations for deep neural networks", arXiv:1611.05431,
  section 5.3 and table 7: ResNeXt-29.
- Huang et al. 2016, "Deep networks with stochastic depth", arXiv:1603.09382: the field `stochastic_depth`
  (0.5 in that paper, for depths 110 and 1202). There a block is dropped for the whole batch, here for
  each image; there its output is scaled down in evaluation, here it is scaled up in training.

Where shapes change, the ResNets' shortcuts are option A (every second pixel, zeros for the new channels;
here after the old ones, which the paper leaves open), or with `shortcut='projection'` option B, a 1x1 convolution
and batch norm, as ResNeXt's are. `plain20` and the others of that kind are the same nets without shortcuts, with
equal counts. Depth 110 is trained with a learning rate of 0.01 until the error falls under 80 %, then 0.1
(section 4.2). The paper has no dropout.

Of each stage all blocks but the first are identical and compiled once (nn/stacked.py).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import UserError, lookup
from cvresearch.models.variant import Variant
from cvresearch.nn.channels import zero_padded
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import global_avg_pool
from cvresearch.nn.stacked import Repeating
from cvresearch.nn.stochastic_depth import drop_path

SHORTCUTS = ('zeros', 'projection')


class CifarNet(Repeating):
    """A 3x3 convolution, three stages of blocks, the later two of which halve the map, and a classifier.

    Attributes:
      depth: layers with weights on the longest way, shortcuts aside: a multiple of the layers of three
        blocks, plus 2.
      stochastic_depth: drop rate of the last block; block b of n drops at b / n of it.
      zero_init_last: the last norm of each block starts at zero, and so each block as its shortcut.
    """

    num_classes: int
    depth: int
    stochastic_depth: float = 0.0
    zero_init_last: bool = False
    kernel_init: str = 'he_fan_in'
    bn: NormSpec = NormSpec()
    dtype: jnp.dtype = jnp.float32

    stem_width = 16
    block_layers = 2

    def block(self, **bricks: Callable) -> Callable[..., nn.Module]:
        """Returns what makes a block, given its width and strides."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels), in the papers 32x32x3, to (batch, num_classes)."""
        size, rest = divmod(self.depth - 2, 3 * self.block_layers)
        if rest or size < 1:
            raise UserError(f'{type(self).__name__} got depth {self.depth}, expected {3 * self.block_layers}n + 2')
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, use_bias=False, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        last_init = nn.initializers.zeros_init() if self.zero_init_last else nn.initializers.ones_init()
        bricks = dict(conv=conv, norm=norm, last_norm=functools.partial(norm, scale_init=last_init), act=nn.relu)
        drops = train and self.stochastic_depth > 0
        rates = self.stochastic_depth * jnp.arange(1, 3 * size + 1) / (3 * size)

        x = conv(self.stem_width, 3, padding=1, name='stem_conv')(x.astype(self.dtype))
        x = nn.relu(norm(name='stem_norm')(x))
        for i in range(3):
            prefix = f'stage{i + 1}_block'
            block = functools.partial(self.block(**bricks), width=self.stem_width * 2**i)
            rate = [rates[i * size : (i + 1) * size]] if drops else []
            x = block(strides=2 if i else 1, name=f'{prefix}0')(x, *(r[0] for r in rate))
            x = self.repeat(block, prefix, range(1, size), x, *(r[1:] for r in rate))
        x = global_avg_pool(x)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class CifarResNet(CifarNet):
    """Basic blocks, 16, 32 and 64 wide: depth 6n + 2.

    Attributes:
      residual: with shortcuts; without, the net is the paper's plain twin.
      shortcut: where shapes change, 'zeros' (option A) or 'projection' (option B).
      width: multiplier of all widths.
    """

    residual: bool = True
    shortcut: str = 'zeros'
    width: float = 1.0

    @property
    def stem_width(self) -> int:
        """Channels of the first convolution and the first stage."""
        return round(16 * self.width)

    def block(self, **bricks: Callable) -> Callable[..., nn.Module]:
        """Returns what makes a block, given its width and strides."""
        lookup('shortcut', dict.fromkeys(SHORTCUTS), self.shortcut)
        shortcut = self.shortcut if self.residual else 'none'
        return functools.partial(BasicBlock, **bricks, shortcut=shortcut)


class CifarResNeXt(CifarNet):
    """Bottlenecks with a grouped 3x3 convolution, 256, 512 and 1,024 wide: depth 9n + 2.

    Attributes:
      cardinality: groups of the 3x3 convolution.
      group_width: channels of a group in the first stage; they double with each stage.
    """

    cardinality: int = 8
    group_width: int = 64

    stem_width = 64
    block_layers = 3

    def block(self, **bricks: Callable) -> Callable[..., nn.Module]:
        """Returns what makes a block, given its width and strides."""
        return functools.partial(Bottleneck, **bricks, groups=self.cardinality, group_width=self.group_width)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input (2015 paper, figure 5, left)."""

    width: int
    conv: Callable
    norm: Callable
    last_norm: Callable
    act: Callable
    shortcut: str
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, rate: jax.Array | None = None) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, `width`).

        Args:
          x: the map.
          rate: with which an image skips the convolutions; None for none.
        """
        y = self.conv(self.width, 3, strides=self.strides, padding=1, name='conv1')(x)
        y = self.act(self.norm(name='norm1')(y))
        y = self.conv(self.width, 3, padding=1, name='conv2')(y)
        y = self.last_norm(name='norm2')(y)
        if rate is not None:
            y = drop_path(y, rate, self.make_rng('dropout'))
        return self.act(y if self.shortcut == 'none' else y + self._shortcut(x))

    def _shortcut(self, x: jax.Array) -> jax.Array:
        if self.shortcut == 'zeros' or x.shape[-1] == self.width:
            return zero_padded(x, self.width, self.strides)
        x = self.conv(self.width, 1, strides=self.strides, name='shortcut_conv')(x)
        return self.norm(name='shortcut_norm')(x)


class Bottleneck(nn.Module):
    """A 1x1, a grouped 3x3 and a 1x1 convolution, added to the input (2016 paper, figure 3c)."""

    width: int
    conv: Callable
    norm: Callable
    last_norm: Callable
    act: Callable
    groups: int
    group_width: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, rate: jax.Array | None = None) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / strides, width / strides, 4 * `width`).

        Args:
          x: the map.
          rate: with which an image skips the convolutions; None for none.
        """
        inner, outer = self.groups * self.group_width * self.width // 64, 4 * self.width
        y = self.act(self.norm(name='norm1')(self.conv(inner, 1, name='conv1')(x)))
        y = self.conv(inner, 3, strides=self.strides, padding=1, groups=self.groups, name='conv2')(y)
        y = self.act(self.norm(name='norm2')(y))
        y = self.last_norm(name='norm3')(self.conv(outer, 1, name='conv3')(y))
        if rate is not None:
            y = drop_path(y, rate, self.make_rng('dropout'))
        if x.shape[-1] != outer:
            x = self.norm(name='shortcut_norm')(self.conv(outer, 1, strides=self.strides, name='shortcut_conv')(x))
        return self.act(y + x)


# Depth: parameters, multiply-adds at 32x32 with 10 classes, parameters in the paper.
_RESNETS = {
    20: (269_722, 40_551_040, '0.27 M'),
    32: (464_154, 68_862_592, '0.46 M'),
    44: (658_586, 97_174_144, '0.66 M'),
    56: (853_018, 125_485_696, '0.85 M'),
    110: (1_727_962, 252_887_680, '1.7 M'),
    1202: (19_421_274, 2_829_238_912, '19.4 M'),
}

# (Cardinality, group width): the same.
_RESNEXTS = {(8, 64): (34_426_698, 5_387_266_048, '34.4 M'), (16, 64): (68_155_210, 10_688_866_304, '68.1 M')}


def _variant(module: type[nn.Module], paper: str, facts: tuple[int, int, str], **arguments) -> Variant:
    params, macs, in_paper = facts
    return Variant(
        module=module,
        arguments=arguments,
        input_shape=(32, 32, 3),
        num_classes=10,
        params=params,
        macs=macs,
        paper=paper,
        evidence=f'arithmetic, layer by layer; the paper has {in_paper}',
    )


_resnet = functools.partial(_variant, CifarResNet, 'He et al. 2015, arXiv:1512.03385, table 6')
_resnext = functools.partial(_variant, CifarResNeXt, 'Xie et al. 2016, arXiv:1611.05431, table 7')

VARIANTS = {
    **{f'resnet{depth}_cifar10': _resnet(facts, depth=depth) for depth, facts in _RESNETS.items()},
    **{
        f'plain{depth}_cifar10': _resnet(facts, depth=depth, residual=False)
        for depth, facts in _RESNETS.items()
        if depth <= 110
    },
    **{
        f'resnext29_{groups}x{width}d_cifar10': _resnext(facts, depth=29, cardinality=groups, group_width=width)
        for (groups, width), facts in _RESNEXTS.items()
    },
}
