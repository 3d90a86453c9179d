"""LeNet-5. LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document
recognition", Proc. IEEE 86(11), section II-B and figure 2.

Four nets go by that name, and their counts differ:
- `lenet5_1998`, the paper's: trainable subsampling, partially connected C3, fixed RBF codes.
  60,000 trainable parameters: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164.
- `lenet5`, as it is commonly re-implemented: full C3, average pooling, tanh, softmax.
  61,706 parameters: 156 + 2,416 + 48,120 + 10,164 + 850. The sum 59,706 found in lecture slides
  is a slip: it takes (5*5 + 1)*16 = 416 for C3 and so forgets C3's 6 input maps.
- `lenet5_relu`: the same with ReLU and max pooling.
- `lenet5_caffe`: of Caffe's tutorial (examples/mnist/lenet.prototxt), which papers on pruning mean by LeNet-5: 20 and
  50 maps, max pooling, a dense layer of 500, and the only ReLU after that. 431,080 parameters: 520 + 25,050 + 400,500 +
  5,010.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base.errors import lookup
from cvresearch.models.variant import Variant
from cvresearch.nn.activations import activation, squash
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.pool import avg_pool, max_pool
from cvresearch.nn.shapes import require_size
from cvresearch.nn.sliding import flatten


class LeNet5(nn.Module):
    """LeNet-5 with fully connected C3 and a softmax classifier."""

    num_classes: int
    act: str = 'tanh'
    pool: str = 'avg'
    kernel_init: str = 'glorot_uniform'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, 32, 32, channels), or 28x28 padded to that, to (batch, num_classes)."""
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, kernel_size=5, padding='VALID', kernel_init=init, dtype=self.dtype)
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)
        act = activation(self.act)
        pool = lookup('pool', {'avg': avg_pool, 'max': max_pool}, self.pool)

        x = padded_to_32(x.astype(self.dtype))
        x = act(conv(6, name='C1')(x))
        x = pool(x, 2, name='S2')
        x = act(conv(16, name='C3')(x))
        x = pool(x, 2, name='S4')
        x = act(conv(120, name='C5')(x))
        x = flatten(x)
        x = act(dense(84, name='F6')(x))
        return dense(self.num_classes, name='head')(x).astype(jnp.float32)


class LeNet5Caffe(nn.Module):
    """LeNet as Caffe has it; without activations after the convolutions, of images without padding."""

    num_classes: int
    kernel_init: str = 'lecun_uniform'  # what Caffe calls xavier
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, 28, 28, channels) to (batch, num_classes)."""
        require_size('LeNet-5 (Caffe)', x.shape, (28,))
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, kernel_size=5, padding='VALID', kernel_init=init, dtype=self.dtype)

        x = max_pool(conv(20, name='conv1')(x.astype(self.dtype)), 2, name='pool1')
        x = max_pool(conv(50, name='conv2')(x), 2, name='pool2')
        x = nn.relu(nn.Dense(500, kernel_init=init, dtype=self.dtype, name='ip1')(flatten(x)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name='head')(x).astype(jnp.float32)


class LeNet5Original(nn.Module):
    """LeNet-5 as published.

    Logits are minus the squared distances to the class codes (equation 7), so that the most
    likely class has the largest. Pixels are expected at -0.1 (background) to 1.175 (ink).
    """

    num_classes: int
    background: float = -0.1
    kernel_init: str = 'lecun_1998'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (batch, 32, 32, channels), or 28x28 padded to that, to (batch, num_classes)."""
        init = initializer(self.kernel_init)
        conv = functools.partial(Conv, kernel_size=5, padding='VALID', kernel_init=init, dtype=self.dtype)

        x = padded_to_32(x.astype(self.dtype), self.background)
        x = squash(conv(6, name='C1')(x))
        x = squash(Subsampling(name='S2')(x))
        x = squash(PartialConv(init, name='C3')(x))
        x = squash(Subsampling(name='S4')(x))
        x = squash(conv(120, name='C5')(x))
        x = flatten(x)
        x = squash(nn.Dense(84, kernel_init=init, dtype=self.dtype, name='F6')(x))
        return -RBF(self.num_classes, name='head')(x)


def padded_to_32(x: jax.Array, background: float = 0.0) -> jax.Array:
    """Returns images of 32x32, putting two pixels of background around 28x28.

    Raises:
      UserError: another size.
    """
    require_size('LeNet-5', x.shape, (32, 28))
    if x.shape[1] != 28:
        return x
    return jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=background)


class Subsampling(nn.Module):
    """Sums 2x2 pixels, times a trainable coefficient, plus a trainable bias, for each map (S2, S4)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, maps) to (batch, height / 2, width / 2, maps)."""
        maps = x.shape[-1]
        # A quarter: the map then starts as the mean, neither shrunk nor saturated.
        coefficient = self.param('coefficient', nn.initializers.constant(0.25), (maps,), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros_init(), (maps,), jnp.float32)
        return 4 * avg_pool(x, 2) * coefficient.astype(x.dtype) + bias.astype(x.dtype)


