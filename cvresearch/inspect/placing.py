"""Maps of what a net saw, put back on the photograph: resized, and the crop of the preprocessing undone."""

import numpy as np
from jaxtyping import Float, Real

Box = tuple[float, float, float, float]  # (top, left, height, width)


def placed(
    maps: Real[np.ndarray, 'images rows columns'], box: Box, size: tuple[int, int]
) -> Float[np.ndarray, 'images height width']:
    """Returns maps at the size of the photograph, float32 (images, height, width); zero where the net saw nothing.

    Linear between the centres of the map's cells, and as the nearest cell beyond them: what OpenCV's bilinear resizing
    does where the box is the whole photograph.

    Args:
      maps: (images, rows, columns).
      box: of the photograph, which the maps are of, in its pixels; it may reach over its border.
      size: (height, width) of the photograph.
    """
    top, left, height, width = box
    rows = _between(maps.shape[1], size[0], top, height)
    columns = _between(maps.shape[2], size[1], left, width)
    return np.asarray(rows @ maps.astype(np.float64) @ columns.T, np.float32)


def _between(cells: int, length: int, start: float, extent: float) -> np.ndarray:
    """Returns the weight of each cell for each pixel of a line, (length, cells)."""
    centres = np.arange(length) + 0.5
    places = np.clip((centres - start) * cells / extent - 0.5, 0, cells - 1)
    first = np.minimum(places.astype(int), max(cells - 2, 0))
    weights, pixels = np.zeros((length, cells)), np.arange(length)
    weights[pixels, first] = 1 - (places - first)
    if cells > 1:
        weights[pixels, first + 1] = places - first
    weights[(centres < start) | (centres > start + extent)] = 0
    return weights
