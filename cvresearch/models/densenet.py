"""DenseNet. Huang, Liu, van der Maaten & Weinberger 2017, "Densely connected convolutional
networks", CVPR, arXiv:1608.06993.

Each layer sees the maps of all layers before it in its block and adds `growth` maps of its own.

- `densenet121`, `169`, `201`, `264`: table 1, for ImageNet; all are DenseNet-BC (bottleneck and
  compression) with growth 32. By its own rule, 2 * sum(layers) + 5, the 264 has 265 layers.
- `densenet161`: of torchvision and timm, with growth 48 and a stem of 96 maps. Not in table 1.
- `densenet{depth}_k{growth}_cifar10`: section 3, plain, stem of 16 maps.
- `densenetbc{depth}_k{growth}_cifar10`: the same with bottleneck and compression, stem of twice
  the growth.

Pitfalls:
- Maps are concatenated oldest first. Another order permutes every weight that follows.
- The CIFAR stem is a bare convolution; its batch norm is the first layer's of each path.
- Section 3 describes the transition as batch norm and 1x1 convolution; the authors' code, like
  every other, has a ReLU in between.
- Dropout follows each convolution but the stem's (section 4.2: 0.2 on CIFAR without augmentation,
  none otherwise). torchvision drops after the 3x3 convolutions only.
- Keras adds 1.001e-5 to the variance and keeps 0.99 of the running statistics, torchvision 1e-5
  and 0.9.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import avg_pool, global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least


class DenseNet(nn.Module):
    """Dense blocks with a transition between each two.

    Attributes:
      num_classes: number of logits.
      layers: number of layers of each dense block.
      growth: maps that a layer adds, the paper's k.
      stem: 'imagenet' (7x7/2 convolution and 3x3/2 max pooling) or 'cifar' (3x3 convolution).
      stem_width: maps of the stem.
      bottleneck: a 1x1 convolution to 4 * growth maps before each 3x3, the paper's B.
      compression: share of the maps that a transition keeps; below 1 the paper's C.
      dropout: rate after each convolution but the stem's.
      bn: constants of the batch norms.
      kernel_init: initialiser of the convolutions; the paper's is He et al. 2015.
      dtype: of the computation.
    """

    num_classes: int
    layers: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    stem: str = 'imagenet'
    stem_width: int = 64
    bottleneck: bool = True
    compression: float = 0.5
    dropout: float = 0.0
    bn: NormSpec = NormSpec()
    kernel_init: str = 'he_fan_in'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits, float32 (batch, num_classes).

        Raises:
          UserError: images so small that the transitions leave no pixel.
        """
        conv = functools.partial(Conv, use_bias=False, kernel_init=initializer(self.kernel_init), dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
        layer = functools.partial(
            DenseLayer, self.growth, self.bottleneck, conv=conv, norm=norm, act=nn.relu, drop=drop
        )
        transition = functools.partial(Transition, conv=conv, norm=norm, act=nn.relu, drop=drop)

        self._require_pixels(x)
        x = x.astype(self.dtype)
        if self.stem == 'imagenet':
            x = conv(self.stem_width, 7, strides=2, padding=3, name='stem_conv')(x)
            x = max_pool(nn.relu(norm(name='stem_bn')(x)), 3, 2, padding=1, name='stem_pool')
        else:
            x = conv(self.stem_width, 3, name='stem_conv')(x)
        for i, layers in enumerate(self.layers, 1):
            for j in range(layers):
                new = layer(name=f'stage{i}_block{j}')(x)
                x = jnp.concatenate([x, new], axis=-1)
            if i < len(self.layers):
                x = transition(int(x.shape[-1] * self.compression), name=f'stage{i}_transition')(x)
        x = global_avg_pool(nn.relu(norm(name='last_bn')(x)))
        return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x).astype(jnp.float32)

    def _require_pixels(self, x: jax.Array) -> None:
        # Each transition halves and rounds down; the ImageNet stem quarters and rounds up.
        least = 2 ** (len(self.layers) - 1)
        if self.stem == 'imagenet':
            least = 4 * (least - 1) + 1
        require_at_least('DenseNet', x.shape, least)


class DenseLayer(nn.Module):
    """The paper's H: batch norm, ReLU and 3x3 convolution, after the same with 1x1 in a bottleneck."""

    growth: int
    bottleneck: bool
    conv: Callable
    norm: Callable
    act: Callable
    drop: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to the new maps (batch, height, width, growth)."""
        narrow = ((4 * self.growth, 1),) if self.bottleneck else ()
        for i, (features, size) in enumerate((*narrow, (self.growth, 3)), 1):
            x = self.act(self.norm(name=f'bn{i}')(x))
            x = self.drop(name=f'dropout{i}')(self.conv(features, size, name=f'conv{i}')(x))
        return x


class Transition(nn.Module):
    """Batch norm, ReLU, 1x1 convolution and 2x2 average pooling between two dense blocks."""

    features: int
    conv: Callable
    norm: Callable
    act: Callable
    drop: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height // 2, width // 2, features)."""
        x = self.conv(self.features, 1, name='conv')(self.act(self.norm(name='bn')(x)))
        return avg_pool(self.drop(name='dropout')(x), 2, name='pool')


