"""Weight sharing: each layer's weights take few values, found by k-means.

Han, Mao & Dally 2016, "Deep Compression", arXiv:1510.00149, section 3. In one dimension k-means needs no distances:
clusters are stretches of the sorted weights, their sums come from prefix sums, so that a step of Lloyd's takes
k log n, and the optimum itself can be computed (Wang & Song 2011, "Ckmeans.1d.dp", The R Journal 3/2).
"""

import dataclasses

import jax
import numpy as np

from cvresearch.base.errors import UserError, lookup

MOST_BITS = 8
MOST_EXACT = 1 << 22  # values times clusters up to which the optimum is computed: a second or two
MOST_STEPS = 500  # of Lloyd's


@dataclasses.dataclass(frozen=True)
class Shared:
    """A layer's weights as a codebook and a code for each.

    Attributes:
      codebook: float32 (clusters,), increasing.
      codes: int32, in the shape of the weights; -1 where a zero stays zero.
    """

    codebook: np.ndarray
    codes: np.ndarray

    def weights(self) -> np.ndarray:
        """Returns the weights, float32."""
        return np.append(self.codebook, np.float32(0))[self.codes]


def share(weights: np.ndarray, bits: int, method: str = 'lloyd', keep_zeros: bool = True) -> Shared:
    """Returns weights with at most 2^bits distinct values.

    Args:
      weights: of one layer, any shape.
      bits: of a code, 1 to 8.
      method: 'lloyd', from centroids spread evenly over the range (the paper's "linear" initialisation, section 3.2,
        the best of its three), or 'optimal', the least sum of squares that exists.
      keep_zeros: pruned weights stay zero: zero then is one of the 2^bits values, where it occurs.

    Raises:
      UserError: bits out of range, weights that are not finite, or too many for the optimum.
    """
    if type(bits) is not int or not 1 <= bits <= MOST_BITS:
        raise UserError(f'bits is {bits}; expected a whole number from 1 to {MOST_BITS}')
    lookup('method of k-means', METHODS, method)
    weights = np.asarray(weights, np.float32)
    if not np.isfinite(weights).all():
        raise UserError('weights that are not finite cannot be shared')
    taken = weights != 0 if keep_zeros else np.ones(weights.shape, bool)
    clusters = 2**bits - (not taken.all())
    codes = np.full(weights.shape, -1, np.int32)
    if not taken.any():
        return Shared(np.zeros(0, np.float32), codes)
    values, counts = np.unique(weights[taken], return_counts=True)
    if len(values) <= clusters:
        codebook = values
    else:
        codebook = METHODS[method](values, counts, clusters)
    # Two centroids may round to one float32; a code for nothing would cost a bit.
    codebook = np.unique(codebook.astype(np.float32))
    codes[taken] = nearest_code(weights[taken], codebook)
    return Shared(codebook, codes)


def linear(values: np.ndarray, clusters: int) -> np.ndarray:
    """Returns centroids evenly over [min, max], float64 (clusters,)."""
    return np.linspace(values.min(), values.max(), clusters, dtype=np.float64)


