"""Inception-v3. Szegedy, Vanhoucke, Ioffe, Shlens & Wojna 2016, "Rethinking the Inception
architecture for computer vision", CVPR, arXiv:1512.00567, sections 3 to 6.

- `inception_v3`: the net at evaluation. `inception_v3_aux`: with the auxiliary head, whose
  convolutions have batch norm too (the paper's BN-auxiliary), for training at 299 px and up.

The paper prints no filter counts; these are of the authors' release (TF-slim), which every
library took over. Where libraries differ, the defaults are the release's:
- average pooling over the pixels inside the image; torchvision and timm count the padding
  (`count_include_pad`), which changes the borders of every map;
- batch norm with eps 1e-3. The release and Keras have no gammas (`bn_scale=False`); the
  counts of the literature have them;
- dropout 0.2. torchvision has 0.5, timm and Keras none.
torchvision's weights want [-1, 1] and are fed what ImageNet's mean and deviation left:
`transform_input=True`. The "Inception-v2" of the paper's table 1 is a step on the way, not
specified well enough to be built; BN-Inception is in bn_inception.py.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import UserError
from cvresearch.models.names import Names, numbered, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.inception import ConvBN, Inception, chain, layer_names, to_unit_range
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import avg_pool, global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least


def grid35(projection: int) -> tuple:
    """Figure 5, the 5x5 kept in one branch: three blocks at 35x35."""
    return ((64, 1),), ((48, 1), (64, 5)), ((64, 1), (96, 3), (96, 3)), ('avg', (projection, 1))


def grid17(width: int) -> tuple:
    """Figure 6 with n = 7: four blocks at 17x17."""
    tall, wide = (7, 1), (1, 7)
    short = ((width, 1), (width, wide), (192, tall))
    long = ((width, 1), (width, tall), (width, wide), (width, tall), (192, wide))
    return ((192, 1),), short, long, ('avg', (192, 1))


# Figure 7: two blocks at 8x8, whose branches end in a 1x3 and a 3x1 side by side.
_FORK = ((384, (1, 3)), (384, (3, 1)))
GRID8 = (((320, 1),), ((384, 1), _FORK), ((448, 1), (384, 3), _FORK), ('avg', (192, 1)))

# Figure 10: the grid is halved by strided convolutions and a pool side by side.
REDUCTION17 = (((384, 3, 2, 'VALID'),), ((64, 1), (96, 3), (96, 3, 2, 'VALID')), ('max',))
REDUCTION8 = (
    ((192, 1), (320, 3, 2, 'VALID')),
    ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 'VALID')),
    ('max',),
)

STEM = ((32, 3, 2, 'VALID'), (32, 3, 1, 'VALID'), (64, 3), 'max', (80, 1), (192, 3, 1, 'VALID'), 'max')
STAGES = (
    (grid35(32), grid35(64), grid35(64)),
    (REDUCTION17, grid17(128), grid17(160), grid17(160), grid17(192)),
    (REDUCTION8, GRID8, GRID8),
)


class InceptionV3(nn.Module):
    """Inception-v3.

    Attributes:
      num_classes: number of logits.
      aux: has the auxiliary head; in training the call returns (logits, [auxiliary logits]).
      aux_weight: of the auxiliary loss beside the main one (0.4 in the authors' release).
      transform_input: takes images normalized with ImageNet's mean and deviation to [-1, 1].
      count_include_pad: average pooling counts the padding, as torchvision and timm do.
      bn_scale: batch norm has gammas.
    """

    num_classes: int
    aux: bool = False
    aux_weight: float = 0.4
    transform_input: bool = False
    dropout: float = 0.2
    count_include_pad: bool = False
    bn_scale: bool = True
    bn: NormSpec = NormSpec(eps=1e-3)
    kernel_init: str = 'he_normal'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        """Maps (batch, height, width, channels) to (batch, num_classes).

        Raises:
          UserError: images under 75x75, or under 299x299 where the auxiliary head runs.
        """
        require_at_least('Inception-v3', x.shape, 75)
        init = initializer(self.kernel_init)
        norm = self.bn.layer(train, self.dtype, use_scale=self.bn_scale)
        conv = functools.partial(
            ConvBN, conv=functools.partial(Conv, use_bias=False, kernel_init=init, dtype=self.dtype), norm=norm
        )
        average = functools.partial(
            avg_pool, window=3, strides=1, padding='SAME', count_include_pad=self.count_include_pad
        )
        pools = dict(avg=average, max=functools.partial(max_pool, window=3, strides=2))

        x = (to_unit_range(x) if self.transform_input else x).astype(self.dtype)
        x = chain(x, STEM, conv, pools, 'stem')
        extra = []
        for i, stage in enumerate(STAGES, 1):
            for j, branches in enumerate(stage):
                x = Inception(branches, conv, pools, name=f'stage{i}_block{j}')(x)
            if i == 2 and self.aux and (train or self.is_initializing()):
                extra.append(AuxiliaryHead(self.num_classes, conv, self.dtype, name='aux1')(x))
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)
        return (logits, extra) if train and self.aux else logits


class AuxiliaryHead(nn.Module):
    """The classifier on the last 17x17 map (section 4, figure 8)."""

    num_classes: int
    conv: Callable
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels), at least 17x17, to (batch, num_classes)."""
        height, width = x.shape[1:3]
        if min(height, width) < 17:
            raise UserError(
                f'the auxiliary head of Inception-v3 got a map of {height}x{width}, expected at least 17x17: '
                'give images of 299x299 or more, or aux=False'
            )
        x = avg_pool(x, 5, 3, name='pool')
        x = self.conv(128, 1, name='conv0')(x)
        x = self.conv(768, 5, 1, 'VALID', name='conv1')(x)
        x = global_avg_pool(x)
        # A small start, as released: the main classifier should lead at first.
        init = initializer('truncated_normal_0.001')
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='fc')(x).astype(jnp.float32)


