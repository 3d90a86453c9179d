"""AlexNet. Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional
neural networks", NIPS, section 3; and Krizhevsky 2014, "One weird trick for parallelizing
convolutional neural networks", arXiv:1404.5997.

Three nets go by that name:
- `alexnet_2012`, the paper's: two towers on two GPUs, which meet in conv3 and in the dense layers
  (convolutions 2, 4 and 5 in two groups); response normalization after ReLU and before pooling.
- `alexnet_single_tower`, the simplified form of CS231n: no groups, and pooling before
  normalization as in CaffeNet. The conv share "3.7 million (6 %)" found in lectures is of this
  net, although "60 million" is of the other.
- `alexnet`, as torchvision has it: the single tower of 2014, narrower at first, no normalization.

Pitfalls: the paper says 224x224, yet 55x55 maps come from 227 (here 224 is taken too, with a border
of zeros). Its 253,440 neurons of layer 1 are really 55 * 55 * 96 = 290,400. PyTorch's and Caffe's
response normalization divides alpha by the number of channels, the paper's does not. Its formula
runs over all maps of a layer, and so it does here, across the border between the towers.
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
from cvresearch.nn.norms import local_response_norm
from cvresearch.nn.pool import adaptive_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least, require_size
from cvresearch.nn.sliding import flatten

POOLED = (1, 2, 5)  # convolutions that a max-pooling follows
NORMALISED = (1, 2)
ORDERS = {'before_pool': ('norm', 'pool'), 'after_pool': ('pool', 'norm'), 'none': ('pool',)}
BIASED_TO_ONE = (2, 4, 5)  # section 5: ReLUs with positive inputs learn sooner


class AlexNet(nn.Module):
    """Five convolutions and three dense layers.

    Attributes:
      widths: features of the five convolutions.
      groups: of the five convolutions.
      lrn: response normalization 'before_pool', 'after_pool' or 'none'.
      torchvision: conv1 padded by two pixels and the last map averaged to 6x6, so that images of
        any size from 63x63 do; dropout before, not after, the first two dense layers; all biases
        from zero.
    """

    num_classes: int
    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    groups: tuple[int, ...] = (1, 2, 1, 2, 2)
    lrn: str = 'before_pool'
    torchvision: bool = False
    dropout: float = 0.5
    kernel_init: str | Callable = 'normal_0.01'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, 227, 227, channels), or 224x224, to (batch, num_classes)."""
        init = initializer(self.kernel_init)
        started = nn.initializers.zeros_init() if self.torchvision else nn.initializers.ones_init()
        conv = functools.partial(Conv, kernel_init=init, dtype=self.dtype)
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not train)

        x = self.fitted(x.astype(self.dtype))
        order = lookup('lrn', ORDERS, self.lrn)
        kernels = ((11, 4, 'VALID'), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
        for i, (width, groups, kernel) in enumerate(zip(self.widths, self.groups, kernels, strict=True), start=1):
            bias_init = started if i in BIASED_TO_ONE else nn.initializers.zeros_init()
            x = nn.relu(conv(width, *kernel, groups=groups, bias_init=bias_init, name=f'conv{i}')(x))
            if i in POOLED:
                for step in order if i in NORMALISED else ('pool',):
                    x = normalized(x, f'norm{i}') if step == 'norm' else max_pool(x, 3, 2, name=f'pool{i}')
        if self.torchvision:
            x = adaptive_avg_pool(x, 6)
        x = flatten(x)
        for name in ('fc6', 'fc7'):
            x = drop(x) if self.torchvision else x
            x = nn.relu(dense(4096, bias_init=started, name=name)(x))
            x = x if self.torchvision else drop(x)
        return dense(self.num_classes, name='head')(x).astype(jnp.float32)

    def fitted(self, x: jax.Array) -> jax.Array:
        """Returns images with the border of zeros that conv1 needs.

        Raises:
          UserError: a size that the net does not take.
        """
        if self.torchvision:
            require_at_least('AlexNet', x.shape, 63)
            border = (2, 2)
        else:
            require_size('AlexNet', x.shape, (227, 224))
            border = (0, 0) if x.shape[1] == 227 else (1, 2)
        return jnp.pad(x, ((0, 0), border, border, (0, 0)))


def normalized(x: jax.Array, name: str) -> jax.Array:
    """Response normalization with the paper's constants (section 3.3), under a scope."""
    with jax.named_scope(name):
        return local_response_norm(x, size=5, alpha=1e-4, beta=0.75, bias=2.0)


_2012 = 'Krizhevsky et al. 2012, NIPS'
_227 = functools.partial(Variant, module=AlexNet, input_shape=(227, 227, 3), num_classes=1000)

VARIANTS = {
    'alexnet': Variant(
        module=AlexNet, input_shape=(224, 224, 3), num_classes=1000, params=61_100_840, macs=714_188_480,
        paper='Krizhevsky 2014, arXiv:1404.5997', evidence='torchvision 0.28.0 measured; MACs by forward hooks',
        arguments=dict(
            widths=(64, 192, 384, 256, 256), groups=(1,) * 5, lrn='none', torchvision=True,
            kernel_init='pytorch',
        ),
    ),
    'alexnet_2012': _227(
        params=60_965_224, macs=724_406_816, paper=_2012,
        evidence='arithmetic, layer by layer: convolutions 2,334,080 + dense layers 58,631,144',
    ),
    'alexnet_single_tower': _227(
        params=62_378_344, macs=1_135_256_096, paper=f'{_2012}, as Stanford CS231n simplifies it',
        evidence='arithmetic, layer by layer: convolutions 3,747,200 + dense layers 58,631,144',
        arguments=dict(groups=(1,) * 5, lrn='after_pool'),
    ),
}  # fmt: skip

_TORCHVISION = Names(
    {
        'conv1': 'features.0',
        'conv2': 'features.3',
        'conv3': 'features.6',
        'conv4': 'features.8',
        'conv5': 'features.10',
        'fc6': 'classifier.1',
        'fc7': 'classifier.4',
        'head': 'classifier.6',
    }
)

REFERENCES = {
    # 159 and 127: the last map is 4x3, so that the averaging to 6x6 shows.
    'torchvision/alexnet': Reference(
        variant='alexnet', rename=_TORCHVISION, flatten={'fc6': (256, 6, 6)}, input_shape=(159, 127, 3)
    )
}