def nearest_code(values: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Returns the number of the nearest of an increasing codebook for each value, int32; ties go to the lower."""
    middles = (codebook[:-1].astype(np.float64) + codebook[1:]) / 2
    return np.searchsorted(middles, values, side='left').astype(np.int32)


def lloyd(values: np.ndarray, counts: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Returns the centroids, float64, at which Lloyd's algorithm stands still.

    A cluster that lost its values begins anew at the value farthest from its centroid, as scikit-learn has it.

    Args:
      values: increasing, (n,).
      counts: how often each occurs, (n,).
      centroids: to start from, increasing.
    """
    weight = np.concatenate([[0], np.cumsum(counts)])
    total = np.concatenate([[0], np.cumsum(values.astype(np.float64) * counts)])
    before = None
    for _ in range(MOST_STEPS):
        # Clusters are stretches of the sorted values, so the middles between centroids are all that is compared.
        ends = np.searchsorted(values, (centroids[:-1] + centroids[1:]) / 2, side='right')
        ends = np.concatenate([[0], ends, [len(values)]])
        if before is not None and np.array_equal(ends, before):
            break
        members, sums = np.diff(weight[ends]), np.diff(total[ends])
        centroids = sums[members > 0] / members[members > 0]
        if empty := len(members) - len(centroids):
            farthest = np.argsort(np.abs(values - centroids[nearest_code(values, centroids)]), kind='stable')[-empty:]
            centroids, ends = np.sort(np.append(centroids, values[farthest])), None
        before = ends
    return centroids


def optimal(values: np.ndarray, counts: np.ndarray, clusters: int) -> np.ndarray:
    """Returns the centroids, float64, with the least sum of squared distances.

    Dynamic programming over the last cluster's begin, which moves to the right with its end: so each row is filled
    by halving, in n log n.

    Args:
      values: increasing, (n,).
      counts: how often each occurs, (n,).
      clusters: at most n.

    Raises:
      UserError: n * clusters is above `MOST_EXACT`.
    """
    n = len(values)
    if n * clusters > MOST_EXACT:
        raise UserError(
            f'{n:,} distinct weights in {clusters} clusters are too many for the optimum; expected a product of at '
            f'most {MOST_EXACT:,}; use the method lloyd'
        )
    # About their mean: the sum of squares minus the square of the sum cancels badly far from zero.
    centred = values.astype(np.float64) - np.average(values, weights=counts)
    weight, total, square = (np.concatenate([[0], np.cumsum(counts * centred**power)]) for power in (0, 1, 2))

    def within(begin, end):
        """Returns the sum of squares of values[begin:end] around their mean."""
        return square[end] - square[begin] - (total[end] - total[begin]) ** 2 / (weight[end] - weight[begin])

    cost = within(np.zeros(n, np.int64), np.arange(1, n + 1))  # of values[:end + 1] in one cluster
    begins = [np.zeros(n, np.int64)]
    for number in range(1, clusters):
        cost, begin = _row(cost, within, number)
        begins.append(begin)
    centroids, end = [], n
    for begin in reversed(begins):
        first = begin[end - 1]
        centroids.append((total[end] - total[first]) / (weight[end] - weight[first]))
        end = first
    return np.array(centroids[::-1]) + np.average(values, weights=counts)


def _row(cost: np.ndarray, within, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least cost of values[:end + 1] in number + 1 clusters, and where the last of them begins."""
    n = len(cost)
    best, begin = np.full(n, np.inf), np.full(n, number)
    firsts, lasts, lows, highs = (np.array([bound]) for bound in (number, n, number, n))
    while len(firsts):
        middles = (firsts + lasts) // 2
        sizes = np.minimum(highs, middles) + 1 - lows
        offsets = np.cumsum(sizes) - sizes
        tried = np.arange(sizes.sum()) - np.repeat(offsets - lows, sizes)
        costs = cost[tried - 1] + within(tried, np.repeat(middles + 1, sizes))
        best[middles] = np.minimum.reduceat(costs, offsets)
        is_best = np.flatnonzero(costs == np.repeat(best[middles], sizes))
        begin[middles] = chosen = tried[is_best[np.searchsorted(is_best, offsets)]]
        # The begins of what ends earlier are no later, and the reverse.
        firsts, lasts = np.concatenate([firsts, middles + 1]), np.concatenate([middles, lasts])
        lows, highs = np.concatenate([lows, chosen]), np.concatenate([chosen, highs])
        unsettled = firsts < lasts
        firsts, lasts, lows, highs = firsts[unsettled], lasts[unsettled], lows[unsettled], highs[unsettled]
    return best, begin


def sum_of_squares(weights: np.ndarray, shared: Shared) -> float:
    """Returns the sum of squared differences between weights and their shared values."""
    return float(np.square(weights.astype(np.float64) - shared.weights()).sum())


def codebook_gradient(gradient: jax.Array, codes: jax.Array, clusters: int) -> jax.Array:
    """Returns the gradient of each codebook entry: the sum of its members' (equation 3), (clusters,).

    Args:
      gradient: of the loss by the weights, in their shape.
      codes: of the weights; negative ones, zeros that stay, have no part.
      clusters: size of the codebook.
    """
    places = jax.numpy.where(codes < 0, clusters, codes).reshape(-1)
    return jax.ops.segment_sum(gradient.reshape(-1), places, clusters + 1)[:clusters]


def compression_rate(weights: int, clusters: int, bits: int = 32) -> float:
    """Returns how much smaller n weights of b bits are as k shared ones: nb / (n log2 k + kb) (equation 1)."""
    return weights * bits / (weights * np.log2(clusters) + clusters * bits)


def _from_linear(values: np.ndarray, counts: np.ndarray, clusters: int) -> np.ndarray:
    return lloyd(values, counts, linear(values, clusters))


METHODS = {'lloyd': _from_linear, 'optimal': optimal}
