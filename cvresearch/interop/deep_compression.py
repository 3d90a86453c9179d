"""The one published net that Deep Compression made: SqueezeNet v1.0 in 675,763 bytes.

github.com/songhan/SqueezeNet-Deep-Compression, `compressed_SqueezeNet.net` (BSD 2-clause); Han, Mao & Dally 2016,
arXiv:1510.00149; Iandola et al. 2016, arXiv:1602.07360, table 2. There is no description of the format but its
decoder. All numbers are little-endian, layers are in the order of the net:

- 26 x uint32: entries n of each layer, the fillers included;
- for each layer: codebook, 256 x float32, whose first is zero; biases, float32; n bytes of codes; ceil(n / 2) bytes of
  gaps, two a byte, the lower half first. The place of an entry in the kernel, row by row in the order (out, in,
  height, width), is cumsum(gap + 1) - 1; a filler has code 0.

The weights are as they were shared, and not Huffman coded. The net sees BGR of 227x227 less (104, 117, 123), and its
last convolution pads by 1, as its prototxt says.
"""

from pathlib import Path

import numpy as np

from cvresearch.interop import tensor_codes

CODES = 256


def _shapes() -> dict[str, tuple[int, int, int, int]]:
    """Returns the kernels' shapes (out, in, height, width) by Caffe's names, in the order of the net."""
    shapes, channels = {'conv1': (96, 3, 7, 7)}, 96
    for number, expand in enumerate((64, 64, 128, 128, 192, 192, 256, 256), start=2):
        squeeze = expand // 4
        shapes[f'fire{number}/squeeze1x1'] = (squeeze, channels, 1, 1)
        shapes[f'fire{number}/expand1x1'] = (expand, squeeze, 1, 1)
        shapes[f'fire{number}/expand3x3'] = (expand, squeeze, 3, 3)
        channels = 2 * expand
    return shapes | {'conv10': (1000, channels, 1, 1)}


SHAPES = _shapes()


def fits(path: Path) -> bool:
    """Whether a file has the length that its first numbers say: there is no other mark of this format."""
    with open(path, 'rb') as file:
        start = file.read(4 * len(SHAPES))
    if len(start) < 4 * len(SHAPES):
        return False
    entries = np.frombuffer(start, '<u4').astype(np.int64)
    biases = sum(shape[0] for shape in SHAPES.values())
    expected = len(start) + len(SHAPES) * 4 * CODES + 4 * biases + (entries + (entries + 1) // 2).sum()
    return path.stat().st_size == expected


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the net's tensors, float32, by the names of its layers: 'fire2/squeeze1x1.weight' and '.bias'.

    Args:
      path: of compressed_SqueezeNet.net, or of another net of SqueezeNet v1.0 in its format.

    Raises:
      ValueError: the file is damaged, or of another net.
    """
    data = path.read_bytes()
    place = 0

    def take(number: int, dtype: str) -> np.ndarray:
        nonlocal place
        size = number * np.dtype(dtype).itemsize
        if place + size > len(data):
            raise ValueError(f'it ends after {len(data):,} bytes, before all layers of SqueezeNet v1.0')
        place += size
        return np.frombuffer(data, dtype, number, place - size)

    tensors = {}
    for (name, shape), entries in zip(SHAPES.items(), take(len(SHAPES), '<u4').tolist(), strict=True):
        codebook, bias = take(CODES, '<f4'), take(shape[0], '<f4')
        codes, pairs = take(entries, 'u1'), take((entries + 1) // 2, 'u1')
        gaps = np.stack([pairs & 15, pairs >> 4], 1).reshape(-1)[:entries]
        places = tensor_codes.absolute(gaps)
        kernel = np.zeros(np.prod(shape), np.float32)
        if entries and places[-1] >= kernel.size:
            raise ValueError(f'{name} has a weight at place {places[-1]:,} of {kernel.size:,}')
        if codebook[0] != 0 or not (np.isfinite(codebook).all() and np.isfinite(bias).all()):
            raise ValueError(f'{name} has a codebook or a bias that makes no sense')
        kernel[places] = codebook[codes]
        tensors |= {f'{name}.weight': kernel.reshape(shape), f'{name}.bias': bias.astype(np.float32)}
    if place != len(data):
        raise ValueError(f'{len(data) - place:,} bytes follow the last layer')
    return tensors
