"""The one place where a convolution is written. Every model goes through it."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cvresearch.base.errors import UserError

DENSE_CHANNELS = 32  # input channels that grouped convolutions are joined up to, on CPU

Padding = str | int | Sequence[int | tuple[int, int]]


def conv2d(
    x: jax.Array, kernel: jax.Array, *, strides: int | tuple[int, int] = 1, padding: Padding = 'SAME',
    groups: int = 1, dilation: int | tuple[int, int] = 1,
) -> jax.Array:  # fmt: skip
    """Convolves images with a kernel (cross-correlation, as everywhere in this field).

    Args:
      x: (batch, height, width, channels).
      kernel: (kernel height, kernel width, channels / groups, features).
      strides: of the window, one number or (vertical, horizontal).
      padding: 'SAME', 'VALID', a number of zeros on every side, or ((top, bottom), (left, right)).
      groups: channels and features are divided into so many independent convolutions.
      dilation: distance between the kernel's taps, one number or (vertical, horizontal).

    Returns:
      (batch, height', width', features).
    """
    plain = functools.partial(
        lax.conv_general_dilated, window_strides=pair(strides), padding=explicit(padding),
        rhs_dilation=pair(dilation), dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    grouped = functools.partial(plain, feature_group_count=groups)
    if groups == 1 or kernel.shape[2] == 1:
        return grouped(x, kernel)
    # The same mathematics; which of the two is lowered is the platform's business.
    return lax.platform_dependent(
        x, kernel, cpu=functools.partial(_dense_groups, plain, groups), default=grouped
    )


def _dense_groups(plain: Callable, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a grouped convolution as dense ones, over as many groups at once as fill DENSE_CHANNELS.

    Each dense kernel holds those groups' kernels on its diagonal, and zeros. XLA's CPU backend has
    no fast code for groups: the gradient of a kernel in 32 groups took 15 s where this takes 8 ms.
    """
    depth = kernel.shape[2]
    together = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * depth <= DENSE_CHANNELS))
    parts = groups // together
    images, kernels = jnp.split(x, parts, axis=-1), jnp.split(kernel, parts, axis=-1)
    results = [plain(image, _on_diagonal(part, together)) for image, part in zip(images, kernels, strict=True)]
    return jnp.concatenate(results, axis=-1)


def _on_diagonal(kernel: jax.Array, groups: int) -> jax.Array:
    """Returns (height, width, groups * depth, features), zero but where depth and features share a group."""
    height, width, depth, features = kernel.shape
    blocks = kernel.reshape(height, width, 1, depth, groups, features // groups)
    diagonal = jnp.eye(groups, dtype=kernel.dtype).reshape(groups, 1, groups, 1)
    return (blocks * diagonal).reshape(height, width, groups * depth, features)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Returns (value, value) for a number, the two values for a pair."""
    return (value, value) if isinstance(value, int) else tuple(value)


def explicit(padding: Padding) -> str | list[tuple[int, int]]:
    """Returns padding as XLA takes it: a name, or [(top, bottom), (left, right)]."""
    if isinstance(padding, str):
        return padding
    return [pair(side) for side in pair(padding)]


class Conv(nn.Module):
    """A convolution layer with `nn.Conv`'s parameters (kernel HWIO, bias), through `conv2d`."""

    features: int
    kernel_size: int | tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: Padding = 'SAME'
    groups: int = 1
    dilation: int | tuple[int, int] = 1
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height', width', features)."""
        shape = (*pair(self.kernel_size), x.shape[-1] // self.groups, self.features)
        self._check_channels(x.shape, shape)
        kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
        bias = self.param('bias', self.bias_init, (self.features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv2d(
            x, kernel, strides=self.strides, padding=self.padding, groups=self.groups, dilation=self.dilation
        )
        return y if bias is None else y + bias

    def _check_channels(self, image: tuple[int, ...], kernel: tuple[int, ...]) -> None:
        """Raises UserError where the parameters are those of another number of channels."""
        if image[-1] % self.groups:
            raise UserError(
                f'convolution {"/".join(self.path)} got {image[-1]} channels, expected a multiple of its '
                f'{self.groups} groups'
            )
        if self.has_variable('params', 'kernel'):
            taken = self.get_variable('params', 'kernel').shape[2]
            if taken != kernel[2]:
                raise UserError(
                    f'convolution {"/".join(self.path)} got {image[-1]} channels, expected {taken * self.groups}, '
                    'as its kernel has them'
                )
