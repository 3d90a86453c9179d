"""Network in Network. Lin, Chen & Yan 2013, arXiv:1312.4400, sections 3 and 4.

Each stage ("mlpconv") is a convolution followed by two 1x1 convolutions, a small perceptron that
slides over the image; the last stage has one map a class, which global averaging turns into logits.
- `nin_cifar10`: the paper's three stages. It does not list their widths; these are of the authors'
  model in the Caffe zoo.
- `nin_imagenet`: the four stages of the Caffe zoo. The paper has no ImageNet net.

Pitfalls: ReLU follows the last convolution too (equation 2), so that no logit is negative. Pooling
rounds up (32 -> 16 -> 8). The paper pools by maximum everywhere; the zoo's CIFAR model averages
the second time (`pools=('max', 'avg')`).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import lookup
from cvresearch.models.variant import Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.pool import avg_pool, ceil_padding, global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least

# Of each stage: kernel size, stride and padding of its first convolution, then the three widths;
# the very last width is the number of classes.
CIFAR10 = (((5, 1, 'SAME'), (192, 160, 96)), ((5, 1, 'SAME'), (192, 192, 192)), ((3, 1, 'SAME'), (192, 192)))
IMAGENET = (
    ((11, 4, 'VALID'), (96, 96, 96)), ((5, 1, 'SAME'), (256, 256, 256)), ((3, 1, 'SAME'), (384, 384, 384)),
    ((3, 1, 'SAME'), (1024, 1024)),
)  # fmt: skip


class NiN(nn.Module):
    """Stages of three convolutions, a 3x3 pooling with stride 2 between them, and global averaging.

    Attributes:
      stages: of each, the first convolution and the widths, as `CIFAR10`.
      pools: kind of the pooling after each stage but the last, 'max' or 'avg'.
      dropped: stages, counted from 1, after whose pooling dropout comes.
    """

    num_classes: int
    stages: tuple = CIFAR10
    pools: tuple[str, ...] = ('max', 'max')
    dropped: tuple[int, ...] = (1, 2)
    dropout: float = 0.5
    kernel_init: str | Callable = 'normal_0.05'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, num_classes)."""
        self.require_enough(x.shape)
        conv = functools.partial(Conv, kernel_init=initializer(self.kernel_init), dtype=self.dtype)

        x = x.astype(self.dtype)
        for i, (kernel, widths) in enumerate(self.stages, start=1):
            for j, width in enumerate(widths):
                size, strides, padding = (1, 1, 'SAME') if j else kernel
                x = nn.relu(conv(width, size, strides, padding, name=f'stage{i}_block{j}')(x))
            if i < len(self.stages):
                pool = lookup('pool', {'max': max_pool, 'avg': avg_pool}, self.pools[i - 1])
                x = pool(x, 3, 2, [ceil_padding(n, 3, 2) for n in x.shape[1:3]], name=f'pool{i}')
            if i in self.dropped:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.relu(conv(self.num_classes, 1, name='head')(x))
        return global_avg_pool(x).astype(jnp.float32)

    def require_enough(self, image: tuple[int, ...]) -> None:
        """Raises UserError unless a pixel of `image` (batch, height, width, channels) is left at the end."""
        (kernel, stride, padding), _ = self.stages[0]
        size = 2 ** (len(self.stages) - 1)
        if padding == 'VALID':
            size = (size - 1) * stride + kernel
        require_at_least('NiN', image, size)


VARIANTS = {
    'nin_cifar10': Variant(
        module=NiN, input_shape=(32, 32, 3), num_classes=10, params=966_986, macs=222_486_528,
        paper='Lin et al. 2013, arXiv:1312.4400',
        evidence='arithmetic, layer by layer, with the widths of the Caffe zoo',
    ),
    'nin_imagenet': Variant(
        module=NiN, input_shape=(224, 224, 3), num_classes=1000, params=7_595_176, macs=1_100_188_800,
        paper='Lin et al. 2013, Caffe model zoo', evidence='arithmetic, layer by layer',
        arguments=dict(stages=IMAGENET, pools=('max',) * 3, dropped=(3,)),
    ),
}  # fmt: skip
