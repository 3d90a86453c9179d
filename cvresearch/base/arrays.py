"""Arrays in annotations: their kinds and shapes are read by people and checked by the tests (tests/conftest.py)."""

from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Float

AnyArray = jax.Array | np.ndarray  # on a device or on the host
# JAX's to the checker, as what comes out is; while nothing is traced, NumPy's are taken for them.
if TYPE_CHECKING:
    JaxArray = jax.Array
else:
    JaxArray = AnyArray
Images = Float[JaxArray, 'batch height width channels']  # or a net's maps of them
Maps = Float[JaxArray, 'batch out_height out_width features']  # what a convolution makes of images
Kernel = Float[JaxArray, 'rows columns depth features']  # depth is the channels of a group
