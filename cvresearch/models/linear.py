"""The classifiers before convolution: softmax regression and the multilayer perceptron.

They take images of any size; the counts in VARIANTS hold at 28x28x1.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import UserError
from cvresearch.models.variant import Variant
from cvresearch.nn.activations import activation
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec


class MLP(nn.Module):
    """Dense layers of the given widths, then the classifier. No widths: softmax regression.

    LeCun et al. 1998, "Gradient-based learning applied to document recognition", section III-C,
    sub-sections 1 (linear classifier) and 5 to 6 (one and two hidden layers).

    Attributes:
      widths: of the hidden layers.
      norm: batch norm before each activation (Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.2).
    """

    num_classes: int
    widths: tuple[int, ...] = ()
    act: str = 'relu'
    dropout: float = 0.0
    kernel_init: str = 'he_normal'
    norm: bool = False
    bn: NormSpec = NormSpec()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits, float32 (batch, num_classes).

        Raises:
          UserError: images of another size than the parameters are for.
        """
        act, init = activation(self.act), initializer(self.kernel_init)
        self._require_pixels(x.shape[1:])
        x = x.reshape(x.shape[0], -1).astype(self.dtype)
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=init, dtype=self.dtype, name=f'hidden{i + 1}')(x)
            x = act(self.bn.layer(train, self.dtype)(name=f'norm{i + 1}')(x) if self.norm else x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x).astype(jnp.float32)

    def _require_pixels(self, image: tuple[int, ...]) -> None:
        first = 'hidden1' if self.widths else 'head'
        expected = got = math.prod(image)
        if self.has_variable('params', first):
            stored = self.get_variable('params', first)
            expected = stored['first' if 'first' in stored else 'kernel'].shape[0]  # nn/stored.py has factors
        if got != expected:
            size = 'x'.join(map(str, image))
            raise UserError(f'MLP got images of {size}, {got} numbers, expected {expected}, as its first layer has')


_LECUN = 'LeCun et al. 1998, Proc. IEEE 86(11)'
_MNIST = functools.partial(Variant, module=MLP, input_shape=(28, 28, 1), num_classes=10)

VARIANTS = {
    'softmax_regression': _MNIST(
        params=7_850,
        macs=7_840,
        paper=_LECUN,
        evidence='arithmetic: 784 * 10 weights + 10 biases',
    ),
    'softmax_regression_cifar10': Variant(
        module=MLP,
        input_shape=(32, 32, 3),
        num_classes=10,
        params=30_730,
        macs=30_720,
        paper='Stanford CS231n',
        evidence='arithmetic: 3072 * 10 weights + 10 biases',
    ),
    'mlp': _MNIST(
        params=669_706,
        macs=668_672,
        paper="no paper: the widths are this project's choice",
        evidence='arithmetic: 784-512-512-10',
        arguments=dict(widths=(512, 512)),
    ),
    'mlp_300_100': _MNIST(
        params=266_610,
        macs=266_200,
        paper=_LECUN,
        evidence='arithmetic: 784-300-100-10',
        arguments=dict(widths=(300, 100), act='tanh', kernel_init='glorot_uniform'),
    ),
}
