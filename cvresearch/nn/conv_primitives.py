"""A convolution and its two gradients as three JAX primitives, each lowered as suits the platform.

For a window that is fixed, <g, x * k> is linear in the image x, the kernel k and the gradient g. So the
three maps that leave one of them out,

    forward(x, k)    input_gradient(g, k)    kernel_gradient(x, g)

are each other's transposes, and derivatives of any order, forward or backward, stay among them. They are lowered as the
convolutions that JAX itself would derive, on CPU and TPU by what `conv` has for them (`conv_cpu`, `conv_tpu`).
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cvresearch.base.arrays import Images, Kernel, Maps
from cvresearch.nn import conv_shifted


@dataclasses.dataclass(frozen=True)
class Window:
    """What is fixed in a convolution.

    Attributes:
      image: (height, width) of the input.
      size: (height, width) of the kernel.
      strides: vertical and horizontal.
      padding: ((top, bottom), (left, right)).
      dilation: distance between taps, vertical and horizontal.
      groups: of channels.
    """

    image: tuple[int, int]
    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def output(self) -> tuple[int, int]:
        """(height, width) of the result."""
        axes = zip(self.image, self.size, self.strides, self.padding, self.dilation, strict=True)
        height, width = (max((n + sum(pad) - (k - 1) * gap - 1) // step + 1, 0) for n, k, step, pad, gap in axes)
        return height, width


def plain(x: Images, kernel: Kernel, window: Window) -> Maps:
    """Returns the convolution as XLA's one operation."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=window.strides,
        padding=window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=window.groups,
    )


def _image_shape(g, kernel, window: Window) -> tuple[int, ...]:
    return (g.shape[0], *window.image, kernel.shape[2] * window.groups)


def _kernel_shape(x, g, window: Window) -> tuple[int, ...]:
    return (*window.size, x.shape[-1] // window.groups, g.shape[-1])


def plain_input_gradient(g: Maps, kernel: Kernel, window: Window) -> Images:
    """Returns the gradient of <g, plain(x, kernel)> for x, as JAX derives it."""
    return jax.linear_transpose(lambda x: plain(x, kernel, window), _like(g, _image_shape(g, kernel, window)))(g)[0]


def plain_kernel_gradient(x: Images, g: Maps, window: Window) -> Kernel:
    """Returns the gradient of <g, plain(x, kernel)> for the kernel, as JAX derives it."""
    return jax.linear_transpose(lambda k: plain(x, k, window), _like(x, _kernel_shape(x, g, window)))(g)[0]


def _like(x: jax.Array, shape: tuple[int, ...]) -> jax.Array | jax.ShapeDtypeStruct:
    """Returns what stands for an array of a shape, different on each device within `jax.shard_map` if x is.

    Of an array that is the same on all devices the transpose would be a sum over them.
    """
    varies = jax.typeof(x).manual_axis_type.varying
    return jnp.zeros_like(x, shape=shape) if varies else jax.ShapeDtypeStruct(shape, x.dtype)


def _primitive(name: str, shape: Callable, default: Callable) -> Primitive:
    """Returns a primitive of two arrays, bilinear but for its transposes.

    Args:
      name: under which it stands in a jaxpr.
      shape: of the result, from the two operands and the window.
      default: (left, right, window) -> result, on any platform.
    """
    primitive = Primitive(name)

    def abstract(left, right, *, window, members):
        if not members:
            return left.update(shape=shape(left, right, window))
        one = shape(left.update(shape=left.shape[1:]), right.update(shape=right.shape[1:]), window)
        return left.update(shape=(left.shape[0], *one))

    def batched(operands, axes, *, window, members):
        size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
        left, right = (
            jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
            for x, axis in zip(operands, axes, strict=True)
        )
        shared = None in axes
        if shared and not members and name != 'conv2d_kernel_gradient' and axes[0] is not None:
            # One kernel for all: a larger batch.
            result = primitive.bind(left.reshape(-1, *left.shape[2:]), operands[1], window=window, members=False)
            return result.reshape(size, -1, *result.shape[1:]), 0
        if members:
            count = size * left.shape[1]
            left, right = left.reshape(count, *left.shape[2:]), right.reshape(count, *right.shape[2:])
        result = primitive.bind(left, right, window=window, members=True)
        return result.reshape(size, -1, *result.shape[1:]) if members else result, 0

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=('window', 'members')))
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, _lowered(default, _at_once))
    return primitive


def lower_on_cpu(primitive: Primitive, *rules: Callable) -> None:
    """Lowers a primitive on CPUs by functions (left, right, window) -> result, members one after the other.

    What a function returns NotImplemented for is left to the next. 16-bit floats are computed in float32 and rounded
    once.
    """

    def first(left, right, window):
        wide = [x.astype(jnp.float32) if x.dtype.itemsize < 4 else x for x in (left, right)]
        results = (rule(*wide, window) for rule in rules)
        return next(result for result in results if result is not NotImplemented).astype(left.dtype)

    one_by_one = _lowered(first, lambda rule, *both: lax.map(lambda pair: rule(*pair), both))
    mlir.register_lowering(primitive, one_by_one, 'cpu')


def lower_on_tpu(primitive: Primitive, rule: Callable) -> None:
    """Lowers a primitive on TPUs by a function (left, right, window) -> result, all members at once."""
    mlir.register_lowering(primitive, _lowered(rule, _at_once), 'tpu')


def _at_once(rule: Callable, *both: jax.Array) -> jax.Array:
    return jax.vmap(rule)(*both)


def _lowered(rule: Callable, over: Callable) -> Callable:
    def function(left, right, *, window, members):
        of_one = functools.partial(rule, window=window)
        return over(of_one, left, right) if members else of_one(left, right)

    lower = mlir.lower_fun(function, multiple_results=False)

    def lowering(context, *operands, **fixed):
        # A context of one device, or of a part of a mesh within `jax.shard_map`, has no such number.
        with conv_shifted.divided(getattr(context.module_context.axis_context, 'num_devices', 1) > 1):
            return lower(context, *operands, **fixed)

    return lowering


forward_p = _primitive('conv2d', lambda x, kernel, window: (x.shape[0], *window.output, kernel.shape[3]), plain)
input_gradient_p = _primitive('conv2d_input_gradient', _image_shape, plain_input_gradient)
kernel_gradient_p = _primitive('conv2d_kernel_gradient', _kernel_shape, plain_kernel_gradient)

# Of each, the transposes with respect to its left and its right operand, given the cotangent and the other.
ad.defbilinear(
    forward_p,
    lambda g, x, kernel, **fixed: input_gradient_p.bind(g, kernel, **fixed),
    lambda g, x, kernel, **fixed: kernel_gradient_p.bind(x, g, **fixed),
)
ad.defbilinear(
    input_gradient_p,
    lambda x, g, kernel, **fixed: forward_p.bind(x, kernel, **fixed),
    lambda x, g, kernel, **fixed: kernel_gradient_p.bind(x, g, **fixed),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda kernel, x, g, **fixed: input_gradient_p.bind(g, kernel, **fixed),
    lambda kernel, x, g, **fixed: forward_p.bind(x, kernel, **fixed),
)
