"""Arrays in annotations: their kinds and shapes are read by people and checked by the tests (tests/conftest.py)."""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray  # on a device or on the host