# Table I: the S2 maps that each C3 map sees. Rows of equal length are one grouped convolution.
C3_TABLE = (
    ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    ((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
     (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    ((0, 1, 2, 3, 4, 5),),
)  # fmt: skip


class PartialConv(nn.Module):
    """C3: 16 maps of 5x5 kernels, each over the S2 maps that Table I gives it (1,516 parameters)."""

    kernel_init: Callable

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, 6) to (batch, height - 4, width - 4, 16)."""
        outputs = []
        for seen in C3_TABLE:
            chosen = x[..., np.array(seen).reshape(-1)]
            conv = Conv(
                len(seen),
                5,
                padding='VALID',
                groups=len(seen),
                kernel_init=self.kernel_init,
                dtype=x.dtype,
                name=f'from{len(seen[0])}',
            )
            outputs.append(conv(chosen))
        return jnp.concatenate(outputs, axis=-1)


# Figure 3: the stylised 7x12 bitmaps of the digits, the fixed weights of the output units.
CODES = {
    0: '.#####. ....... ..###.. .##.##. ##...## ##...## ##...## ##...## .##.##. ..###.. ....... .......',
    1: '...##.. ..###.. .####.. ...##.. ...##.. ...##.. ...##.. ...##.. ...##.. .###### ....... .......',
    2: '.#####. ....... .#####. ##...## #....## ....##. ..###.. .##.... ##..... ####### ....... .......',
    3: '####### .....## ....##. ...##.. ..####. .....## .....## .....## ##...## .#####. ....... .......',
    4: '.#####. ....... ....... .##..## .##..## ###..## ##...## ##...## ##..### .###### .....## .....##',
    5: '.#####. ....... ####### ##..... ##..... .####.. ..####. .....## ##...## .#####. ....... .......',
    6: '..####. .##.... ##..... ##..... ######. ###..## ##...## ##...## ###..## .#####. ....... .......',
    7: '####### .....## .....## ....##. ...##.. ...##.. ..##... ..##... ..##... ..##... ....... .......',
    8: '.#####. ##...## ##...## ##...## .#####. ##...## ##...## ##...## ##...## .#####. ....... .......',
    9: '.#####. ##..### ##...## ##...## ##..### .###### .....## .....## ....##. .####.. ....... .......',
}


def codes(num_classes: int) -> np.ndarray:
    """Returns the target codes, +1 for ink and -1 for none, float32 (num_classes, 84).

    Classes past the ten digits get random codes: the paper has bitmaps for all of ASCII, which
    it prints but does not list.
    """
    rows = [[1.0 if c == '#' else -1.0 for c in CODES[d].replace(' ', '')] for d in range(min(num_classes, 10))]
    more = np.random.Generator(np.random.Philox(key=1998)).choice([-1.0, 1.0], (max(0, num_classes - 10), 84))
    return np.concatenate([np.array(rows).reshape(-1, 84), more]).astype(np.float32)


class RBF(nn.Module):
    """Euclidean radial basis functions with fixed centres: 84 * num_classes weights, none trained."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, 84) to squared distances, float32 (batch, num_classes)."""
        x, centres = x.astype(jnp.float32), codes(self.num_classes)
        # |x - w|^2 multiplied out: one matrix product, and the 84 multiply-adds that the paper counts.
        return jnp.sum(x * x, -1, keepdims=True) - 2 * x @ centres.T + jnp.sum(centres**2, -1)


_LENET = functools.partial(
    Variant, input_shape=(32, 32, 1), num_classes=10, paper='LeCun et al. 1998, Proc. IEEE 86(11), section II-B'
)
_TALLY = 'arithmetic, layer by layer: 156 + 2,416 + 48,120 + 10,164 + 850'

VARIANTS = {
    'lenet5': _LENET(module=LeNet5, params=61_706, macs=416_520, evidence=_TALLY),
    'lenet5_caffe': Variant(
        module=LeNet5Caffe,
        input_shape=(28, 28, 1),
        num_classes=10,
        params=431_080,
        macs=2_293_000,
        paper='Caffe, examples/mnist/lenet.prototxt; Han et al. 2015, arXiv:1506.02626, table 3',
        evidence='paper: 431K; arithmetic: 520 + 25,050 + 400,500 + 5,010',
    ),
    'lenet5_relu': _LENET(
        module=LeNet5,
        params=61_706,
        macs=416_520,
        evidence=_TALLY,
        arguments=dict(act='relu', pool='max', kernel_init='he_normal'),
    ),
    'lenet5_1998': _LENET(
        module=LeNet5Original,
        params=60_000,
        macs=326_520,
        evidence='paper: C1 156 + S2 12 + C3 1,516 + S4 32 + C5 48,120 + F6 10,164',
    ),
}
