"""Normalization layers."""

import dataclasses
import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cvresearch.base.arrays import JaxArray
from cvresearch.base.errors import UserError, construct
from cvresearch.nn import devices
from cvresearch.nn.channels import require_channels
from cvresearch.nn.moments import moments


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What the batch norms of a net do, where that is not plain batch norm; see `Net` in overrides.py.

    Attributes:
      kind: 'batch_norm'; 'batch_renorm' (Ioffe 2017, arXiv:1702.03275); 'group_norm' (Wu & He 2018,
        arXiv:1803.08494), which has no statistics; 'none', which leaves scale and bias.
      group_size: examples over which statistics are taken in training, consecutive in the batch; 0 for all of it.
        The running statistics take the mean over the groups.
      channel_groups: of group norm; the greatest common divisor with the channels of a layer.
      r_max, d_max: of batch renormalization, the bounds of its correction at the end of their rise from 1 and 0.
      begin_steps: batch renormalization is batch norm so long; then the bounds rise,
      r_steps, d_steps: until these steps (section 4.1).
      momentum: in place of the layers' own, where it is not None.
      frozen: normalize with the running statistics in training too, and leave them as they are.
    """

    kind: str = 'batch_norm'
    group_size: int = 0
    channel_groups: int = 32
    r_max: float = 3.0
    d_max: float = 5.0
    begin_steps: int = 5000
    r_steps: int = 40000
    d_steps: int = 25000
    momentum: float | None = None
    frozen: bool = False


def batch_norm(group_size: int = 0) -> Normalization:
    """Batch norm, over groups of so many examples."""
    return Normalization(group_size=group_size)


def batch_renorm(
    group_size: int = 0,
    r_max: float = 3.0,
    d_max: float = 5.0,
    begin_steps: int = 5000,
    r_steps: int = 40000,
    d_steps: int = 25000,
) -> Normalization:
    """Batch renormalization: normalized as in evaluation, within bounds."""
    if r_max < 1 or d_max < 0:
        raise UserError(f'config.batch_norm: r_max is {r_max} and d_max {d_max}; expected at least 1 and 0')
    return Normalization('batch_renorm', group_size, 0, r_max, d_max, begin_steps, r_steps, d_steps)


def group_norm(channel_groups: int = 32) -> Normalization:
    """Group norm in place of batch norm."""
    if channel_groups < 1:
        raise UserError(f'config.batch_norm.channel_groups is {channel_groups}; expected at least 1')
    return Normalization('group_norm', channel_groups=channel_groups)


def none() -> Normalization:
    """No normalization; scale and bias stay."""
    return Normalization('none')


NORMALIZATIONS = {'batch_norm': batch_norm, 'batch_renorm': batch_renorm, 'group_norm': group_norm, 'none': none}


def make(spec) -> Normalization:
    """Returns what a config's `batch_norm` names.

    Raises:
      UserError: an unknown name or argument, or a value out of range.
    """
    arguments = dict(spec)
    if not arguments.get('group_size', 0):
        arguments.pop('group_size', None)  # of norms that have no groups of examples too
    how = construct('batch_norm', NORMALIZATIONS, arguments)
    if how.group_size < 0:
        raise UserError(f'config.batch_norm.group_size is {how.group_size}; expected at least 0')
    return how


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015) over all axes but the last.

    Parameters `scale` and `bias`, statistics `batch_stats/mean` and `batch_stats/var`, all float32 (channels,).
    The statistics are of the whole batch, also under jit over a mesh, or of groups of examples.

    Attributes:
      train: normalize with the batch's statistics and update the running ones.
      momentum: running = momentum * running + (1 - momentum) * batch. (PyTorch's number is one
        less this.)
      eps: added to the variance.
      unbiased: update the running variance with n / (n - 1) times the batch's, as PyTorch does;
        TensorFlow and Keras do not.
      writes_gradient: on TPUs, the gradient of the result is written to memory, not computed at each use: of what is
        dear, as behind swish with squeeze and excitation.
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
    writes_gradient: bool = False

    @nn.compact
    def __call__(
        self, x: Float[JaxArray, '*batch channels'], how: Normalization = Normalization()
    ) -> Float[Array, '*batch channels']:
        """Returns the normalized (..., channels), in `dtype` or x's own.

        Args:
          x: (batch, ..., channels).
          how: given by `Net`, not by the models.

        Raises:
          UserError: another number of channels than the parameters are for.
        """
        for name in ('scale', 'bias'):
            if self.has_variable('params', name):
                require_channels('BatchNorm', x.shape[-1], len(self.get_variable('params', name)))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if how.kind == 'none':
            mean, factor = jnp.zeros((), wide.dtype), jnp.ones((), wide.dtype)
        elif how.kind == 'group_norm':
            mean, factor = _of_channel_groups(wide, how.channel_groups, self.eps)
        else:
            if how.group_size and self.train and not how.frozen:
                wide = wide.reshape(-1, how.group_size, *x.shape[1:])
            mean, factor = self._of_batch(wide, how, x.dtype.itemsize < 4)
        channels = (x.shape[-1],)
        if self.use_scale:
            factor *= self.param('scale', self.scale_init, channels, jnp.float32)
        offset = -mean * factor
        if self.use_bias:
            offset += self.param('bias', self.bias_init, channels, jnp.float32)
        scaled = _scaled_writing if self.writes_gradient and devices.platform() == 'tpu' else _scaled
        return scaled(wide, factor, offset, x.shape, self.dtype or x.dtype)

    def _of_batch(self, x: jax.Array, how: Normalization, rounded: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the mean, and one over the deviation, of x: (channels,), or (groups, 1, ..., channels).

        Args:
          x: (..., channels), or (groups, examples, ..., channels); wide.
          how: by which statistics.
          rounded: whether x was of 16 bits.
        """
        channels = (x.shape[-1],)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
        running_var = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)
        renorm = how.kind == 'batch_renorm'
        steps = self.variable('batch_stats', 'steps', jnp.zeros, (), jnp.float32) if renorm else None
        if not self.train or how.frozen:
            return running_mean.value, lax.rsqrt(running_var.value + self.eps)
        grouped = bool(how.group_size)
        axes = tuple(range(grouped, x.ndim - 1))
        mean, var = moments(x, running_mean.value, axes, grouped, rounded)
        factor = lax.rsqrt(var + self.eps)
        centre = mean
        if steps is not None:
            r_max, d_max = _renorm_bounds(how, steps.value)
            old = lax.rsqrt(running_var.value + self.eps)
            r = lax.stop_gradient(jnp.clip(old / factor, 1 / r_max, r_max))
            d = lax.stop_gradient(jnp.clip((mean - running_mean.value) * old, -d_max, d_max))
            # (x - mean) * factor * r + d, as (x - centre) * (factor * r)
            centre = mean - d / (factor * r)
            factor *= r
        if not self.is_initializing():
            n = x.size // mean.size
            new_var = var * (n / max(n - 1, 1)) if self.unbiased else var
            momentum = self.momentum if how.momentum is None else how.momentum
            running_mean.value = momentum * running_mean.value + (1 - momentum) * _over_groups(mean)
            running_var.value = momentum * running_var.value + (1 - momentum) * _over_groups(new_var)
            if steps is not None:
                steps.value += 1
        return centre, factor


