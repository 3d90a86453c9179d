"""Factorisation: a layer as the product of two smaller ones, by the truncated singular value decomposition.

Denton, Zaremba, Bruna, LeCun & Fergus 2014, "Exploiting linear structure within convolutional networks for efficient
evaluation", arXiv:1404.0736 (dense layers); Jaderberg, Vedaldi & Zisserman 2014, "Speeding up convolutional neural
networks with low rank expansions", arXiv:1405.3866, scheme 2 (k x 1 and 1 x k); Zhang, Zou, He & Sun 2016,
"Accelerating very deep convolutional networks", arXiv:1505.06798 (k x k and 1 x 1). `nn/stored.py` computes with
them.

By Eckart & Young no product of that rank is nearer: the error is the root of the sum of the squares of the singular
values that were dropped, exactly.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base.errors import UserError, lookup
from cvresearch.optim.kernels import Kernels, chosen, require_share


@dataclasses.dataclass(frozen=True)
class Factors:
    """Two kernels whose product is near one, as `nn/stored.py` takes them.

    Attributes:
      first, second: float32.
      error: Frobenius norm of what is missing.
    """

    first: np.ndarray
    second: np.ndarray
    error: float


def _output(kernel: np.ndarray) -> np.ndarray:
    return kernel.reshape(-1, kernel.shape[-1])


def _separable(kernel: np.ndarray) -> np.ndarray:
    height, width, channels, features = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(height * channels, width * features)


# How a kernel is read as a matrix.
METHODS = {'output': _output, 'separable': _separable}


def matrix(kernel: np.ndarray, method: str = 'output') -> np.ndarray:
    """Returns a kernel as the matrix that is factorised, float64.

    Args:
      kernel: (inputs, features) or (height, width, channels, features).
      method: 'output', rows are all inputs of a position: k x k and then 1 x 1, or two dense layers; or 'separable',
        rows are (height, channels) and columns (width, features): k x 1 and then 1 x k.

    Raises:
      UserError: an unknown method, or a separable dense layer.
    """
    read = lookup('method of factorisation', METHODS, method)
    if kernel.ndim != 4 and method != 'output':
        raise UserError(f'a dense layer cannot be {method}; use the method output')
    return read(np.asarray(kernel, np.float64))


def sides(shape: tuple[int, ...], method: str = 'output') -> tuple[int, int]:
    """Returns the rows and columns of the matrix as which a kernel of that shape is read; see `matrix`."""
    if method == 'output':
        return math.prod(shape[:-1]), shape[-1]
    height, width, channels, features = shape
    return height * channels, width * features


def is_smaller(rows: int, columns: int, rank: int) -> bool:
    """Whether two factors of a rank have fewer weights than a matrix."""
    return rank >= 1 and rank * (rows + columns) < rows * columns


def basis(kernel: np.ndarray, rank: int) -> np.ndarray:
    """Returns the second factor of a kernel by the method 'output', its rows orthonormal: float32 (rank, features)."""
    return np.linalg.svd(matrix(kernel), full_matrices=False)[2][:rank].astype(np.float32)


def within(kernel: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns the kernel nearest to one of which each row is a sum of some orthonormal ones.

    Args:
      kernel: (..., features).
      rows: (rank, features), orthonormal.
    """
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(jnp.matmul(kernel, rows.T, precision=exact), rows, precision=exact)


def factorise(kernel: np.ndarray, rank: int, method: str = 'output') -> Factors:
    """Returns the two factors of a kernel nearest to it.

    Args:
      kernel: (inputs, features) or (height, width, channels, features).
      rank: at most the smaller side of the matrix.
      method: as `matrix`'s.

    Raises:
      UserError: a rank out of range.
    """
    table = matrix(kernel, method)
    full = min(table.shape)
    if not 1 <= rank <= full:
        raise UserError(f'the rank is {rank}; expected 1 to {full}, the full rank of a kernel of {kernel.shape}')
    left_vectors, values, right_vectors = np.linalg.svd(table, full_matrices=False)
    root = np.sqrt(values[:rank])  # half of each value on either side keeps both factors of one size
    first, second = left_vectors[:, :rank] * root, root[:, None] * right_vectors[:rank]
    if kernel.ndim == 4:
        height, width, channels, features = kernel.shape
        if method == 'output':
            first, second = first.reshape(height, width, channels, rank), second.reshape(1, 1, rank, features)
        else:
            first = first.reshape(height, 1, channels, rank)
            second = second.reshape(rank, width, features).transpose(1, 0, 2)[None]
    error = float(np.sqrt(np.square(values[rank:]).sum()))
    return Factors(np.ascontiguousarray(first, np.float32), np.ascontiguousarray(second, np.float32), error)


def product(factors: Factors) -> np.ndarray:
    """Returns the one kernel that two stand for, float32."""
    first, second = factors.first.astype(np.float64), factors.second.astype(np.float64)
    if first.ndim == 2:
        return (first @ second).astype(np.float32)
    return np.einsum('hwcr,xyrf->hwcf' if second.shape[1] == 1 else 'hxcr,ywrf->hwcf', first, second).astype(np.float32)


def rank_by_energy(kernel: np.ndarray, share: float, method: str = 'output') -> int:
    """Returns the least rank whose singular values' squares have a share of the sum.

    Raises:
      UserError: a share outside 0 to 1.
    """
    require_share('the share of the energy', share)
    energy = np.cumsum(np.linalg.svd(matrix(kernel, method), compute_uv=False) ** 2)
    return min(int(np.searchsorted(energy, share * energy[-1] * (1 - 1e-12))) + 1, len(energy))


def rank_by_size(kernel: np.ndarray | jax.Array, share: float, method: str = 'output') -> int:
    """Returns the largest rank whose factors have at most a share of the kernel's weights, at least 1.

    Where strides and padding are 1 and 'SAME', it is the share of the multiply-adds too.
    """
    require_share('the share of the weights', share)
    rows, columns = sides(kernel.shape, method)
    return min(max(int(share * rows * columns / (rows + columns)), 1), rows, columns)


def rank_by_macs(kernel: np.ndarray, share: float, places: tuple[int, int] = (1, 1), method: str = 'output') -> int:
    """Returns the largest rank with at most a share of the layer's multiply-adds, at least 1.

    Args:
      kernel: of the layer.
      share: of the multiply-adds.
      places: output positions of the first factor and of the layer; they differ where a separable layer has strides.
      method: as `matrix`'s.
    """
    require_share('the share of the multiply-adds', share)
    rows, columns = sides(kernel.shape, method)
    a_rank = rows * places[0] + columns * places[1]
    return min(max(int(share * kernel.size * places[1] / a_rank), 1), rows, columns)


def by_layer(kernels: Kernels, ranks: Mapping[str, int], method: str = 'output') -> dict[str, Factors]:
    """Returns the factors of some layers.

    Raises:
      UserError: a layer that does not exist, or a rank out of range.
    """
    return {layer: factorise(kernels[layer], ranks[layer], method) for layer in chosen(kernels, ranks)}


def with_factors(params: Mapping, factors: Mapping[str, Factors], at: str = '') -> dict:
    """Returns the parameters with `first` and `second` in place of some kernels."""
    result = {}
    for name, value in params.items():
        path = f'{at}{name}'
        if isinstance(value, Mapping):
            value = with_factors(value, factors, f'{path}/')
            if path in factors:
                value = {key: leaf for key, leaf in value.items() if key != 'kernel'}
                value |= {'first': factors[path].first, 'second': factors[path].second}
        result[name] = value
    return result
