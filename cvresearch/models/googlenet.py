"""GoogLeNet, or Inception-v1. Szegedy et al. 2015, "Going deeper with convolutions", CVPR,
arXiv:1409.4842, table 1 and section 5.

- `googlenet_2014`, the paper's: no batch norm, response normalization after the first pooling
  and after conv2, biases, 5x5 kernels. `googlenet_2014_aux` has the two auxiliary classifiers
  on 4a and 4d, whose losses count 0.3 in training; they are not run at evaluation.
- `googlenet`, as torchvision has it, and `googlenet_aux`: with batch norm and without
  normalization of responses; a slip made the 5x5 kernels 3x3, and stayed for the weights' sake;
  the last max-pooling is 2x2; the auxiliary heads average to 4x4 rather than 5x5 windows.

Pitfalls: the 6.8 million of the paper's table 1 is with K = 1024, not 1000. Its conv1 row (2.7K
weights) is a separable 7x7 convolution; here, as in every re-implementation, it is a plain one.
The paper states neither initialisation nor the constants of its response normalization: both
are of BVLC's Caffe net (alpha = 1e-4 over 5 channels and bias 1; weights uniform with variance
1 / fan-in, which Caffe calls xavier, and biases from 0.2).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvresearch.base.errors import UserError, lookup
from cvresearch.models.names import Names
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.inception import ConvBN, Inception, halve, to_unit_range
from cvresearch.nn.initializers import initializer
from cvresearch.nn.norms import NormSpec, local_response_norm
from cvresearch.nn.pool import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool
from cvresearch.nn.shapes import require_at_least

# Table 1: features of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection after the pooling.
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
AUXILIARY = {(2, 0): 'aux1', (2, 3): 'aux2'}  # after 4a and 4d


def naive(widths: tuple[int, ...], wide_kernel: int = 5) -> tuple:
    """Figure 2(a): no reductions. The pooling keeps all channels, so that modules only ever grow."""
    ones, _, threes, _, fives, _ = widths
    return ((ones, 1),), ((threes, 3),), ((fives, wide_kernel),), ('max',)


def reduced(widths: tuple[int, ...], wide_kernel: int = 5) -> tuple:
    """Figure 2(b): 1x1 convolutions before the 3x3 and the 5x5, and after the pooling."""
    ones, three_reduce, threes, five_reduce, fives, projection = widths
    return (
        ((ones, 1),),
        ((three_reduce, 1), (threes, 3)),
        ((five_reduce, 1), (fives, wide_kernel)),
        ('max', (projection, 1)),
    )


class GoogLeNet(nn.Module):
    """GoogLeNet.

    Attributes:
      num_classes: number of logits.
      aux: has the auxiliary heads; in training the call returns (logits, [auxiliary logits]).
      aux_weight: of each auxiliary loss beside the main one.
      batch_norm: after every convolution, instead of biases and response normalization.
      naive: modules without 1x1 reductions (figure 2a), to see what these save.
      wide_kernel: size of the kernels called 5x5.
      last_pool: size of the last max-pooling window.
      aux_pool: 'windows', of 5x5 three pixels apart, or 'adaptive', to 4x4 from any size.
      transform_input: takes images normalized with ImageNet's mean and deviation to [-1, 1].
      padding: 'torch' (and Caffe): half the kernel on every side, sizes after pooling rounded
        up; or 'SAME' as TensorFlow.
    """

    num_classes: int
    aux: bool = False
    aux_weight: float = 0.3
    batch_norm: bool = False
    naive: bool = False
    wide_kernel: int = 5
    last_pool: int = 3
    aux_pool: str = 'windows'
    transform_input: bool = False
    padding: str = 'torch'
    dropout: float = 0.4
    aux_dropout: float = 0.7
    bn: NormSpec = NormSpec(eps=1e-3)
    kernel_init: str = 'lecun_uniform'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        """Maps (batch, height, width, channels) to (batch, num_classes).

        Raises:
          UserError: images too small for the poolings.
        """
        require_at_least('GoogLeNet', x.shape, 31 if self.last_pool == 3 else 15)
        init = initializer(self.kernel_init)
        plain = functools.partial(
            Conv,
            use_bias=not self.batch_norm,
            kernel_init=init,
            bias_init=nn.initializers.constant(0.2),
            dtype=self.dtype,
        )
        norm = self.bn.layer(train, self.dtype)
        conv = functools.partial(ConvBN, padding=self.padding, conv=plain, norm=norm if self.batch_norm else None)
        dense = functools.partial(nn.Dense, kernel_init=init, dtype=self.dtype)
        pool = functools.partial(halve, padding=self.padding)
        lrn = (lambda x: x) if self.batch_norm else functools.partial(local_response_norm, alpha=1e-4 / 5, bias=1.0)
        pools = dict(max=functools.partial(max_pool, window=3, strides=1, padding='SAME'))
        module = naive if self.naive else reduced
        head = functools.partial(
            AuxiliaryHead,
            self.num_classes,
            conv,
            dense,
            lookup('aux_pool', AUX_POOLS, self.aux_pool),
            self.aux_dropout,
            train,
        )

        x = (to_unit_range(x) if self.transform_input else x).astype(self.dtype)
        x = conv(64, 7, 2, name='stem_conv1')(x)
        x = lrn(pool(x, name='stem_pool1'))
        x = conv(64, 1, name='stem_conv2')(x)
        x = lrn(conv(192, 3, name='stem_conv3')(x))
        extra = []
        for i, stage in enumerate(STAGES, 1):
            x = pool(x, window=self.last_pool if i == len(STAGES) else 3, name=f'pool{i + 1}')
            for j, widths in enumerate(stage):
                x = Inception(module(widths, self.wide_kernel), conv, pools, name=f'stage{i}_block{j}')(x)
                if (i, j) in AUXILIARY and self.aux and (train or self.is_initializing()):
                    extra.append(head(name=AUXILIARY[i, j])(x))
        x = global_avg_pool(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = dense(self.num_classes, name='head')(x).astype(jnp.float32)
        return (logits, extra) if train and self.aux else logits


class AuxiliaryHead(nn.Module):
    """A classifier on a map inside the net (section 5)."""

    num_classes: int
    conv: Callable
    dense: Callable
    pool: Callable
    dropout: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, num_classes)."""
        x = self.conv(128, 1, name='conv')(self.pool(x))
        x = nn.relu(self.dense(1024, name='fc1')(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(self.dropout, deterministic=not self.train)(x)
        return self.dense(self.num_classes, name='fc2')(x).astype(jnp.float32)


def window_pool(x: jax.Array) -> jax.Array:
    """Averages 5x5 windows three pixels apart: 4x4 at 224 pixels.

    Raises:
      UserError: a map that is not 14x14 to 16x16: the dense layer behind takes 4x4 only.
    """
    height, width = x.shape[1:3]
    if not all(14 <= size < 17 for size in (height, width)):
        raise UserError(
            f"GoogLeNet's auxiliary heads got a map of {height}x{width}, expected 14x14: "
            "give images of 224x224, or aux_pool='adaptive', or aux=False"
        )
    return avg_pool(x, 5, 3)


AUX_POOLS = {'windows': window_pool, 'adaptive': functools.partial(adaptive_avg_pool, size=4)}


_TORCH = Names(
    {
        'stem_conv{n}/{layer}': 'conv{n}.{layer}',
        'head': 'fc',
        'aux{n}/fc{m}': 'aux{n}.fc{m}',
        'aux{n}/conv/{layer}': 'aux{n}.conv.{layer}',
        'stage{i}_block{j}/branch0_0/{layer}': 'inception{i+2}{j:a}.branch1.{layer}',
        'stage{i}_block{j}/branch{b}_{k}/{layer}': 'inception{i+2}{j:a}.branch{b+1}.{k}.{layer}',
    }
)

_FACTS = functools.partial(
    Variant, module=GoogLeNet, input_shape=(224, 224, 3), num_classes=1000, paper='Szegedy et al. 2014, arXiv:1409.4842'
)
_TORCHVISION = dict(
    batch_norm=True, wide_kernel=3, last_pool=2, aux_pool='adaptive', dropout=0.2, kernel_init='he_normal'
)
VARIANTS = {
    'googlenet_2014': _FACTS(
        params=6_998_552,
        macs=1_582_671_872,
        evidence='arithmetic, layer by layer; = BVLC Caffe googlenet',
    ),
    'googlenet_2014_aux': _FACTS(
        params=13_378_280,
        macs=1_582_671_872,
        arguments=dict(aux=True),
        evidence='arithmetic, layer by layer; multiply-adds of evaluation (1,591,044,096 with both heads run)',
    ),
    'googlenet': _FACTS(
        params=6_624_904,
        macs=1_498_376_192,
        arguments=_TORCHVISION,
        evidence='torchvision 0.28.0 without auxiliary heads, measured; MACs by forward hooks',
    ),
    'googlenet_aux': _FACTS(
        params=13_004_888,
        macs=1_498_376_192,
        arguments=dict(**_TORCHVISION, aux=True),
        evidence='torchvision 0.28.0, measured; multiply-adds of evaluation',
    ),
}

_REFERENCE = functools.partial(Reference, rename=_TORCH, arguments=dict(bn_unbiased=True), input_shape=(107, 96, 3))
REFERENCES = {
    'torchvision/googlenet': _REFERENCE(
        variant='googlenet_aux',
        flatten={'aux1/fc1': (128, 4, 4), 'aux2/fc1': (128, 4, 4)},
        training_only=r'\w+/aux[12]/.*',
        without=dict(aux=False),
    ),
    # googlenet(aux_logits=False), which is also what torchvision gives with its weights.
    'torchvision/googlenet_no_aux': _REFERENCE(variant='googlenet', ignore=(r'aux[12]\..*',)),
}
