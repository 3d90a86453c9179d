"""SqueezeNet. Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
and <0.5MB model size", arXiv:1602.07360, table 1, figure 2 and section 6.

Fire modules squeeze to a quarter of e maps by 1x1, then expand to e by 1x1 and e by 3x3:
- `squeezenet1_0`: table 1; fire2 to fire9 are the blocks of stages 1 to 3.
- `squeezenet1_0_simple_bypass`: the input is added to the output of every other module.
- `squeezenet1_0_complex_bypass`: and, through a 1x1 convolution, around the others. The paper's
  7.7 MB cannot be reproduced: these parameters take 6.06 MiB.
- `squeezenet1_1`: the authors' later release, not in the paper: smaller start, earlier pooling.

Pitfalls: conv1 has no padding, so 224 gives 109 (the 111 of table 1 is from 227); pooling rounds
up; ReLU follows conv10 too, before the averaging, so that no logit is negative.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import lookup
from cvresearch.models.names import Names, within
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.pool import ceil_padding, global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least

BYPASSES = {'none': (), 'simple': ('identity',), 'complex': ('identity', 'conv')}


class SqueezeNet(nn.Module):
    """A convolution, fire modules in stages with a pooling before each, and a 1x1 convolution to the classes.

    Attributes:
      stem: features and kernel size of conv1.
      stages: e of each fire module, which gives out 2 e maps.
      bypass: 'none', 'simple' or 'complex'.
      head_padding: of conv10. The authors' prototxt has 1; the paper does not say, and other libraries have none.
    """

    num_classes: int
    stem: tuple[int, int] = (96, 7)
    stages: tuple[tuple[int, ...], ...] = ((64, 64, 128), (128, 192, 192, 256), (256,))
    bypass: str = 'none'
    head_padding: int = 0
    dropout: float = 0.5
    kernel_init: str | Callable = 'lecun_uniform'  # what Caffe calls xavier
    head_init: str | Callable = 'normal_0.01'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, num_classes)."""
        self.require_enough(x.shape)
        conv = functools.partial(Conv, kernel_init=initializer(self.kernel_init), dtype=self.dtype)
        bypasses = lookup('bypass', BYPASSES, self.bypass)

        width, kernel = self.stem
        x = nn.relu(conv(width, kernel, 2, 'VALID', name='stem')(x.astype(self.dtype)))
        for i, stage in enumerate(self.stages, start=1):
            x = max_pool(x, 3, 2, [ceil_padding(n, 3, 2) for n in x.shape[1:3]], name=f'pool{i}')
            for j, expand in enumerate(stage):
                x = Fire(expand, bypasses, conv, name=f'stage{i}_block{j}')(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        head_init = initializer(self.head_init)
        x = conv(self.num_classes, 1, padding=self.head_padding, kernel_init=head_init, name='head')(x)
        x = nn.relu(x)
        return global_avg_pool(x).astype(jnp.float32)

    def require_enough(self, image: tuple[int, ...]) -> None:
        """Raises UserError unless a pixel of `image` (batch, height, width, channels) is left at the end."""
        size = (2 ** len(self.stages) - 1) * 2 + self.stem[1]
        require_at_least('SqueezeNet', image, size)


class Fire(nn.Module):
    """Squeeze, then expand by two sizes of kernel, 1x1 first (section 3.2).

    A simple bypass is wherever the number of maps stays the same: fire3, 5, 7 and 9 (section 6).
    """

    expand: int
    bypasses: tuple[str, ...]
    conv: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height, width, 2 * expand)."""
        y = nn.relu(self.conv(self.expand // 4, 1, name='squeeze')(x))
        branches = [nn.relu(self.conv(self.expand, k, name=f'expand{k}x{k}')(y)) for k in (1, 3)]
        y = jnp.concatenate(branches, axis=-1)
        if 'identity' in self.bypasses and x.shape == y.shape:
            return x + y
        if 'conv' in self.bypasses:
            return self.conv(y.shape[-1], 1, name='bypass')(x) + y
        return y


_SQUEEZENET = functools.partial(Variant, module=SqueezeNet, input_shape=(224, 224, 3), num_classes=1000)
_PAPER = 'Iandola et al. 2016, arXiv:1602.07360'
_MEASURED = 'torchvision 0.28.0 measured; MACs by forward hooks'

VARIANTS = {
    'squeezenet1_0': _SQUEEZENET(
        params=1_248_424, macs=818_924_576, paper=f'{_PAPER}, table 1', evidence=_MEASURED
    ),
    'squeezenet1_0_simple_bypass': _SQUEEZENET(
        params=1_248_424, macs=818_924_576, paper=f'{_PAPER}, section 6',
        evidence='arithmetic, layer by layer: a simple bypass costs nothing', arguments=dict(bypass='simple'),
    ),
    'squeezenet1_0_complex_bypass': _SQUEEZENET(
        params=1_589_672, macs=1_165_298_720, paper=f'{_PAPER}, section 6',
        evidence='arithmetic, layer by layer: 341,248 more, with biases, around fire2, 4, 6 and 8',
        arguments=dict(bypass='complex'),
    ),
    'squeezenet1_1': _SQUEEZENET(
        params=1_235_496, macs=349_151_936, paper='the authors\' repository, DeepScale/SqueezeNet',
        evidence=_MEASURED,
        arguments=dict(stem=(64, 3), stages=((64, 64), (128, 128), (192, 192, 256, 256))),
    ),
}  # fmt: skip


def _torchvision(variant: str) -> Reference:
    """Returns torchvision's net: one list of layers, in which ReLU and pooling have numbers too."""
    stages = VARIANTS[variant].arguments.get('stages', SqueezeNet.stages)
    blocks = [(i, j) for i, stage in enumerate(stages, start=1) for j in range(len(stage))]
    rename = Names(
        {'stem': 'features.0', 'head': 'classifier.1'},
        *(
            within(f'stage{i}_block{j}/', f'features.{2 + i + number}.', {'{layer}': '{layer}'})
            for number, (i, j) in enumerate(blocks)
        ),
    )
    # 68 and 66: conv1 and pooling meet odd and even maps, where rounding up shows.
    return Reference(variant=variant, rename=rename, input_shape=(68, 66, 3))


# The authors' net as Deep Compression left it, by the names of its prototxt.
_FIRES = [f'stage{i}_block{j}/' for i, stage in enumerate(SqueezeNet.stages, start=1) for j in range(len(stage))]
_SONGHAN = Names(
    {'stem': 'conv1', 'head': 'conv10'},
    *(
        within(fire, f'fire{number}/', {'squeeze': 'squeeze1x1', '{layer}': '{layer}'})
        for number, fire in enumerate(_FIRES, start=2)
    ),
)

REFERENCES = {f'torchvision/{name}': _torchvision(name) for name in ('squeezenet1_0', 'squeezenet1_1')}
REFERENCES['songhan/SqueezeNet'] = Reference('squeezenet1_0', _SONGHAN, dict(head_padding=1), input_shape=(227, 227, 3))
