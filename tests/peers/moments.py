"""How right a batch norm's variance is, against float64: python -m tests.peers.moments [--record FILE]

The largest relative error over 64 channels of 50,176 normal numbers each, by |mean| / deviation and by how far the
centre, which is the running mean, is from the mean: all of it, as in the first steps; a tenth; a thousandth; on a CPU
the centre is 0. Of float32, and of bfloat16, where what the rounding of the numbers itself did to the variance is
beside it.
"""

import argparse
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.nn import devices
from cvresearch.nn.moments import moments

RATIOS = (0, 1, 10, 100, 1000)
OFF = {'first steps': 1.0, 'a tenth off': 0.1, 'a thousandth off': 0.001}
AXES = (0, 1, 2)


def errors(ratio: int) -> list[dict]:
    """Returns a row for float32 and one for bfloat16."""
    exact = np.random.default_rng(0).standard_normal((16, 56, 56, 64)) + ratio
    rows = []
    for name, dtype in (('float32', jnp.float32), ('bfloat16', jnp.bfloat16)):
        rounded = dtype == jnp.bfloat16
        x = jnp.asarray(exact, dtype).astype(jnp.float32)
        wide = np.asarray(x, np.float64).var(AXES)
        row = {'numbers': name, 'mean / deviation': ratio, 'on a CPU': _error(x, 0, wide, 'cpu', rounded)}
        row |= {key: _error(x, ratio * (1 - off), wide, 'tpu', rounded) for key, off in OFF.items()}
        rows.append(row | {'their rounding': f'{np.abs(wide / exact.var(AXES) - 1).max():.0e}'})
    return rows


def _error(x: jax.Array, centre: float, wide: np.ndarray, platform: str, rounded: bool) -> str:
    with mock.patch.object(devices, 'platform', lambda: platform):
        centres = jnp.full(x.shape[-1], centre, jnp.float32)
        _, var = moments(x, centres, AXES, False, rounded)
    return f'{np.abs(np.asarray(var, np.float64) / wide - 1).max():.0e}'


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    options = parser.parse_args()
    from cvresearch.base import records, tables

    rows = [row for ratio in RATIOS for row in errors(ratio)]
    rows.sort(key=lambda row: row['numbers'] != 'float32')
    print(tables.render(rows, tuple(rows[0]), 'text'))
    if options.record:
        records.write_measurement(options.record, rows)


if __name__ == '__main__':
    main()
