"""Images cut as a kernel meets them, for `conv_cpu`; and depthwise convolutions, which are sums of such shifted images.

Batches are cut too, so that what is written out for some images stays in the cache.
"""

import contextlib
import contextvars
import functools
import operator
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WHOLE_SUMS = 8  # rows up to which depthwise kernel gradients add up whole images

_DIVIDED = contextvars.ContextVar('divided', default=False)


def written(x: jax.Array) -> jax.Array:
    """Returns x itself, behind a barrier: XLA does not rewrite what uses it and what makes it as one expression.

    It may still fuse the two.
    """
    return lax.optimization_barrier(x)


def pad(x: jax.Array, padding) -> jax.Array:
    """Pads images, or crops them where a number is negative."""
    if not any(map(any, padding)):
        return x
    return lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)])


def starts(window, axis: int) -> range:
    """Returns where the kernel's rows (axis 0) or columns (axis 1) begin, in pixels."""
    return range(0, window.size[axis] * window.dilation[axis], window.dilation[axis])


def cut(x: jax.Array, window, axis: int) -> list[jax.Array]:
    """Returns what each row (axis 1 of the padded images) or column (axis 2) of the kernel meets."""
    stride = window.strides[axis - 1]
    reach = (window.output[axis - 1] - 1) * stride + 1
    return [lax.slice_in_dim(x, i, i + reach, stride, axis) for i in starts(window, axis - 1)]


def columns(x: jax.Array, window) -> jax.Array:
    """Returns what the kernel's columns meet, (batch, padded height, output width, columns * channels)."""
    x = written(pad(x, window.padding))
    return written(jnp.concatenate(cut(x, window, 2), axis=-1))


def all_taps(x: jax.Array, window) -> jax.Array:
    """Returns what all of the kernel meets, (batch, *window.output, taps * channels)."""
    return written(jnp.concatenate(cut(columns(x, window), window, 1), axis=-1))


def rows(g: jax.Array, high: int, window) -> list[jax.Array]:
    """Returns the maps' gradient for each row of the kernel, padded to where that begins in images `high` rows high."""
    return [pad(g, [(i, high - g.shape[1] - i), (0, 0)]) for i in starts(window, 0)]


def flat(x: jax.Array) -> jax.Array:
    """Returns images as a matrix, (pixels, channels)."""
    return x.reshape(-1, x.shape[-1])


def strided(x: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """Returns every so many rows and columns of images."""
    return x[:, :: strides[0], :: strides[1]]


def taps(x: jax.Array, window, row: int, column: int) -> jax.Array:
    """Returns the pixels of the padded x that one tap of the kernel meets, (batch, *window.output, channels)."""
    start = (row * window.dilation[0], column * window.dilation[1])
    stop = [at + (n - 1) * step + 1 for at, n, step in zip(start, window.output, window.strides, strict=True)]
    return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[3]), (1, *window.strides, 1))


def total(terms: Iterable[jax.Array]) -> jax.Array:
    """Returns the sum of arrays, in their order."""
    return functools.reduce(operator.add, terms)


@contextlib.contextmanager
def divided(over_devices: bool) -> Iterator[None]:
    """Within it, batches stay whole if they lie on several devices: to cut them would move images between devices."""
    token = _DIVIDED.set(over_devices)
    try:
        yield
    finally:
        _DIVIDED.reset(token)


def over_devices() -> bool:
    """Whether batches lie on several devices."""
    return _DIVIDED.get()


def summed(function: Callable, x: jax.Array, g: jax.Array, most: int) -> jax.Array:
    """Returns function(x, g), a sum over the images, computed for some of them at a time.

    Args:
      function: from images and the gradients of their maps to an array.
      x: images; the first axis is the batch.
      g: the gradients.
      most: images at a time.
    """
    parts = _parts(x, most), _parts(g, most)
    if len(parts[0]) == 1:
        return function(x, g)
    shape = jax.eval_shape(function, *(part[0] for part in parts)).shape
    return lax.scan(lambda sums, part: (sums + function(*part), None), jnp.zeros_like(g, shape=shape), parts)[0]


