"""Pooling over windows and over whole maps. Each has a scope, so that summaries can name it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from cvresearch.base.arrays import Images, JaxArray
from cvresearch.nn import devices, sliding
from cvresearch.nn.conv import Padding, explicit, pair

LARGE = 1 << 20  # numbers from which a loop over images costs nothing


def max_pool(
    x: Images,
    window: int | tuple[int, int],
    strides: int | tuple[int, int] | None = None,
    padding: Padding = 'VALID',
    name: str = 'max_pool',
) -> Float[Array, 'batch _ _ channels']:
    """Returns each window's maximum.

    Args:
      x: (batch, height, width, channels).
      window: its size, one number or (vertical, horizontal).
      strides: of the window; its size by default.
      padding: as `conv2d`'s; never the maximum.
      name: scope under which summaries list it.
    """
    with jax.named_scope(name):
        strides, pads = pair(strides or window), explicit(padding)
        if isinstance(pads, str):
            pads = lax.padtype_to_pads(x.shape[1:3], pair(window), strides, pads)
        return _max_pool(x, pair(window), strides, tuple(map(tuple, pads)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window, strides, padding) -> jax.Array:
    return nn.max_pool(x, window, strides, padding)


@_max_pool.defjvp
def _max_pool_jvp(window, strides, padding, primals, tangents):
    (x,), (dx,) = primals, tangents
    y = _max_pool(x, window, strides, padding)
    if not y.size:
        return y, jnp.zeros_like(y)
    derived = lambda x, dx, y: jax.jvp(lambda x: nn.max_pool(x, window, strides, padding), (x,), (dx,))[1]  # noqa: E731
    written_out = functools.partial(_by_image, functools.partial(_first_maximum, window, strides, padding))
    return y, lax.platform_dependent(x, dx, y, cpu=written_out, default=derived)


def _by_image(function, *arrays: jax.Array) -> jax.Array:
    """Returns a function of images for one after the other; of all at once if they are few or lie on several devices.

    XLA:CPU would fuse the transpose, which is the gradient, with what makes the gradient of the maps, and compute that
    anew at each place where a pixel has a part: in DenseNet a sum of all layers of a stage. It does not for a loop.
    """
    mesh = devices.mesh()
    if arrays[0].size < LARGE or (mesh is not None and mesh.size > 1):
        return function(*arrays)
    return lax.map(lambda image: function(*(x[None] for x in image))[0], arrays)


def _first_maximum(window, strides, padding, x: jax.Array, dx: jax.Array, y: jax.Array) -> jax.Array:
    """Returns dx at the first maximum of each window.

    XLA:CPU compiles the transpose of this sum, which is the gradient, better than the scatter that JAX derives.
    """
    values = _phases(x, np.asarray(-np.inf, x.dtype), y.shape, window, strides, padding)
    changes = _phases(dx, np.zeros((), x.dtype), y.shape, window, strides, padding)
    taken, total = jnp.zeros(y.shape, bool), jnp.zeros_like(y)
    for i, j in np.ndindex(window):
        phase, (u, v) = (i % strides[0], j % strides[1]), (i // strides[0], j // strides[1])
        tap = np.s_[:, u : u + y.shape[1], v : v + y.shape[2]]
        first = (values[phase][tap] == y) & ~taken
        total += jnp.where(first, changes[phase][tap], 0)
        taken |= first
    return total


def _phases(x: jax.Array, outside, result, window, strides, padding) -> dict[tuple[int, int], jax.Array]:
    """Returns the padded x in strides, for each place (row, column) within a stride to start from."""
    reach = [(n - 1) * s + k for n, s, k in zip(result[1:3], strides, window, strict=True)]
    x = lax.pad(x, outside, [(0, 0, 0), *((*pad, 0) for pad in padding), (0, 0, 0)])[:, : reach[0], : reach[1]]
    places = np.ndindex(*map(min, strides, window))
    return {(a, b): x[:, a :: strides[0], b :: strides[1]] for a, b in places}


def avg_pool(
    x: Images,
    window: int | tuple[int, int],
    strides: int | tuple[int, int] | None = None,
    padding: Padding = 'VALID',
    count_include_pad: bool = False,
    name: str = 'avg_pool',
) -> Float[Array, 'batch _ _ channels']:
    """Returns each window's mean, over the pixels inside the image unless `count_include_pad`.

    (PyTorch counts the padding by default, TensorFlow and the papers do not.)
    """
    window, strides = pair(window), pair(strides or window)
    with jax.named_scope(name):
        pads = explicit(padding)
        if isinstance(pads, str):
            pads = lax.padtype_to_pads(x.shape[1:3], window, strides, pads)
        total = _window_sum(x, window, strides, tuple(map(tuple, pads)))
        if count_include_pad:
            return total / (window[0] * window[1])
        axes = zip(x.shape[1:3], window, strides, pads, strict=True)
        rows, columns = (_counted(size, k, step, pad) for size, k, step, pad in axes)
        return total / jnp.asarray((rows[:, None] * columns)[..., None], x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _window_sum(x: jax.Array, window, strides, padding) -> jax.Array:
    pads = [(0, 0), *padding, (0, 0)]
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, (1, *window, 1), (1, *strides, 1), pads)


@_window_sum.defjvp
def _window_sum_jvp(window, strides, padding, primals, tangents):
    (x,), (dx,) = primals, tangents
    sum_ = functools.partial(_window_sum, window=window, strides=strides, padding=padding)
    if window != strides or any(map(any, padding)):
        return sum_(x), sum_(dx)
    by_tiles = functools.partial(_by_image, functools.partial(_tile_sum, window))
    return sum_(x), lax.platform_dependent(dx, cpu=by_tiles, default=sum_)


def _tile_sum(window, x: jax.Array) -> jax.Array:
    """Returns the sums of windows side by side. The transpose, which is the gradient, repeats numbers.

    XLA:CPU has no fast code for the sum over dilated windows that JAX derives.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // window[0], width // window[1]
    x = x[:, : rows * window[0], : columns * window[1]]
    return x.reshape(batch, rows, window[0], columns, window[1], channels).sum((2, 4))