def _scaled(x: jax.Array, factor: jax.Array, offset: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    return (x * factor + offset).reshape(shape).astype(dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _scaled_writing(x: jax.Array, factor: jax.Array, offset: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    """The same. The gradient of the result that goes on to x lies behind a barrier; sums of it are taken before that.

    So XLA writes it as it takes the sums.
    """
    return _scaled(x, factor, offset, shape, dtype)


@_scaled_writing.defjvp
def _scaled_writing_jvp(shape, dtype, primals, tangents):
    (x, factor, _), (d_x, d_factor, d_offset) = primals, tangents
    of_x = lax.optimization_barrier((d_x * factor).reshape(shape).astype(dtype))
    of_sums = (x * d_factor + d_offset).reshape(shape).astype(dtype)
    return _scaled_writing(*primals, shape, dtype), of_x + of_sums


@dataclasses.dataclass(frozen=True)
class NormSpec:
    """The constants of a net's batch norms, in which papers and libraries differ.

    The registry gives each of them a key of its own: of an argument `bn`, `bn_momentum`, `bn_eps` and `bn_unbiased`.

    Attributes:
      momentum, eps, unbiased: as `BatchNorm` has them.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    unbiased: bool = False

    def layer(self, train: bool, dtype: jnp.dtype | None = None, **arguments) -> Callable[..., BatchNorm]:
        """Returns what makes the net's batch norms; `arguments` are further ones of `BatchNorm`."""
        return functools.partial(
            BatchNorm,
            train=train,
            momentum=self.momentum,
            eps=self.eps,
            unbiased=self.unbiased,
            dtype=dtype,
            **arguments,
        )


def _over_groups(statistics: jax.Array) -> jax.Array:
    return statistics if statistics.ndim == 1 else jnp.mean(statistics, tuple(range(statistics.ndim - 1)))


def _of_channel_groups(x: jax.Array, most: int, eps: float) -> tuple[jax.Array, jax.Array]:
    """Returns the mean and one over the deviation of each example's groups of channels, (batch, 1, ..., channels)."""
    groups = math.gcd(x.shape[-1], most)
    grouped = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean = jnp.mean(grouped, (1, 3), keepdims=True)
    var = jnp.mean(jnp.square(grouped - mean), (1, 3), keepdims=True)

    def spread(statistics: jax.Array) -> jax.Array:
        statistic = jnp.broadcast_to(statistics, (x.shape[0], 1, groups, x.shape[-1] // groups))
        return statistic.reshape(x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])

    return spread(mean), spread(lax.rsqrt(var + eps))


def _renorm_bounds(how: Normalization, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    def part(until: int) -> jax.Array:
        return jnp.clip((step - how.begin_steps) / max(until - how.begin_steps, 1), 0.0, 1.0)

    return 1 + part(how.r_steps) * (how.r_max - 1), part(how.d_steps) * how.d_max


def local_response_norm(
    x: Float[JaxArray, '*batch channels'], size: int = 5, alpha: float = 1e-4, beta: float = 0.75, bias: float = 2.0
) -> Float[Array, '*batch channels']:
    """Local response normalization across channels (Krizhevsky et al. 2012, section 3.3).

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
