"""Random numbers of an example: functions of (seed, epoch, index), whatever the batch and the host."""

import zlib

import numpy as np

from cvresearch.data.permutation import mix

_STEP = 0x9E3779B97F4A7C15  # SplitMix64's: its n-th number is the finaliser of key + n * _STEP


def example_keys(seed: int, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns one key per example, uint64 (batch,), a function of (seed, epoch, index) alone."""
    base = mix(mix(np.uint64(seed)) ^ np.asarray(epoch, np.uint64))
    return mix(base ^ mix(np.asarray(index, np.uint64)))


def uniforms(keys: np.ndarray, purpose: str, count: int) -> np.ndarray:
    """Returns `count` numbers in [0, 1) for each key, float64 (batch, count).

    SplitMix64 (Steele et al. 2014), started for each key and purpose on its own, so that a new purpose changes
    none of the old.
    """
    start = mix(np.asarray(keys, np.uint64) ^ np.uint64(zlib.crc32(purpose.encode())))
    with np.errstate(over='ignore'):
        steps = np.arange(count, dtype=np.uint64) * np.uint64(_STEP)
        bits = mix(start[:, None] + steps)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(keys: np.ndarray, purpose: str, count: int) -> np.ndarray:
    """Returns `count` standard normal numbers for each key, float64 (batch, count) (Box & Muller 1958)."""
    pairs = -(-count // 2)
    first, second = np.split(uniforms(keys, purpose, 2 * pairs), 2, axis=1)
    radius = np.sqrt(-2 * np.log1p(-first))
    both = np.concatenate([radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)], axis=1)
    return both[:, :count]
