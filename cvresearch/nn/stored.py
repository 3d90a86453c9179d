"""A net that computes with its parameters as they are stored: narrower layers, products of two, integers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jaxtyping import Float, Int, Int8

from cvresearch.base.arrays import JaxArray
from cvresearch.nn.conv import Conv, conv2d, explicit, pair
from cvresearch.nn.levels import to_levels
from cvresearch.nn.norms import BatchNorm


class Stored(nn.Module):
    """A model whose layers may have other parameters than its constructor gives them, under the same names.

    - A kernel with fewer features, or for fewer channels (structured pruning): the layer is that much narrower.
    - `first` and `second` in place of `kernel` (factorisation): two layers, one after the other, without a bias
      between. Of a dense layer they are (inputs, rank) and (rank, features). Of a convolution either (height, width,
      channels, rank) and (1, 1, rank, features), or (height, 1, channels, rank) and (1, width, rank, features).
    - A kernel of int8, with `kernel_scale` (features,) or (), `input_scale` () and `input_zero_point` (): the input is
      rounded to 256 levels, scale * (level - zero point), and the products are of integers.
    - A batch norm without variables does nothing: it was folded into the convolution before it, which has a bias now.

    Convolutions in groups can be neither narrower nor factored, but for depthwise ones, which can be narrower.

    Attributes:
      model: the net.
      integers: int8 layers sum in int32, as a device for integers does. Otherwise the same numbers are multiplied as
        floats, which is faster here and differs by the rounding of the sums.
    """

    model: nn.Module
    integers: bool = False

    def setup(self):
        nn.share_scope(self, self.model)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.model.num_classes

    def __call__(self, x: jax.Array, train: bool = False):
        """Maps images as the model does."""
        with nn.intercept_methods(functools.partial(_as_stored, self.integers)):
            return self.model(x, train=train)


def _as_stored(integers, call, arguments, keywords, context):
    layer = context.module
    if context.method_name != '__call__' or layer.is_initializing():
        return call(*arguments, **keywords)
    if isinstance(layer, BatchNorm) and not layer.variables:
        return arguments[0]
    params = layer.variables.get('params', {}) if type(layer) in (Conv, nn.Dense) else {}
    if 'kernel_scale' in params:
        return _of_integers(layer, params, arguments[0], integers)
    if not params or not _is_other(layer, params):
        return call(*arguments, **keywords)
    names = ('first', 'second') if 'first' in params else ('kernel',)
    x, bias, *kernels = promote_dtype(
        arguments[0], params.get('bias'), *(params[name] for name in names), dtype=layer.dtype
    )
    for number, kernel in enumerate(kernels):
        x = conv2d(x, kernel, **_window(layer, kernel.shape, number)) if isinstance(layer, Conv) else x @ kernel
    return x if bias is None else x + bias


def _is_other(layer: nn.Module, params) -> bool:
    """Whether a layer's parameters are not those that its constructor gives it."""
    if 'first' in params or ('bias' in params) != layer.use_bias:
        return True
    return 'kernel' in params and params['kernel'].shape[-1] != layer.features


def _window(layer: Conv, shape: tuple[int, ...], number: int) -> dict:
    """Returns the arguments of one of the convolutions that stand for a layer.

    A side of the window on which the kernel is as long as the layer's belongs to it, and so do its strides and padding;
    where both kernels are 1 long on a side, they belong to the first.
    """
    lengths = pair(layer.kernel_size)
    owns = [side == full if full > 1 else number == 0 for side, full in zip(shape[:2], lengths, strict=True)]

    def of(values, other):
        return tuple(value if mine else other for value, mine in zip(values, owns, strict=True))

    pads = explicit(layer.padding)
    padding = pads if isinstance(pads, str) else of(pads, (0, 0))
    depthwise = 1 < layer.groups == layer.features
    return dict(
        strides=of(pair(layer.strides), 1),
        padding=padding,
        dilation=of(pair(layer.dilation), 1),
        groups=shape[-1] if depthwise else layer.groups,
    )


def _of_integers(layer: nn.Module, params, x: jax.Array, integers: bool) -> jax.Array:
    """Applies a layer of int8."""
    window = None
    if isinstance(layer, Conv):
        padding = explicit(layer.padding)
        padding = padding if isinstance(padding, str) else tuple(padding)
        window = (pair(layer.strides), padding, pair(layer.dilation), layer.groups)
    names = ('kernel', 'kernel_scale', 'input_scale', 'input_zero_point')
    return int8_layer(x, *(params[name] for name in names), params.get('bias'), window=window, integers=integers)


@functools.partial(jax.jit, static_argnames=('window', 'integers'))
def int8_layer(
    x: Float[JaxArray, 'batch *inside channels'],
    kernel: Int8[JaxArray, '*window features'],
    kernel_scale: Float[JaxArray, '*scales'],
    input_scale: Float[JaxArray, ''],
    input_zero_point: Int[JaxArray, ''],
    bias: Float[JaxArray, ' features'] | None,
    window: tuple | None,
    integers: bool = False,
) -> Float[JaxArray, 'batch *outside features']:
    """Returns a layer's output, its input rounded to levels. Padding is with real zeros: levels count from the zero
    point.

    A function with a name in the traced program: what leaves in a format with quantised operators is written by it.

    Args:
      x: float32 input.
      kernel: int8.
      kernel_scale: (features,) or ().
      input_scale: ().
      input_zero_point: ().
      bias: (features,), or None.
      window: (strides, padding, dilation, groups) of a convolution, None for a dense layer.
      integers: sum in int32.
    """
    kind = jnp.int32 if integers else jnp.float32
    levels = (to_levels(x, input_scale, input_zero_point) - input_zero_point).astype(kind)
    if window is None:
        total = jnp.matmul(levels, kernel.astype(kind), precision=lax.Precision.HIGHEST)
    else:
        strides, padding, dilation, groups = window
        total = lax.conv_general_dilated(
            levels,
            kernel.astype(kind),
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=groups,
            precision=lax.Precision.HIGHEST,
        )
    y = total.astype(jnp.float32) * (input_scale * kernel_scale)
    return y if bias is None else y + bias
