"""How far loss curves with batch norm in groups are apart on 1, 2 and 8 devices, in 1, 2 and 4 parts (docs/recipes.md).

python -m tests.peers.batch_norm_drift: 50 steps with batches of 256, on the net of tests/engine/curves.py.
"""

import os

os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'
os.environ['JAX_PLATFORMS'] = 'cpu'

import jax
import jax.numpy as jnp
import numpy as np

from tests.engine.curves import curve


def apart(dtype, group_size: int, devices: int, accumulate: int, expected: np.ndarray) -> float:
    """Returns the largest relative difference of a loss from that on one device in one part."""
    return float(np.abs(curve(dtype, group_size, devices, accumulate)[0] / expected - 1).max())


if __name__ == '__main__':
    print('| group | devices | parts | float64 | float32 |\n| ---: | ---: | ---: | ---: | ---: |')
    for group_size in (16, 64):
        found = {}
        for dtype in (jnp.float64, jnp.float32):
            with jax.enable_x64(dtype is jnp.float64):
                expected, _ = curve(dtype, group_size)
                for devices, parts in ((2, 1), (8, 1), (1, 2), (1, 4), (8, 4)):
                    found[dtype, devices, parts] = apart(dtype, group_size, devices, parts, expected)
        for devices, parts in ((2, 1), (8, 1), (1, 2), (1, 4), (8, 4)):
            wide, narrow = (found[dtype, devices, parts] for dtype in (jnp.float64, jnp.float32))
            print(f'| {group_size} | {devices} | {parts} | {wide:.1e} | {narrow:.1e} |', flush=True)
