"""NASNet-A. Zoph, Vasudevan, Shlens & Le 2017, "Learning transferable architectures for scalable
image recognition", arXiv:1707.07012 (CVPR 2018), figure 4 (the cells) and figure 2 (how they are
stacked for ImageNet); the details follow the authors' code (tensorflow/models,
research/slim/nets/nasnet).

NASNet-A (N @ P) has three stages of N normal cells, P channels in its last map, a reduction cell
between stages and two in the stem: `nasnetamobile` is (4 @ 1056), `nasnetalarge` (6 @ 4032).

Pitfalls:
- A cell reads the two before it. After a reduction cell, the large net skips the reduction's own
  input and reads the map before that one; the mobile net does not (`skip_reduction`).
- The strided poolings of Keras take padding for zeros, in timm the average ones only, the
  authors' neither (`zero_padded`). It changes the logits, whatever the size of the image.
- A separable convolution is applied twice, each time ReLU, depthwise, pointwise, batch norm.
- The stem's convolution is not padded, and no ReLU follows it: cells begin with their own.
- The first stem cell has no cell before it and takes its one input for both, as it is.

Training: `stochastic_depth` is ScheduledDropPath's largest rate (0.3 for the large net, 0 for the
mobile). It grows linearly with depth here; the authors also let it grow linearly over training,
which is for the caller to do. `aux` is the auxiliary classifier at two thirds of the depth (weight
0.4), which no published count includes; as its last convolution covers its whole map, its size
depends on the image's.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cvresearch.base.errors import lookup
from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec
from cvresearch.nn.pool import avg_pool, global_avg_pool, max_pool
from cvresearch.nn.separable import SeparableConv
from cvresearch.nn.shapes import require_at_least
from cvresearch.nn.stochastic_depth import drop_path


class Plan(NamedTuple):
    """A cell. States 0 and 1 are the two inputs; each combination adds two states as the next state.

    Attributes:
      strides: of operations on the inputs.
      combinations: five pairs of (state, operation, window).
      output: states whose concatenation leaves the cell.
    """

    strides: int
    combinations: tuple
    output: tuple[int, ...]


# Figure 4.
NORMAL = Plan(
    strides=1,
    combinations=(
        ((0, 'sep', 5), (1, 'sep', 3)),
        ((1, 'sep', 5), (1, 'sep', 3)),
        ((0, 'avg', 3), (1, 'identity', 1)),
        ((1, 'avg', 3), (1, 'avg', 3)),
        ((0, 'sep', 3), (0, 'identity', 1)),
    ),
    output=(1, 2, 3, 4, 5, 6),
)
REDUCTION = Plan(
    strides=2,
    combinations=(
        ((0, 'sep', 5), (1, 'sep', 7)),
        ((0, 'max', 3), (1, 'sep', 7)),
        ((0, 'avg', 3), (1, 'sep', 5)),
        ((3, 'identity', 1), (2, 'avg', 3)),
        ((2, 'sep', 3), (0, 'max', 3)),
    ),
    output=(3, 4, 5, 6),
)
POOLS = {'avg': avg_pool, 'max': max_pool}


class NASNetA(nn.Module):
    """NASNet-A (cells @ penultimate).

    Attributes:
      cells: normal cells of each of the three stages.
      penultimate: channels of the last map, 24 times the width of the first stage's cells.
      stem: channels of the stem's convolution.
      skip_reduction: the cell after a reduction cell reads the latter's second input, not its first.
      zero_padded: strided poolings, of 'avg' and 'max', that take padding for zeros.
      stochastic_depth: drop rate of the last cell's operations, growing linearly with depth.
      aux: with the auxiliary classifier.
    """

    num_classes: int
    cells: int
    penultimate: int
    stem: int
    skip_reduction: bool = False
    zero_padded: tuple[str, ...] = ()
    aux: bool = False
    dropout: float = 0.5
    stochastic_depth: float = 0.0
    bn: NormSpec = NormSpec(momentum=0.9997, eps=1e-3)
    kernel_init: str | Callable = 'he_fan_out_truncated'
    dtype: jnp.dtype = jnp.float32

    @nn.nowrap
    def plan(self) -> list[tuple[str, Plan, int]]:
        """Returns (name, plan, width) of all cells, in order."""
        width = self.penultimate // 24
        cells = [('stem_cell0', REDUCTION, width // 4), ('stem_cell1', REDUCTION, width // 2)]
        for i in range(3):
            if i:
                cells.append((f'reduction{i}', REDUCTION, width << i))
            cells += [(f'stage{i + 1}_block{j}', NORMAL, width << i) for j in range(self.cells)]
        return cells

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array | tuple[jax.Array, list[jax.Array]]:
        """Maps images (batch, height, width, channels) to (batch, num_classes).

        With `aux` and in training: to (logits, [auxiliary logits]).

        Raises:
          UserError: images that leave nothing for the cells or for the auxiliary classifier's pooling.
        """
        require_at_least('NASNet-A', x.shape, 67 if self.aux else 3)
        for pool in self.zero_padded:
            lookup('pooling', POOLS, pool)
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, use_bias=False, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)
        dense = functools.partial(nn.Dense, self.num_classes, kernel_init=init, dtype=self.dtype)

        x = conv(self.stem, 3, strides=2, padding='VALID', name='stem_conv')(x.astype(self.dtype))
        x, before, aux = norm(name='stem_bn')(x), None, []
        plan = self.plan()
        for i, (name, cell, width) in enumerate(plan, 1):
            drop = self.stochastic_depth * i / len(plan) if train else 0.0
            run = Cell(cell, width, self.zero_padded, drop, conv=conv, norm=norm, name=name)
            keep = self.skip_reduction and name.startswith('reduction')
            x, before = run(x, before), before if keep else x
            if self.aux and name == f'stage2_block{self.cells - 1}' and (train or self.is_initializing()):
                aux.append(AuxHead(conv=conv, norm=norm, dense=dense, name='aux1')(x).astype(jnp.float32))
        x = global_avg_pool(nn.relu(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = dense(name='head')(x).astype(jnp.float32)
        return (logits, aux) if self.aux and train else logits


class Cell(nn.Module):
    """One cell of figure 4."""

    plan: Plan
    width: int
    zero_padded: tuple[str, ...]
    drop: float
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array, before: jax.Array | None) -> jax.Array:
        """Maps the last cell's map (batch, height, width, channels), and the one's before it, to the next.

        Returns:
          (batch, ceil(height / strides), ..., width * number of outputs).
        """
        states = [self.norm(name='bn')(self.conv(self.width, 1, name='conv')(nn.relu(x)))]
        states.append(x if before is None else self.fitted(before, x.shape))
        for i, pair in enumerate(self.plan.combinations):
            left, right = (
                self.apply_operation(states[state], operation, window, self.plan.strides if state < 2 else 1, name)
                for (state, operation, window), name in zip(pair, (f'comb{i}_left', f'comb{i}_right'), strict=True)
            )
            states.append(left + right)
        return jnp.concatenate([states[i] for i in self.plan.output], -1)

    @nn.nowrap
    def fitted(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Returns the cell before last's map in this cell's width and, where larger, in the size of `shape`."""
        x = nn.relu(x)
        if x.shape[1:3] == shape[1:3]:
            return self.norm(name='before_bn')(self.conv(self.width, 1, name='before_conv')(x))
        # Every second pixel, and for half the channels the one further down and right of it.
        shifted = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
        halves = [
            self.conv(self.width // 2, 1, name=f'path{i}')(avg_pool(path, 1, 2)) for i, path in enumerate((x, shifted))
        ]
        return self.norm(name='paths_bn')(jnp.concatenate(halves, -1))

    @nn.nowrap
    def apply_operation(self, x: jax.Array, operation: str, window: int, strides: int, name: str) -> jax.Array:
        """Returns an operation's result (batch, ceil(height / strides), ..., width), dropped for some images."""
        if operation == 'identity':
            return x
        if operation == 'sep':
            x = TwoSeparable(self.width, window, strides, conv=self.conv, norm=self.norm, name=name)(x)
        elif strides > 1 and operation in self.zero_padded:
            pads = lax.padtype_to_pads(x.shape[1:3], (window, window), (strides, strides), 'SAME')
            x = POOLS[operation](jnp.pad(x, ((0, 0), *pads, (0, 0))), window, strides, name=name)
        else:
            x = POOLS[operation](x, window, strides, padding='SAME', name=name)
        if self.drop:
            x = drop_path(x, self.drop, self.make_rng('dropout'))
        return x


class TwoSeparable(nn.Module):
    """ReLU, separable convolution, batch norm; twice. The first has the strides."""

    features: int
    kernel_size: int
    strides: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, ceil(height / strides), ..., features)."""
        for i, strides in enumerate((self.strides, 1)):
            sep = SeparableConv(self.features, self.conv, self.kernel_size, strides, name=f'sep{i}')
            x = self.norm(name=f'bn{i}')(sep(nn.relu(x)))
        return x


class AuxHead(nn.Module):
    """The auxiliary classifier of the authors' code."""

    conv: Callable
    norm: Callable
    dense: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels), both sizes at least 5, to (batch, num_classes)."""
        x = avg_pool(nn.relu(x), 5, 3)
        x = nn.relu(self.norm(name='bn0')(self.conv(128, 1, name='conv0')(x)))
        x = nn.relu(self.norm(name='bn1')(self.conv(768, x.shape[1:3], padding='VALID', name='conv1')(x)))
        return self.dense(name='logits')(x.reshape(x.shape[0], -1))


_NASNET = functools.partial(Variant, module=NASNetA, num_classes=1000, paper='Zoph et al. 2017, arXiv:1707.07012')

VARIANTS = {
    'nasnetamobile': _NASNET(
        arguments=dict(cells=4, penultimate=1056, stem=32), input_shape=(224, 224, 3),
        params=5_289_978, macs=563_638_816,
        evidence='keras 3.15.1 measured (trainable); macs: layer shapes; paper 5.3 M, 564 M',
    ),
    'nasnetalarge': _NASNET(
        input_shape=(331, 331, 3), params=88_753_150, macs=23_783_414_658,
        arguments=dict(cells=6, penultimate=4032, stem=96, skip_reduction=True, stochastic_depth=0.3),
        evidence='timm 1.0.31 and keras 3.15.1 measured; macs: forward hooks (conv + linear); paper 88.9 M, 23.8 G',
    ),
}  # fmt: skip

_IN_TIMM = {
    'conv': 'conv_1x1.conv',
    'bn': 'conv_1x1.bn',
    'before_conv': 'conv_prev_1x1.conv',
    'before_bn': 'conv_prev_1x1.bn',
    'path0': 'path_1.conv',
    'path1': 'path_2.conv',
    'paths_bn': 'final_path_bn',
    'comb{i}_{side}/sep{k}/{kernel}': 'comb_iter_{i}_{side}.separable_{k+1}.{kernel}_conv2d',
    'comb{i}_{side}/bn{k}': 'comb_iter_{i}_{side}.bn_sep_{k+1}',
}
_TIMM = Names(
    {'stem_conv': 'conv0.conv', 'stem_bn': 'conv0.bn', 'head': 'last_linear'},
    within('stem_cell{n}/', 'cell_stem_{n}.', _IN_TIMM),
    within('reduction{n}/', 'reduction_cell_{n-1}.', _IN_TIMM),
    *(within(f'stage{i + 1}_block{{j}}/', f'cell_{{j+{6 * i}}}.', _IN_TIMM) for i in range(3)),
)


def _in_keras(ours: str, cell: str, kind: str) -> dict[str, str]:
    """Returns the names in a cell. The two kernels of a separable layer stay, after the layer's name."""
    table = {
        'conv': f'{kind}_conv_1_{cell}',
        'bn': f'{kind}_bn_1_{cell}',
        'before_conv': f'adjust_conv_projection_{cell}',
        'before_bn': f'adjust_bn_{cell}',
        'path0': f'adjust_conv_1_{cell}',
        'path1': f'adjust_conv_2_{cell}',
        'paths_bn': f'adjust_bn_{cell}',
    }
    if kind == 'reduction':  # Keras calls its fifth left operation the fourth
        table |= {
            'comb4_left/sep{k}/{kernel}': f'separable_conv_{{k+1}}_reduction_left4_{cell}/{{kernel}}',
            'comb4_left/bn{k}': f'separable_conv_{{k+1}}_bn_reduction_left4_{cell}',
        }
    table |= {
        'comb{i}_{side}/sep{k}/{kernel}': f'separable_conv_{{k+1}}_{kind}_{{side}}{{i+1}}_{cell}/{{kernel}}',
        'comb{i}_{side}/bn{k}': f'separable_conv_{{k+1}}_bn_{kind}_{{side}}{{i+1}}_{cell}',
    }
    return within(ours, '', table)