def conv_paths() -> list[str]:
    """Returns the module paths of all convolutions, in the order in which Keras numbers them."""
    paths = layer_names(STEM, 'stem')
    for i, stage in enumerate(STAGES, 1):
        for j, branches in enumerate(stage):
            for b, steps in enumerate(branches):
                paths += [f'stage{i}_block{j}/{name}' for name in layer_names(steps, f'branch{b}')]
    return paths


def _mixed(ours: str, theirs: str, *branches: str) -> dict[str, str]:
    """Returns the names of a module: of a branch that ends in an underscore the convolutions are numbered."""
    table = {}
    for number, branch in enumerate(branches):
        for letter in ('', '{letter}') if branch.endswith('_') else ('',):
            step = f'{{k+1}}{letter}' if branch.endswith('_') else ''
            table[f'branch{number}_{{k}}{letter}/{{layer}}'] = f'branch{branch}{step}.{{layer}}'
    return within(ours, theirs, table)


_TORCH = Names(
    {
        'stem_0/{layer}': 'Conv2d_1a_3x3.{layer}',
        'stem_1/{layer}': 'Conv2d_2a_3x3.{layer}',
        'stem_2/{layer}': 'Conv2d_2b_3x3.{layer}',
        'stem_4/{layer}': 'Conv2d_3b_1x1.{layer}',
        'stem_5/{layer}': 'Conv2d_4a_3x3.{layer}',
        'aux1/conv{n}/{layer}': 'AuxLogits.conv{n}.{layer}',
        'aux1/fc': 'AuxLogits.fc',
        'head': 'fc',
    },
    _mixed('stage1_block{j}/', 'Mixed_5{j:b}.', '1x1', '5x5_', '3x3dbl_', '_pool'),
    _mixed('stage2_block0/', 'Mixed_6a.', '3x3', '3x3dbl_'),
    _mixed('stage2_block{j}/', 'Mixed_6{j:a}.', '1x1', '7x7_', '7x7dbl_', '_pool'),
    _mixed('stage3_block0/', 'Mixed_7a.', '3x3_', '7x7x3_'),
    _mixed('stage3_block{j}/', 'Mixed_7{j:a}.', '1x1', '3x3_', '3x3dbl_', '_pool'),
)
_KERAS = Names({'head': 'predictions'}, numbered(f'{path}/' for path in conv_paths()))


_FACTS = functools.partial(
    Variant,
    module=InceptionV3,
    input_shape=(299, 299, 3),
    num_classes=1000,
    macs=5_713_216_096,
    paper='Szegedy et al. 2015, arXiv:1512.00567',
)
VARIANTS = {
    'inception_v3': _FACTS(
        params=23_834_568,
        evidence='torchvision 0.28.0 without auxiliary head, measured; Keras has 17,216 gammas fewer',
    ),
    'inception_v3_aux': _FACTS(
        params=27_161_264,
        arguments=dict(aux=True),
        evidence='torchvision 0.28.0, measured; multiply-adds of evaluation, where the auxiliary head does not run',
    ),
}

_TORCH_ARGUMENTS = dict(count_include_pad=True, bn_unbiased=True)
REFERENCES = {
    # 299 pixels: the least at which the auxiliary head runs.
    'torchvision/inception_v3': Reference(
        variant='inception_v3_aux',
        rename=_TORCH,
        arguments=dict(**_TORCH_ARGUMENTS, dropout=0.5),
        training_only=r'\w+/aux1/.*',
        without=dict(aux=False),
        input_shape=(299, 299, 3),
    ),
    # inception_v3(aux_logits=False).
    'torchvision/inception_v3_no_aux': Reference(
        variant='inception_v3',
        rename=_TORCH,
        arguments=dict(**_TORCH_ARGUMENTS, dropout=0.5),
        ignore=(r'AuxLogits\..*',),
        input_shape=(128, 107, 3),
    ),
    'timm/inception_v3': Reference(
        variant='inception_v3',
        rename=_TORCH,
        arguments=dict(**_TORCH_ARGUMENTS, dropout=0.0),
        ignore=(r'AuxLogits\..*',),
        input_shape=(128, 107, 3),  # of its tv_in1k
    ),
    'keras/InceptionV3': Reference(
        variant='inception_v3',
        rename=_KERAS,
        arguments=dict(bn_scale=False, bn_momentum=0.99, dropout=0.0),
        input_shape=(128, 107, 3),
    ),
}