_TORCH = Names(
    {
        'stem_conv': 'features.conv0',
        'stem_bn': 'features.norm0',
        'last_bn': 'features.norm5',
        'head': 'classifier',
        'stage{i}_block{j}/conv{n}': 'features.denseblock{i}.denselayer{j+1}.conv{n}',
        'stage{i}_block{j}/bn{n}': 'features.denseblock{i}.denselayer{j+1}.norm{n}',
        'stage{i}_transition/conv': 'features.transition{i}.conv',
        'stage{i}_transition/bn': 'features.transition{i}.norm',
    }
)
_KERAS = Names(
    {
        'stem_conv': 'conv1_conv',
        'stem_bn': 'conv1_bn',
        'last_bn': 'bn',
        'head': 'predictions',
        'stage{i}_block{j}/conv{n}': 'conv{i+1}_block{j+1}_{n}_conv',
        'stage{i}_block{j}/bn{n}': 'conv{i+1}_block{j+1}_{n-1}_bn',
        'stage{i}_transition/{layer}': 'pool{i+1}_{layer}',
    }
)

_PAPER = 'Huang et al. 2017, CVPR, arXiv:1608.06993'
_IMAGENET = functools.partial(
    Variant, module=DenseNet, input_shape=(224, 224, 3), num_classes=1000, paper=f'{_PAPER}, table 1'
)
_CIFAR = functools.partial(
    Variant, module=DenseNet, input_shape=(32, 32, 3), num_classes=10, paper=f'{_PAPER}, table 2'
)
_MEASURED = 'parameters measured on torchvision 0.28.0 and Keras 3, multiply-adds by forward hooks on torchvision'
_TALLY = 'arithmetic, layer by layer; the paper says {}'.format


def _plain(layers: int, growth: int) -> dict:
    return dict(layers=(layers,) * 3, growth=growth, stem='cifar', stem_width=16, bottleneck=False, compression=1.0)


def _bc(layers: int, growth: int) -> dict:
    return dict(layers=(layers,) * 3, growth=growth, stem='cifar', stem_width=2 * growth)


VARIANTS = {
    'densenet121': _IMAGENET(params=7_978_856, macs=2_834_161_664, evidence=_MEASURED),
    'densenet161': _IMAGENET(
        paper=f'torchvision, after {_PAPER}', params=28_681_000, macs=7_727_907_072,
        evidence='torchvision 0.28.0 = timm 1.0.31, measured; multiply-adds by forward hooks',
        arguments=dict(layers=(6, 12, 36, 24), growth=48, stem_width=96),
    ),
    'densenet169': _IMAGENET(
        params=14_149_480, macs=3_359_843_328, evidence=_MEASURED,
        arguments=dict(layers=(6, 12, 32, 32)),
    ),
    'densenet201': _IMAGENET(
        params=20_013_928, macs=4_291_365_888, evidence=_MEASURED,
        arguments=dict(layers=(6, 12, 48, 32)),
    ),
    'densenet264': _IMAGENET(
        params=33_337_704, macs=5_751_653_376,
        evidence='arithmetic, layer by layer: torchvision.models.DenseNet(32, (6, 12, 64, 48), 64)',
        arguments=dict(layers=(6, 12, 64, 48)),
    ),
    'densenet40_k12_cifar10': _CIFAR(
        params=1_019_722, macs=264_812_928, evidence=_TALLY('1.0M'), arguments=_plain(12, 12),
    ),
    'densenet100_k12_cifar10': _CIFAR(
        params=6_979_642, macs=1_769_516_448, evidence=_TALLY('7.0M'), arguments=_plain(32, 12),
    ),
    'densenet100_k24_cifar10': _CIFAR(
        params=27_249_082, macs=6_889_347_744, evidence=_TALLY('27.2M'), arguments=_plain(32, 24),
    ),
    'densenetbc100_k12_cifar10': _CIFAR(
        params=769_162, macs=287_929_692, evidence=_TALLY('0.8M'), arguments=_bc(16, 12),
    ),
    'densenetbc250_k24_cifar10': _CIFAR(
        params=15_324_406, macs=5_418_785_724, evidence=_TALLY('15.3M'), arguments=_bc(41, 24),
    ),
    'densenetbc190_k40_cifar10': _CIFAR(
        params=25_624_430, macs=9_301_945_740, evidence=_TALLY('25.6M'), arguments=_bc(31, 40),
    ),
}  # fmt: skip

_SMALL = (72, 80, 3)  # odd at the last two transitions, and not square
_TORCH_REFERENCE = functools.partial(
    Reference,
    rename=_TORCH,
    arguments=dict(bn_unbiased=True),
    input_shape=_SMALL,
    published=((r'(.*\.denselayer\d+\.(?:norm|conv))\.([12]\..*)', r'\1\2'),),  # norm.1, since numbers were modules
)
_KERAS_REFERENCE = functools.partial(
    Reference,
    rename=_KERAS,
    arguments=dict(bn_eps=1.001e-5, bn_momentum=0.99),
    input_shape=_SMALL,
    # As keras-applications 1.0 named them, when the files were made.
    published=((r'conv1/(conv|bn)/(.*)', r'conv1_\1/\2'), (r'fc1000/(.*)', r'predictions/\1')),
)

REFERENCES = {
    **{
        f'{library}/densenet{depth}': _TORCH_REFERENCE(f'densenet{depth}')
        for library in ('torchvision', 'timm')
        for depth in (121, 161, 169, 201)
    },
    **{f'keras/DenseNet{depth}': _KERAS_REFERENCE(f'densenet{depth}') for depth in (121, 169, 201)},
}