def _keras(cells: int) -> Names:
    """Returns the names in a net with so many normal cells in a stage."""
    stages = (f'{{j+{cells * i + (i > 0)}}}' for i in range(3))
    return Names(
        {'stem_conv': 'stem_conv1', 'stem_bn': 'stem_bn1', 'head': 'predictions'},
        _in_keras('stem_cell{n}/', 'stem_{n+1}', 'reduction'),
        *(_in_keras(f'reduction{n}/', f'reduce_{cells * n}', 'reduction') for n in (1, 2)),
        *(_in_keras(f'stage{i}_block{{j}}/', cell, 'normal') for i, cell in enumerate(stages, 1)),
    )


REFERENCES = {
    'timm/nasnetalarge': Reference(
        variant='nasnetalarge',
        rename=_TIMM,
        input_shape=(96, 96, 3),
        arguments=dict(zero_padded=('avg',), bn_momentum=0.9, bn_unbiased=True),
    ),
} | {
    f'keras/{name}': Reference(
        variant=variant,
        rename=_keras(VARIANTS[variant].arguments['cells']),
        input_shape=(80, 80, 3),
        arguments=dict(zero_padded=('avg', 'max')),
    )
    for name, variant in {'NASNetMobile': 'nasnetamobile', 'NASNetLarge': 'nasnetalarge'}.items()
}
