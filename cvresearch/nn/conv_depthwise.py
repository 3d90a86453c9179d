"""Depthwise convolutions and their gradients in forms for which XLA's CPU backend has fast code: for `conv_cpu`.

Images and kernels have as many channels as there are features. A convolution is a sum over the kernel's taps of shifted
images times numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cvresearch.nn import conv_cut as cutting

LOW_MAP = 8  # rows up to which sums go over whole images


def forward(x: jax.Array, kernel: jax.Array, window) -> jax.Array:
    """Returns the convolution of images (batch, height, width, channels) with a kernel (height, width, 1, channels)."""
    x = cutting.written(cutting.pad(x, window.padding))
    return cutting.total(cutting.taps(x, window, i, j) * kernel[i, j, 0] for i, j in np.ndindex(window.size))


def full(g: jax.Array, kernel: jax.Array, padding) -> jax.Array:
    """Convolves with the kernel turned by 180 degrees."""
    g = cutting.written(cutting.pad(g, padding))
    height, width = (n - k + 1 for n, k in zip(g.shape[1:3], kernel.shape[:2], strict=True))
    return cutting.total(
        g[:, i : i + height, j : j + width] * kernel[kernel.shape[0] - 1 - i, kernel.shape[1] - 1 - j, 0]
        for i, j in np.ndindex(kernel.shape[:2])
    )


def kernel_gradient(x: jax.Array, g: jax.Array, window) -> jax.Array:
    """Sums products of shifted images and the gradient, image by image: so they stay in the cache."""
    x = cutting.written(cutting.pad(x, window.padding))
    taps = list(np.ndindex(window.size))

    def products(x, g):
        return [cutting.taps(x[None], window, i, j)[0] * g for i, j in taps]

    if window.strides == (1, 1) and window.size <= (3, 3) and g.shape[1] > LOW_MAP:

        def add_sums(total, pair):
            terms, zeros = products(*pair), [np.zeros((), x.dtype)] * len(taps)
            sums = lax.reduce(terms, zeros, lambda a, b: [u + v for u, v in zip(a, b, strict=True)], (0, 1))
            return total + jnp.stack(sums), None

        total, _ = lax.scan(add_sums, jnp.zeros_like(g, shape=(len(taps), g.shape[-1])), (x, g))
    else:  # many taps: sums of whole images, added up at the end

        def add_images(totals, pair):
            return [a + b for a, b in zip(totals, products(*pair), strict=True)], None

        totals, _ = lax.scan(add_images, [jnp.zeros_like(g[0])] * len(taps), (x, g))
        total = jnp.stack([tap.sum((0, 1)) for tap in totals])
    return total.reshape(*window.size, 1, g.shape[-1])
