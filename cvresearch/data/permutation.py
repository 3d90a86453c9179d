"""A keyed permutation of [0, n): shuffling any number of examples in O(1) memory."""

from typing import TypeVar

import numpy as np

ROUNDS = 6
Words = TypeVar('Words', np.ndarray, np.uint64)

# The finaliser of SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number
# generators", figure 16): every bit of the result depends on every bit of the input.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def mix(x: Words) -> Words:
    """Returns a hash of each uint64 in `x` (a bijection of the 64-bit integers)."""
    with np.errstate(over='ignore'):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * _MIX_1
        x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def permute(position: np.ndarray, n: int | np.ndarray, seed: int | np.ndarray, epoch: np.ndarray) -> np.ndarray:
    """Returns where the permutation of (seed, epoch) sends each position.

    A balanced Feistel network on the smallest even number of bits that holds n, walked along
    its cycles until it lands below n (Black & Rogaway 2002, "Ciphers with arbitrary finite
    domains", method 2): a bijection of [0, n) for every key, computed for one position alone.

    Args:
      position: integers in [0, n), any shape.
      n: number of examples, from 1 to 2**53; or one for each position.
      seed: the run's seed, or one for each position.
      epoch: integers of the same shape; each has a permutation of its own.

    Returns:
      int64 array of the shape of `position`, values in [0, n).
    """
    n = np.asarray(n, np.uint64)
    length = np.frexp((n - np.uint64(1)).astype(np.float64))[1]  # of the binary number
    bits = np.maximum(1, (length + 1) // 2).astype(np.uint64)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    # Mixed twice, so that neighbouring seeds and epochs have unrelated keys.
    key = mix(mix(np.asarray(seed, np.uint64)) ^ np.asarray(epoch, np.uint64))
    x = np.array(position, np.uint64)
    walking = np.ones(x.shape, bool)
    # The network permutes a power of four, less than four times n: what lands above n walks on, so that there are fewer
    # than four passes on average.
    while walking.any():
        left, right = x >> bits, x & mask
        for number in range(ROUNDS):
            left, right = right, left ^ (mix(right ^ mix(key + np.uint64(number))) & mask)
        x = np.where(walking, (left << bits) | right, x)
        walking &= x >= n
    return x.astype(np.int64)
