"""Normalisation layers."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) over all axes but the last.

    Parameters `scale` and `bias`, statistics `batch_stats/mean` and `batch_stats/var`, all
    float32 (channels,). Under jit over a mesh the statistics are of the whole batch.

    Attributes:
      train: normalise with the batch's statistics and update the running ones.
      momentum: running = momentum * running + (1 - momentum) * batch. (PyTorch's number is one
        less this.)
      eps: added to the variance.
      unbiased: update the running variance with n / (n - 1) times the batch's, as PyTorch does;
        TensorFlow and Keras do not.
    """

    train: bool = False
    momentum: float = 0.9
    eps: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    unbiased: bool = False
    scale_init: Callable = nn.initializers.ones_init()
    bias_init: Callable = nn.initializers.zeros_init()
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the normalised (..., channels), in `dtype` or x's own."""
        channels = (x.shape[-1],)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
        running_var = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
        if self.train:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(jnp.float32)
            mean = jnp.mean(wide, axes)
            var = jnp.mean(jnp.square(wide - mean), axes)
            if not self.is_initializing():
                n = x.size // x.shape[-1]
                new_var = var * (n / max(n - 1, 1)) if self.unbiased else var
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * new_var
        else:
            mean, var = running_mean.value, running_var.value
        factor = lax.rsqrt(var + self.eps)
        if self.use_scale:
            factor *= self.param('scale', self.scale_init, channels, jnp.float32)
        offset = -mean * factor
        if self.use_bias:
            offset += self.param('bias', self.bias_init, channels, jnp.float32)
        dtype = self.dtype or x.dtype
        return (x.astype(jnp.float32) * factor + offset).astype(dtype)


def local_response_norm(
    x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, bias: float = 2.0
) -> jax.Array:
    """Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3).

    x / (bias + alpha * sum of squares over `size` neighbouring channels) ** beta. (PyTorch and
    Caffe divide alpha by `size`; the paper and TensorFlow do not.)
    """
    half = size // 2
    squares = jnp.square(x.astype(jnp.float32))
    ones = (1,) * (x.ndim - 1)
    total = lax.reduce_window(
        squares, 0.0, lax.add, (*ones, size), (*ones, 1), [(0, 0)] * (x.ndim - 1) + [(half, size - 1 - half)]
    )
    return (x.astype(jnp.float32) * (bias + alpha * total) ** -beta).astype(x.dtype)
