"""Eight bits after training: int8 weights, activations of 256 levels, ranges found on some images.

Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342 (a scale for each channel, section 3.1.2: with one for the
whole kernel, depthwise nets fail); Migacz 2017, "8-bit inference with TensorRT" (entropy). `nn/stored.py` computes.
"""

from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import jax
import numpy as np

from cvresearch.base.errors import UserError, lookup
from cvresearch.compress.fold import fold_norms
from cvresearch.compress.layer_calls import watched
from cvresearch.nn.levels import LEVELS
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.stored import Stored

Range = tuple[float, float]
BINS = 2048  # of a histogram of activations
PERCENTILE = 99.99
FEWEST = 8
QUANTISED = 128  # levels of magnitude to which the entropy method reduces a histogram


def quantised_kernel(kernel: np.ndarray, per_channel: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns a kernel as int8 from -127 to 127 and its scale: the largest magnitude over 127.

    Args:
      kernel: (..., features).
      per_channel: a scale for each feature, (features,); one for all, (), otherwise.
    """
    axes = tuple(range(kernel.ndim - 1)) if per_channel else None
    largest = np.abs(kernel).max(axes)
    scale = np.where(largest > 0, largest / np.float32(127), 1).astype(np.float32)
    return np.clip(np.round(kernel / scale), -127, 127).astype(np.int8), scale


def affine(bounds: Range) -> tuple[np.float32, np.int32]:
    """Returns the scale and the zero point of 256 levels over a range, which is widened to hold zero."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    scale = np.float32((high - low) / LEVELS) or np.float32(1)
    return scale, np.int32(np.clip(np.round(-low / scale), 0, LEVELS))


def calibrate(
    module: nn.Module, variables: Mapping, batches: Iterable[np.ndarray], method: str = 'minmax'
) -> dict[str, Range]:
    """Returns the range of the inputs of each convolution and dense layer.

    Args:
      module: the net, its blocks one by one.
      variables: of the net.
      batches: of normalized images (batch, height, width, channels); gone through twice.
      method: 'minmax'; 'percentile', which cuts off 0.01 % of the magnitudes; 'entropy', the threshold at which the
        levels tell most of the distribution.

    Raises:
      UserError: an unknown method, no images, or activations that are not finite.
    """
    choose, batches = lookup('method of calibration', METHODS, method), list(batches)
    if not batches:
        raise UserError('calibration has no images; expected at least one')

    def inputs(variables, images):
        arrays_of: dict[str, list[jax.Array]] = {}

        def see(call):
            if not isinstance(call.module, BatchNorm):
                arrays_of.setdefault(call.layer, []).append(call.given)

        watched(module, see)(variables, images)
        return arrays_of

    run = jax.jit(inputs)
    bounds: dict[str, Range] = {}
    for batch in batches:
        for layer, arrays in run(variables, batch).items():
            for array in map(np.asarray, arrays):
                low, high = bounds.get(layer, (np.inf, -np.inf))
                bounds[layer] = (min(low, float(array.min())), max(high, float(array.max())))
    for layer, limits in bounds.items():
        if not np.isfinite(limits).all():
            raise UserError(f'the inputs of {layer!r} are not finite on the images of the calibration')
    if choose is None:
        return bounds
    counts = {layer: np.zeros(BINS, np.int64) for layer in bounds}
    for batch in batches:
        for layer, arrays in run(variables, batch).items():
            most = max(map(abs, bounds[layer])) or 1.0
            for array in arrays:
                counts[layer] += np.histogram(np.abs(np.asarray(array)), BINS, (0, most))[0]
    return {layer: _within(limits, choose(counts[layer])) for layer, limits in bounds.items()}


def _within(limits: Range, part: float) -> Range:
    most = part * max(map(abs, limits))
    return max(limits[0], -most), min(limits[1], most)


def by_percentile(counts: np.ndarray) -> float:
    """Returns the part of the largest magnitude below which `PERCENTILE` percent of a histogram lie."""
    below = np.cumsum(counts)
    return (int(np.searchsorted(below, PERCENTILE / 100 * below[-1])) + 1) / len(counts)


def by_entropy(counts: np.ndarray) -> float:
    """Returns the part of the largest magnitude at which clipping and rounding change a histogram the least.

    The change is the Kullback-Leibler divergence of the clipped histogram, its last bin with all that was cut off, from
    the same in `QUANTISED` levels, each spread over its bins that are not empty. Zeros, which ReLU makes and every
    scale has exactly, would outweigh the rest: their bin counts as the next one, as in NVIDIA's pytorch-quantization.
    Fewer than `FEWEST` values a bin tell no distribution: nothing is cut off.
    """
    counts = np.append(counts[1:2], counts[1:])
    if counts.sum() < FEWEST * len(counts):
        return 1.0
    best, least = len(counts), np.inf
    for end in range(QUANTISED, len(counts) + 1, 8):
        reference = counts[:end].astype(np.float64)
        level = np.arange(end) * QUANTISED // end
        filled = reference > 0
        sums = np.bincount(level, reference, QUANTISED)
        members = np.bincount(level, filled, QUANTISED)
        spread = np.where(filled, (sums / np.maximum(members, 1))[level], 0)
        reference[-1] += counts[end:].sum()
        divergence = _divergence(reference, spread)
        if divergence < least:
            best, least = end, divergence
    return best / len(counts)


def _divergence(one: np.ndarray, other: np.ndarray) -> float:
    if not one.sum() or not other.sum():
        return np.inf
    p, q = one / one.sum(), other / other.sum()
    has = p > 0
    return float((p[has] * np.log(p[has] / np.maximum(q[has], 1e-12))).sum())


METHODS: dict[str, Callable[[np.ndarray], float] | None] = {
    'minmax': None,
    'percentile': by_percentile,
    'entropy': by_entropy,
}


def quantise(
    module: nn.Module,
    variables: Mapping,
    input_shape: tuple[int, int, int],
    batches: Iterable[np.ndarray],
    method: str = 'minmax',
    per_channel: bool = True,
) -> dict:
    """Returns the variables of the net in int8, its norms folded, for `Stored(module)`.

    Args:
      module: the net, its blocks one by one.
      variables: float32.
      input_shape: (height, width, channels).
      batches: of normalized images to calibrate with; some hundred images are usual.
      method: as `calibrate`'s.
      per_channel: a scale for each feature of a kernel.

    Raises:
      UserError: as `fold_norms` and `calibrate`.
    """
    batches = list(batches)
    folded = fold_norms(module, variables, input_shape)
    ranges = calibrate(Stored(module), folded, batches, method)

    def of_layer(tree: Mapping, path: str = '') -> dict:
        result = {}
        for name, value in tree.items():
            at = f'{path}/{name}' if path else name
            result[name] = of_layer(value, at) if isinstance(value, Mapping) else value
        if path in ranges and 'kernel' in tree:
            result['kernel'], result['kernel_scale'] = quantised_kernel(np.asarray(tree['kernel']), per_channel)
            result['input_scale'], result['input_zero_point'] = affine(ranges[path])
        return result

    return {**folded, 'params': of_layer(folded['params'])}
