"""Inception-v4. Szegedy, Ioffe, Vanhoucke & Alemi 2017, "Inception-v4, Inception-ResNet and the
impact of residual connections on learning", AAAI, arXiv:1602.07261, section 3.1 and figures 3
to 9.

One variant, `inception_v4`: Inception modules without any residual connection (the residual
nets of the same paper are Inception-ResNets, in inception_resnet_v2.py). Convolutions marked V
in the figures are VALID, the rest SAME. The widths are as in the authors' release (TF-slim),
as in the figures; its training-time auxiliary head is not in the paper, nor here. Average
pooling is over the pixels inside the image.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.inception import ConvBN, Inception, chain
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import avg_pool, global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least

TALL, WIDE = (7, 1), (1, 7)

STEM = ((32, 3, 2, 'VALID'), (32, 3, 1, 'VALID'), (64, 3))
# Figure 3: the stem goes on in three modules.
STEM_MODULES = (
    (('max',), ((96, 3, 2, 'VALID'),)),
    (((64, 1), (96, 3, 1, 'VALID')), ((64, 1), (64, WIDE), (64, TALL), (96, 3, 1, 'VALID'))),
    (((192, 3, 2, 'VALID'),), ('max',)),
)
# Figures 4, 5 and 6: Inception-A, B and C.
A = (((96, 1),), ((64, 1), (96, 3)), ((64, 1), (96, 3), (96, 3)), ('avg', (96, 1)))
B = (
    ((384, 1),),
    ((192, 1), (224, WIDE), (256, TALL)),
    ((192, 1), (192, TALL), (224, WIDE), (224, TALL), (256, WIDE)),
    ('avg', (128, 1)),
)
FORK = ((256, (1, 3)), (256, (3, 1)))
C = (((256, 1),), ((384, 1), FORK), ((384, 1), (448, (3, 1)), (512, (1, 3)), FORK), ('avg', (256, 1)))
# Figure 7 with k, l, m, n = 192, 224, 256, 384 (table 1), and figure 8.
REDUCTION_A = (((384, 3, 2, 'VALID'),), ((192, 1), (224, 3), (256, 3, 2, 'VALID')), ('max',))
REDUCTION_B = (
    ((192, 1), (192, 3, 2, 'VALID')),
    ((256, 1), (256, WIDE), (320, TALL), (320, 3, 2, 'VALID')),
    ('max',),
)
STAGES = ((A,) * 4, (REDUCTION_A, *(B,) * 7), (REDUCTION_B, *(C,) * 3))


class InceptionV4(nn.Module):
    """Inception-v4."""

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
        require_at_least('Inception-v4', x.shape, 75)
        init = initializer(self.kernel_init)
        norm = self.bn.layer(train, self.dtype, use_scale=self.bn_scale)
        conv = functools.partial(
            ConvBN, conv=functools.partial(Conv, use_bias=False, kernel_init=init, dtype=self.dtype), norm=norm
        )
        average = functools.partial(avg_pool, window=3, strides=1, padding='SAME')
        pools = dict(avg=average, max=functools.partial(max_pool, window=3, strides=2))

        x = chain(x.astype(self.dtype), STEM, conv, pools, 'stem')
        for j, branches in enumerate(STEM_MODULES):
            x = Inception(branches, conv, pools, name=f'stem_block{j}')(x)
        for i, stage in enumerate(STAGES, 1):
            for j, branches in enumerate(stage):
                x = Inception(branches, conv, pools, name=f'stage{i}_block{j}')(x)
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


# timm numbers everything before the pooling through. Steps of a branch have numbers, unless there is one; where
# convolutions are side by side our names are its own.
_ALONE = {'branch0_0/{layer}': 'branch0.{layer}'}
_NUMBERED = {'branch{b}_{k}/{layer}': 'branch{b}.{k}.{layer}'}
_TIMM = Names(
    {'stem_{n}/{layer}': 'features.{n}.{layer}', 'head': 'last_linear'},
    within('stem_block0/', 'features.3.', {'branch1_0/{layer}': 'conv.{layer}'}),
    within('stem_block1/', 'features.4.', _NUMBERED),
    within('stem_block2/', 'features.5.', {'branch0_0/{layer}': 'conv.{layer}'}),
    within('stage1_block{j}/', 'features.{j+6}.', _ALONE | _NUMBERED),
    within('stage2_block{j}/', 'features.{j+10}.', _ALONE | _NUMBERED),
    within('stage3_block0/', 'features.18.', _NUMBERED),
    within(
        'stage3_block{j}/',
        'features.{j+18}.',
        {
            **_ALONE,
            'branch3_{k}/{layer}': 'branch3.{k}.{layer}',
            '{branch}/{layer}': '{branch}.{layer}',
        },
    ),
)


VARIANTS = {
    'inception_v4': Variant(
        module=InceptionV4,
        input_shape=(299, 299, 3),
        num_classes=1000,
        params=42_679_816,
        macs=12_253_974_624,
        paper='Szegedy et al. 2016, arXiv:1602.07261',
        evidence='timm 1.0.31, measured',
    ),
}

REFERENCES = {
    'timm/inception_v4': Reference(
        variant='inception_v4',
        rename=_TIMM,
        arguments=dict(bn_unbiased=True, dropout=0.0),
        input_shape=(128, 107, 3),
    ),
}
