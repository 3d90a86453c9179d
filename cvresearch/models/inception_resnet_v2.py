"""Inception-ResNet-v2. Szegedy, Ioffe, Vanhoucke & Alemi 2017, "Inception-v4, Inception-ResNet and
the impact of residual connections on learning", AAAI, arXiv:1602.07261, sections 3.2 and 3.3.

One variant, `inception_resnet_v2`, with the widths and scales of the authors' release (TF-slim),
which timm and Keras follow. It departs from the figures of the paper: it has the stem of
Inception-v3 and one module, not Inception-v4's; the maps have 320, 1088 and 2080 channels
where the figures have 384, 1154 and 2048; the residuals are scaled by 0.17, 0.10 and 0.20
(section 3.3 says 0.1 to 0.3), and the last block has neither scale nor ReLU.

Residual branches end in a 1x1 convolution with a bias and without batch norm. Average pooling
is over the pixels inside the image. The release and Keras have no gammas (`bn_scale=False`).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names, numbered, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.inception import ConvBN, Inception, chain, layer_names
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import avg_pool, global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least

TALL, WIDE = (7, 1), (1, 7)

STEM = ((32, 3, 2, 'VALID'), (32, 3, 1, 'VALID'), (64, 3), 'max', (80, 1), (192, 3, 1, 'VALID'), 'max')
MIXED = (((96, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3)), ('avg', (64, 1)))
REDUCTION_A = (((384, 3, 2, 'VALID'),), ((256, 1), (256, 3), (384, 3, 2, 'VALID')), ('max',))
REDUCTION_B = (
    ((256, 1), (384, 3, 2, 'VALID')),
    ((256, 1), (288, 3, 2, 'VALID')),
    ((256, 1), (288, 3), (320, 3, 2, 'VALID')),
    ('max',),
)
# Figures 16, 17 and 19, whose results are added to their input.
A = (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))
B = (((192, 1),), ((128, 1), (160, WIDE), (192, TALL)))
C = (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1))))
# A first module, then residual blocks: (branches, how many, scale).
STAGES = ((MIXED, A, 10, 0.17), (REDUCTION_A, B, 20, 0.10), (REDUCTION_B, C, 10, 0.20))


class InceptionResNetV2(nn.Module):
    """Inception-ResNet-v2."""

    num_classes: int
    dropout: float = 0.2
    bn_scale: bool = True
    bn: NormSpec = NormSpec(eps=1e-3)
    kernel_init: str = 'he_normal'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, num_classes).

        Raises:
          UserError: images under 75x75.
        """
        require_at_least('Inception-ResNet-v2', x.shape, 75)
        init = initializer(self.kernel_init)
        norm = self.bn.layer(train, self.dtype, use_scale=self.bn_scale)
        linear = functools.partial(Conv, kernel_init=init, dtype=self.dtype)
        conv = functools.partial(ConvBN, conv=functools.partial(linear, use_bias=False), norm=norm)
        average = functools.partial(avg_pool, window=3, strides=1, padding='SAME')
        pools = dict(avg=average, max=functools.partial(max_pool, window=3, strides=2))

        x = chain(x.astype(self.dtype), STEM, conv, pools, 'stem')
        for i, (first, branches, blocks, scale) in enumerate(STAGES, 1):
            x = Inception(first, conv, pools, name=f'stage{i}_block0')(x)
            for j in range(1, blocks + 1):
                last = i == len(STAGES) and j == blocks
                residual = Residual(branches, conv, linear, 1.0 if last else scale, name=f'stage{i}_block{j}')
                x = residual(x) if last else nn.relu(residual(x))
        x = conv(1536, 1, name='final')(x)
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class Residual(nn.Module):
    """Adds to a map what its branches make of it: x + scale * up(branches(x))."""

    branches: tuple
    conv: Callable
    linear: Callable
    scale: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to the same shape."""
        outputs = [chain(x, steps, self.conv, {}, f'branch{b}') for b, steps in enumerate(self.branches)]
        return x + self.scale * self.linear(x.shape[-1], 1, name='up')(jnp.concatenate(outputs, -1))


def conv_paths() -> list[str]:
    """Returns the module paths of the convolutions with batch norm, in the order in which Keras numbers them."""
    paths = layer_names(STEM, 'stem')
    for i, (first, branches, blocks, _) in enumerate(STAGES, 1):
        for j in range(blocks + 1):
            for b, steps in enumerate(branches if j else first):
                paths += [f'stage{i}_block{j}/{name}' for name in layer_names(steps, f'branch{b}')]
    return paths


# Steps of a branch have numbers, unless there is one.
_BRANCHES = {'branch0_0/{layer}': 'branch0.{layer}', 'branch{b}_{k}/{layer}': 'branch{b}.{k}.{layer}', 'up': 'conv2d'}
_TIMM = Names(
    {
        'stem_0/{layer}': 'conv2d_1a.{layer}',
        'stem_1/{layer}': 'conv2d_2a.{layer}',
        'stem_2/{layer}': 'conv2d_2b.{layer}',
        'stem_4/{layer}': 'conv2d_3b.{layer}',
        'stem_5/{layer}': 'conv2d_4a.{layer}',
        'final/{layer}': 'conv2d_7b.{layer}',
        'head': 'classif',
        'stage3_block0/branch{b}_{k}/{layer}': 'mixed_7a.branch{b}.{k}.{layer}',
    },
    within('stage1_block0/', 'mixed_5b.', _BRANCHES),
    within('stage1_block{j}/', 'repeat.{j-1}.', _BRANCHES),
    within('stage2_block0/', 'mixed_6a.', _BRANCHES),
    within('stage2_block{j}/', 'repeat_1.{j-1}.', _BRANCHES),
    within('stage3_block10/', 'block8.', _BRANCHES),
    within('stage3_block{j}/', 'repeat_2.{j-1}.', _BRANCHES),
)
_KERAS = Names(
    {
        'head': 'predictions',
        'final/conv': 'conv_7b',
        'final/bn': 'conv_7b_bn',
        'stage1_block{j}/up': 'block35_{j}_conv',
        'stage2_block{j}/up': 'block17_{j}_conv',
        'stage3_block{j}/up': 'block8_{j}_conv',
    },
    numbered(f'{path}/' for path in conv_paths()),
)


VARIANTS = {
    'inception_resnet_v2': Variant(
        module=InceptionResNetV2,
        input_shape=(299, 299, 3),
        num_classes=1000,
        params=55_843_464,
        macs=13_155_794_016,
        paper='Szegedy et al. 2016, arXiv:1602.07261',
        evidence='timm 1.0.31, measured; Keras has 30,272 gammas fewer',
    ),
}

REFERENCES = {
    'timm/inception_resnet_v2': Reference(
        variant='inception_resnet_v2', rename=_TIMM, arguments=dict(bn_unbiased=True, dropout=0.0),
        input_shape=(128, 107, 3),
    ),
    'keras/InceptionResNetV2': Reference(
        variant='inception_resnet_v2', rename=_KERAS,
        arguments=dict(bn_scale=False, bn_momentum=0.99, dropout=0.0), input_shape=(128, 107, 3),
    ),
}  # fmt: skip
