"""The one place where a convolution is written. Every model goes through it."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from cvresearch.base.arrays import Images, Kernel
from cvresearch.base.errors import UserError
from cvresearch.nn import conv_banded, conv_cpu, conv_onednn, conv_tpu, devices
from cvresearch.nn.conv_primitives import (
    Window,
    forward_p,
    input_gradient_p,
    kernel_gradient_p,
    lower_on_cpu,
    lower_on_tpu,
    plain,
    plain_input_gradient,
    plain_kernel_gradient,
)

_ON_CPU = (conv_onednn, conv_banded, conv_cpu)  # each has what the ones before it leave
lower_on_cpu(forward_p, *(forms.forward for forms in _ON_CPU))
lower_on_cpu(input_gradient_p, *(forms.input_gradient for forms in _ON_CPU))
lower_on_cpu(kernel_gradient_p, *(forms.kernel_gradient for forms in _ON_CPU))
lower_on_tpu(forward_p, functools.partial(conv_tpu.convolution, plain))
lower_on_tpu(input_gradient_p, functools.partial(conv_tpu.convolution, plain_input_gradient))
lower_on_tpu(kernel_gradient_p, functools.partial(conv_tpu.kernel_gradient, plain_kernel_gradient))

_PLAIN = contextvars.ContextVar('plain', default=False)

Padding = str | int | Sequence[int | tuple[int, int]]


def conv2d(
    x: Images,
    kernel: Kernel,
    *,
    strides: int | tuple[int, int] = 1,
    padding: Padding = 'SAME',
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
) -> Float[Array, 'batch _ _ features']:
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
    strides, dilation = pair(strides), pair(dilation)
    size = [(k - 1) * gap + 1 for k, gap in zip(kernel.shape[:2], dilation, strict=True)]
    pads = explicit(padding)
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(x.shape[1:3], size, strides, pads)
    window = Window(
        image=pair(x.shape[1:3]),
        size=pair(kernel.shape[:2]),
        strides=strides,
        padding=(pair(pads[0]), pair(pads[1])),
        dilation=dilation,
        groups=groups,
    )
    if groups > 1 and (mesh := _to_divide_over(x, kernel, window)):
        divided = PartitionSpec(mesh.axis_names)
        of_part = jax.shard_map(
            functools.partial(_convolve, window=window),
            mesh=mesh,
            in_specs=(divided, PartitionSpec()),
            out_specs=divided,
        )
        return of_part(x, kernel)
    return _convolve(x, kernel, window)


def _convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    if _PLAIN.get():
        return plain(x, kernel, window)
    return forward_p.bind(*_alike(x, kernel), window=window, members=False)


def _to_divide_over(x: jax.Array, kernel: jax.Array, window: Window) -> Mesh | None:
    """Returns the mesh over which a convolution with groups must be told to divide the batch; None where it need not.

    XLA's partitioner for GPUs and CPUs has every device compute a grouped convolution for the whole batch, which it
    gathers first: the forward pass and both gradients. A TPU's does not, but of groups that are joined there it would
    send the gradients with the zeros between them. A depthwise one it divides on GPUs, but not the loop that its kernel
    gradient is on CPUs.
    """
    mesh, platform, depth = devices.mesh(), devices.platform(), kernel.shape[2]
    if mesh is None or mesh.size == 1 or len(x) % mesh.size:
        return None
    if platform == 'tpu':
        to_divide = conv_tpu.channels_joined(depth, window) > 0
    else:
        to_divide = depth > 1 or platform == 'cpu'
    return mesh if to_divide else None


@contextlib.contextmanager
def plain_lowering() -> Iterator[None]:
    """Within it, convolutions are traced as XLA's own operation on every platform: for comparison."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def _alike(*arrays: jax.Array) -> list[jax.Array]:
    """Returns arrays that vary over the same axes of a mesh: within `jax.shard_map` a kernel is the same everywhere."""
    varying = [jax.typeof(x).manual_axis_type.varying for x in arrays]
    every = frozenset().union(*varying)
    return [lax.pcast(x, tuple(every - axes), to='varying') for x, axes in zip(arrays, varying, strict=True)]


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Returns (value, value) for a number, the two values for a pair."""
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def explicit(padding: Padding) -> str | list[tuple[int, int]]:
    """Returns padding as XLA takes it: a name, or [(top, bottom), (left, right)]."""
    if isinstance(padding, str):
        return padding
    vertical, horizontal = (padding, padding) if isinstance(padding, int) else padding
    return [pair(vertical), pair(horizontal)]


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
    def __call__(self, x: Images) -> Float[Array, 'batch _ _ {self.features}']:
        """Maps (batch, height, width, channels) to (batch, height', width', features)."""
        shape = (*pair(self.kernel_size), x.shape[-1] // self.groups, self.features)
        self._check_channels(x.shape, shape)
        kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
        bias = self.param('bias', self.bias_init, (self.features,), jnp.float32) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv2d(x, kernel, strides=self.strides, padding=self.padding, groups=self.groups, dilation=self.dilation)
        return y if bias is None else y + bias

    def _check_channels(self, image: tuple[int, ...], kernel: tuple[int, ...]) -> None:
        """Raises UserError where the parameters are for another number of channels."""
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
