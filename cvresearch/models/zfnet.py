"""ZFNet. Zeiler & Fergus 2013, "Visualizing and understanding convolutional networks",
arXiv:1311.2901, figure 3 and table 3.

AlexNet with smaller steps at the start: conv1 7x7 with stride 2, conv2 5x5 with stride 2, no groups.
- `zfnet`: the net of figure 3, 96-256-384-384-256.
- `zfnet_512_1024_512`: wider in layers 3 to 5 (table 3), the better of the two; lectures tell of
  this one. Neither scored 11.7 %: that was Clarifai's entry to ILSVRC-2013.

Pitfalls: maps are normalized after pooling, unlike AlexNet. 110 -> 55 -> ... -> 13 needs pooling
that rounds up, conv1 one pixel of padding, conv2 none. The paper names no constants for its
contrast normalization; AlexNet's are taken. While training it rescales every filter whose root mean
square passes 0.1, which is the optimizer's business and not done here.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.models.variant import Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import local_response_norm
from cvresearch.nn.pool import ceil_padding, max_pool
from cvresearch.nn.shapes import require_size
from cvresearch.nn.sliding import flatten

# Kernel size, stride, padding of each convolution; those that pooling, and normalization, follow.
KERNELS = ((7, 2, 1), (5, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1))
POOLED = (1, 2, 5)
NORMALISED = (1, 2)


class ZFNet(nn.Module):
    """Five convolutions and three dense layers.

    Attributes:
      widths: features of the five convolutions.
    """

    num_classes: int
    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    dropout: float = 0.5
    kernel_init: str | Callable = 'normal_0.01'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, 224, 224, channels) to (batch, num_classes)."""
        require_size('ZFNet', x.shape, (224,))
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, kernel_init=init, dtype=self.dtype)
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)

        x = x.astype(self.dtype)
        for i, (width, kernel) in enumerate(zip(self.widths, KERNELS, strict=True), start=1):
            x = nn.relu(conv(width, *kernel, name=f'conv{i}')(x))
            if i in POOLED:
                x = max_pool(x, 3, 2, [ceil_padding(n, 3, 2) for n in x.shape[1:3]], name=f'pool{i}')
            if i in NORMALISED:
                with jax.named_scope(f'norm{i}'):
                    x = local_response_norm(x, size=5, alpha=1e-4, beta=0.75, bias=2.0)
        x = flatten(x)
        for name in ('fc6', 'fc7'):
            x = nn.relu(dense(4096, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.num_classes, name='head')(x).astype(jnp.float32)


_ZFNET = functools.partial(
    Variant, module=ZFNet, input_shape=(224, 224, 3), num_classes=1000, evidence='arithmetic, layer by layer'
)

VARIANTS = {
    'zfnet': _ZFNET(
        params=62_357_608, macs=1_168_032_896, paper='Zeiler & Fergus 2013, arXiv:1311.2901, figure 3'
    ),
    'zfnet_512_1024_512': _ZFNET(
        params=107_627_624, macs=2_476_704_896, paper='Zeiler & Fergus 2013, arXiv:1311.2901, table 3',
        arguments=dict(widths=(96, 256, 512, 1024, 512)),
    ),
}  # fmt: skip