def _counted(size: int, window: int, stride: int, pad: tuple[int, int]) -> np.ndarray:
    """Returns how many pixels of the image each window holds, along one axis."""
    first = np.arange(0, size + sum(pad) - window + 1, stride) - pad[0]
    return np.minimum(first + window, size) - np.maximum(first, 0)


def global_avg_pool(x: Images, name: str = 'global_avg_pool') -> Float[Array, 'batch *windows channels']:
    """Maps (batch, height, width, channels) to (batch, channels); in dense evaluation every window by itself."""
    window = sliding.note(x)
    if window:
        return avg_pool(x, window, 1, name=name)
    with jax.named_scope(name):
        return jnp.mean(x, axis=(1, 2))


def ceil_padding(size: int, window: int, stride: int, pad: int = 0) -> tuple[int, int]:
    """Returns the (before, after) padding that gives PyTorch's and Caffe's `ceil_mode` output size.

    A window that would begin in the padding after the image is dropped, as PyTorch does.
    """
    outputs = -(-(size + 2 * pad - window) // stride) + 1
    if (outputs - 1) * stride >= size + pad:
        outputs -= 1
    return pad, max(pad, (outputs - 1) * stride + window - size - pad)


def adaptive_avg_pool(x: Images, size: int, name: str = 'adaptive_avg_pool') -> Float[JaxArray, 'batch _ _ channels']:
    """Maps (batch, height, width, channels) to (batch, size, size, channels), as PyTorch does.

    Bin i of n pixels runs from floor(i * n / size) up to ceil((i + 1) * n / size). In dense evaluation the map is
    left as it is: what follows slides over it.
    """
    if sliding.is_sliding():
        return x
    with jax.named_scope(name):
        for axis in (1, 2):
            n = x.shape[axis]
            if n != size:
                bins = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)]
                x = jnp.stack([lax.slice_in_dim(x, *ends, axis=axis).mean(axis) for ends in bins], axis)
        return x
