"""VGG. Simonyan & Zisserman 2014, "Very deep convolutional networks for large-scale image
recognition", arXiv:1409.1556, table 1.

Five stages of convolutions, each ending in a 2x2 max-pooling, then three dense layers:
- `vgg11` (A), `vgg11_lrn` (A-LRN), `vgg13` (B), `vgg16_c` (C, whose three last convolutions of
  stages 3 to 5 are 1x1), `vgg16` (D), `vgg19` (E);
- `vgg11_bn` to `vgg19_bn`: torchvision's, with batch norm and the convolutions' biases kept. Not
  in the paper.

Larger images: the paper's dense evaluation slides the dense layers over the map, as if they were a
7x7 and two 1x1 convolutions, and averages the scores. That is what happens here for images above
224x224; torchvision averages the map to 7x7 instead (`adaptive_pool`). At 224x224 both do nothing.

The paper drew the weights of A with deviation 0.01 (it says variance) and started the others from
it; it adds that Glorot & Bengio's initialisation makes that unnecessary, which is the default here.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import lookup
from cvresearch.models.names import Names
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec, local_response_norm
from cvresearch.nn.pool import adaptive_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least
from cvresearch.nn.sliding import note

# Table 1: kernel sizes of the convolutions of each stage, and the width of the stage.
CONFIGURATIONS = {
    'A': ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    'B': ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    'C': ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    'D': ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    'E': ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """A configuration of table 1.

    Attributes:
      configuration: its letter.
      lrn: response normalization after the first convolution (A-LRN).
      batch_norm: batch norm after every convolution.
      adaptive_pool: average the last map to 7x7, rather than evaluate densely.
    """

    num_classes: int
    configuration: str
    lrn: bool = False
    batch_norm: bool = False
    adaptive_pool: bool = False
    dropout: float = 0.5
    bn: NormSpec = NormSpec()
    kernel_init: str | Callable = 'glorot_uniform'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, num_classes)."""
        require_at_least('VGG', x.shape, 32 if self.adaptive_pool else 224)
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, kernel_init=init, dtype=self.dtype)
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)
        norm = self.bn.layer(train, self.dtype)

        x = x.astype(self.dtype)
        for i, j, kernel in convolutions(self.configuration):
            x = conv(WIDTHS[i - 1], kernel, name=f'stage{i}_block{j}_conv')(x)
            if self.batch_norm:
                x = norm(name=f'stage{i}_block{j}_bn')(x)
            x = nn.relu(x)
            if self.lrn and (i, j) == (1, 0):
                with jax.named_scope('norm1'):
                    x = local_response_norm(x, size=5, alpha=1e-4, beta=0.75, bias=2.0)
            if j == len(CONFIGURATIONS[self.configuration][i - 1]) - 1:
                x = max_pool(x, 2, name=f'pool{i}')
        x = adaptive_avg_pool(x, 7) if self.adaptive_pool else x
        slides = note(x) is not None
        x = x if slides else windows(x, 7)
        for name in ('fc6', 'fc7'):
            x = nn.relu(dense(4096, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = dense(self.num_classes, name='head')(x).astype(jnp.float32)
        return x if slides else x.mean(1)


def convolutions(configuration: str) -> list[tuple[int, int, int]]:
    """Returns (stage from 1, place in it from 0, kernel size) of each convolution of a configuration.

    Raises:
      UserError: there is no such configuration.
    """
    stages = lookup('VGG configuration', CONFIGURATIONS, configuration)
    return [(i, j, kernel) for i, stage in enumerate(stages, start=1) for j, kernel in enumerate(stage)]


def windows(x: jax.Array, size: int) -> jax.Array:
    """Returns all windows of a map (batch, height, width, channels), each flattened.

    They are (batch, windows, size * size * channels); one, where the map is of that size.
    """
    rows, columns = (n - size + 1 for n in x.shape[1:3])
    cut = [x[:, i : i + size, j : j + size].reshape(x.shape[0], -1) for i in range(rows) for j in range(columns)]
    return jnp.stack(cut, axis=1)


_PAPER = 'Simonyan & Zisserman 2014, arXiv:1409.1556'
_TALLY = 'arithmetic, layer by layer'
_MEASURED = 'torchvision 0.28.0 measured; MACs by forward hooks'
_BOTH = 'torchvision 0.28.0 and keras 3 measured; MACs by forward hooks'


def _variant(configuration: str, params: int, macs: int, evidence: str, paper: str = _PAPER, **arguments) -> Variant:
    return Variant(
        module=VGG,
        arguments=dict(configuration=configuration, **arguments),
        input_shape=(224, 224, 3),
        num_classes=1000,
        params=params,
        macs=macs,
        evidence=evidence,
        paper=f'{paper}, configuration {configuration}',
    )


_bn = functools.partial(
    _variant, evidence=_MEASURED, paper=f'torchvision, after {_PAPER}', batch_norm=True, kernel_init='he_normal'
)

VARIANTS = {
    'vgg11': _variant('A', 132_863_336, 7_609_090_048, _MEASURED),
    'vgg11_lrn': _variant('A', 132_863_336, 7_609_090_048, _TALLY, lrn=True),
    'vgg13': _variant('B', 133_047_848, 11_308_466_176, _MEASURED),
    'vgg16_c': _variant('C', 133_638_952, 11_770_888_192, _TALLY),
    'vgg16': _variant('D', 138_357_544, 15_470_264_320, _BOTH),
    'vgg19': _variant('E', 143_667_240, 19_632_062_464, _BOTH),
    'vgg11_bn': _bn('A', 132_868_840, 7_609_090_048),
    'vgg13_bn': _bn('B', 133_053_736, 11_308_466_176),
    'vgg16_bn': _bn('D', 138_365_992, 15_470_264_320),
    'vgg19_bn': _bn('E', 143_678_248, 19_632_062_464),
}


def _torch(variant: str, dense: tuple[str, str, str], arguments: dict, **more) -> Reference:
    """Returns a net of one list of layers, in which ReLU and pooling have numbers too, and three dense ones."""
    defaults = VARIANTS[variant].arguments
    names: dict[str, str] = dict(zip(('fc6', 'fc7', 'head'), dense, strict=True))
    number = 0
    for i, j, _ in convolutions(defaults['configuration']):
        number += i > 1 and j == 0  # the pooling before
        names[f'stage{i}_block{j}_conv'] = f'features.{number}'
        names[f'stage{i}_block{j}_bn'] = f'features.{number + 1}'
        number += 3 if defaults.get('batch_norm') else 2
    if defaults.get('batch_norm'):
        arguments = dict(arguments, bn_unbiased=True)
    return Reference(variant, Names(names), arguments, flatten={'fc6': (512, 7, 7)}, **more)


def _torchvision(variant: str) -> Reference:
    dense = ('classifier.0', 'classifier.3', 'classifier.6')
    return _torch(variant, dense, dict(adaptive_pool=True), input_shape=(128, 96, 3))


def _timm(variant: str) -> Reference:
    """Returns timm's net, which has the dense layers as convolutions: it evaluates larger images as the paper does."""
    dense = ('pre_logits.fc1', 'pre_logits.fc2', 'head.fc')
    return _torch(variant, dense, {}, as_convolution=('fc[67]',), input_shape=(224, 256, 3))


def _keras(variant: str) -> Reference:
    names = {'fc6': 'fc1', 'fc7': 'fc2', 'head': 'predictions'}
    for i, j, _ in convolutions(VARIANTS[variant].arguments['configuration']):
        names[f'stage{i}_block{j}_conv'] = f'block{i}_conv{j + 1}'
    return Reference(variant=variant, rename=Names(names), input_shape=(224, 224, 3))


_LIBRARY_NETS = [name for name in VARIANTS if name not in ('vgg11_lrn', 'vgg16_c')]

REFERENCES = {
    **{f'torchvision/{name}': _torchvision(name) for name in _LIBRARY_NETS},
    **{f'timm/{name}': _timm(name) for name in _LIBRARY_NETS},
    'keras/VGG16': _keras('vgg16'),
    'keras/VGG19': _keras('vgg19'),
}