def _parts(x: jax.Array, most: int) -> jax.Array:
    """Returns (parts, images, ...) of about so many images at most; one part if no divisor of the batch suits."""
    count = max(n for n in range(1, min(most, len(x)) + 1) if len(x) % n == 0)
    if _DIVIDED.get() or 4 * count < min(most, len(x)):
        count = len(x)
    return x.reshape(-1, count, *x.shape[1:])


def phases(full: Callable, g: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns the input gradient of a strided convolution, without a gradient full of zeros.

    Args:
      full: (g, kernel, padding) -> the convolution with the kernel turned.
      g: the gradient of the maps.
      kernel: HWIO.
      window: of the convolution.

    Padded row s * u + a of the input met the taps a, a + s, a + 2s ... of the kernel, at the rows u, u - 1,
    u - 2 ... of the output. So each of the s * s phases a is a convolution of its own with a part of the kernel.
    """
    if window.dilation != (1, 1):
        zeros = [*((0, 0, gap - 1) for gap in window.dilation), (0, 0, 0), (0, 0, 0)]
        kernel = lax.pad(kernel, np.zeros((), kernel.dtype), zeros)
    counts = [(n - 1 + pad[0]) // s + 1 for n, pad, s in zip(window.image, window.padding, window.strides, strict=True)]
    down, across = window.strides

    def phase(a: int, b: int) -> jax.Array:
        part = kernel[a::down, b::across]
        if not part.size:
            return jnp.zeros((g.shape[0], *counts, features), g.dtype)
        padding = [(t - 1, n - size) for t, n, size in zip(part.shape[:2], counts, g.shape[1:3], strict=True)]
        return full(g, part, padding)

    features = jax.eval_shape(lambda: full(g, kernel[:1, :1], [(0, 0), (0, 0)])).shape[-1]
    rows = [jnp.stack([phase(a, b) for b in range(across)], 3) if across > 1 else phase(a, 0) for a in range(down)]
    rows = [row.reshape(row.shape[0], row.shape[1], -1, features) for row in rows]
    x = (jnp.stack(rows, 2) if down > 1 else rows[0]).reshape(g.shape[0], counts[0] * down, -1, features)
    # Rows that no window met, after the last, are zeros.
    axes = zip(window.image, window.padding, x.shape[1:3], strict=True)
    return pad(x, [(-before, n + before - size) for n, (before, _), size in axes])


# Depthwise convolutions: images and kernels have as many channels as there are features.


def depthwise(x: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns the convolution of images (batch, height, width, channels) with a kernel (height, width, 1, channels)."""
    x = written(pad(x, window.padding))
    return total(taps(x, window, i, j) * kernel[i, j, 0] for i, j in np.ndindex(window.size))


def depthwise_full(g: jax.Array, kernel: jax.Array, padding) -> jax.Array:
    """Convolves with the kernel turned by 180 degrees."""
    g = written(pad(g, padding))
    height, width = (n - k + 1 for n, k in zip(g.shape[1:3], kernel.shape[:2], strict=True))
    return total(
        g[:, i : i + height, j : j + width] * kernel[kernel.shape[0] - 1 - i, kernel.shape[1] - 1 - j, 0]
        for i, j in np.ndindex(kernel.shape[:2])
    )


def depthwise_kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Sums products of shifted images and the gradient, image by image: so they stay in the cache."""
    x = written(pad(x, window.padding))
    places = list(np.ndindex(window.size))

    def products(x, g):
        return [taps(x[None], window, i, j)[0] * g for i, j in places]

    if window.strides == (1, 1) and window.size <= (3, 3) and g.shape[1] > WHOLE_SUMS:

        def add_sums(before, pair):
            terms, zeros = products(*pair), [np.zeros((), x.dtype)] * len(places)
            sums = lax.reduce(terms, zeros, lambda a, b: [u + v for u, v in zip(a, b, strict=True)], (0, 1))
            return before + jnp.stack(sums), None

        gradient, _ = lax.scan(add_sums, jnp.zeros_like(g, shape=(len(places), g.shape[-1])), (x, g))
    else:  # many taps: sums of whole images, added up at the end

        def add_images(totals, pair):
            return [a + b for a, b in zip(totals, products(*pair), strict=True)], None

        totals, _ = lax.scan(add_images, [jnp.zeros_like(g[0])] * len(places), (x, g))
        gradient = jnp.stack([tap.sum((0, 1)) for tap in totals])
    return gradient.reshape(*window.size, 1, g.shape[-1])
