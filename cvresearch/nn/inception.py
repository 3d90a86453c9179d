"""The brick of the Inception family: branches written as data, convolutions side by side."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cvresearch.base.arrays import Images, JaxArray
from cvresearch.nn.conv import Conv, pair
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.pool import ceil_padding, max_pool


class ConvBN(nn.Module):
    """Convolution, batch normalization if `norm` is given, ReLU."""

    features: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: str = 'SAME'
    conv: Callable = Conv
    norm: Callable | None = BatchNorm

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, 'batch _ _ _']:
        """Maps (batch, height, width, channels) to (batch, height', width', features)."""
        padding = [size // 2 for size in pair(self.kernel_size)] if self.padding == 'torch' else self.padding
        x = self.conv(self.features, self.kernel_size, self.strides, padding, name='conv')(x)
        return nn.relu(self.norm(name='bn')(x) if self.norm else x)


def chain(
    x: Images, steps: tuple, conv: Callable, pools: Mapping[str, Callable], name: str
) -> Float[Array, 'batch _ _ _']:
    """Returns x (batch, height, width, channels) after the steps, one by one; step i is named {name}_{i}.

    Args:
      x: the input.
      steps: each a key of `pools`, the arguments of a convolution, or two of these: convolutions
        side by side (a, b), whose results are concatenated.
      conv: makes a convolution layer.
      pools: pooling functions.
      name: prefix.
    """
    for i, step in enumerate(steps):
        if isinstance(step, str):
            x = pools[step](x, name=f'{name}_{i}')
        elif isinstance(step[0], tuple):
            both = [conv(*one, name=f'{name}_{i}{letter}')(x) for letter, one in zip('ab', step, strict=True)]
            x = jnp.concatenate(both, -1)
        else:
            x = conv(*step, name=f'{name}_{i}')(x)
    return x


class Inception(nn.Module):
    """Branches from one map, concatenated: step i of branch b is named branch{b}_{i}."""

    branches: tuple
    conv: Callable
    pools: Mapping[str, Callable]

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, 'batch _ _ _']:
        """Maps (batch, height, width, channels) to (batch, height', width', sum of the branches')."""
        outputs = [chain(x, steps, self.conv, self.pools, f'branch{b}') for b, steps in enumerate(self.branches)]
        return jnp.concatenate(outputs, -1)


def layer_names(steps: tuple, name: str) -> list[str]:
    """Returns the names of the convolutions that `chain` makes, in its order."""
    names = []
    for i, step in enumerate(steps):
        if not isinstance(step, str):
            letters = 'ab' if isinstance(step[0], tuple) else ('',)
            names += [f'{name}_{i}{letter}' for letter in letters]
    return names


def halve(x: Images, padding: str, window: int = 3, name: str = 'max_pool') -> Float[Array, 'batch _ _ channels']:
    """Returns the maxima of windows two pixels apart; padding 'torch' is a size rounded up, and none in front."""
    pads = [ceil_padding(size, window, 2) for size in x.shape[1:3]] if padding == 'torch' else padding
    return max_pool(x, window, 2, pads, name=name)


def to_unit_range(x: Float[JaxArray, '*batch 3']) -> Float[JaxArray, '*batch 3']:
    """Maps images (..., 3) normalized with ImageNet's mean and deviation to (pixel / 255 - 0.5) / 0.5."""
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    return x * (std / 0.5) + (mean - 0.5) / 0.5
