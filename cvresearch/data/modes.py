"""From an image as Pillow opens it to RGB, by mode and range. All programs see these pixels.

| samples | what becomes of them |
| --- | --- |
| 1 bit, grey or colours of 8 bits, palettes | as they are; grey in three equal channels |
| CMYK, YCbCr | Pillow's conversion; Adobe's inverted CMYK is turned over |
| alpha, a transparent colour | dropped: the colour that is stored below is seen |
| grey of 9 to 16 bits | value / range * 255, rounded; the range is 65,535 if no other is declared |
| colours of 16 bits | the upper byte; by their range if one is declared |
| whole numbers of 32 bits, or signed | as 16 bits if they fit (signed 16 bits: 32,767), else by a declared range |
| float | value * 255 if all are in [0, 1], else by a declared range |
| anything else (Lab, signed bytes, NaN) | refused |

A range is declared by a TIFF's BitsPerSample, SMinSampleValue and SMaxSampleValue, or a MaxSampleValue that is a power
of 2 less 1; by a PNM's largest value; by a PNG's sBIT, if the samples were not scaled as its standard asks. Values
outside the range are refused, never clipped. So is an image of more than 8 bits that would come out all but black, with
no value in the upper 15/16 of a range that it does not declare: it holds 12 bits, or fewer, in 16.
"""

import io
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

# No others: Pillow would hand PostScript, whatever the file is called, to another program.
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'PPM', 'TIFF')
BLOCK = 1 << 20  # pixels that are converted at once
BLACK = 1 / 16  # of the range: an image with nothing above holds 12 bits in 16, or is all but black
BITS, PHOTOMETRIC, MAX_SAMPLE, PLANAR, SAMPLE_FORMAT, S_MIN, S_MAX, SUBSAMPLING = 258, 262, 281, 284, 339, 340, 341, 530
SIGNED, WHITE_IS_ZERO = 2, 0  # a TIFF's SampleFormat, PhotometricInterpretation
# How Pillow undoes a TIFF's orientation when it loads one, undone: what is done to rows, columns, and both.
TURNED_BACK = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}
# Pillow keeps the upper byte of two. How it is told to keep the lower, and the channels in which that then is.
LOWER = {
    'RGB;16B': ('RGB;16L', [0, 1, 2]),
    'RGB;16L': ('RGB;16B', [0, 1, 2]),
    'RGB;16N': ('RGB;16B', [0, 1, 2]),
    'RGBA;16B': ('RGBA;16L', [0, 1, 2]),
    'RGBA;16L': ('RGBA;16B', [0, 1, 2]),
    'RGBA;16N': ('RGBA;16B', [0, 1, 2]),
    'RGBX;16B': ('RGBX;16L', [0, 1, 2]),
    'RGBX;16L': ('RGBX;16B', [0, 1, 2]),
    'RGBX;16N': ('RGBX;16B', [0, 1, 2]),
    'LA;16B': ('RGBA', [1, 1, 1]),
}


class DamagedError(Exception):
    """Bytes that are not a whole image, or one whose samples have no known meaning; the message says why."""


def opened(data: bytes) -> ImageFile.ImageFile:
    """Returns the image whose header is read."""
    return Image.open(io.BytesIO(data), formats=FORMATS)


def tags(image: Any) -> Any:
    """Returns the tags of a TIFF by number; Pillow's class for other formats has none."""
    return image.tag_v2


def size(image: Image.Image) -> tuple[int, int]:
    """Returns (height, width) as stored, before the image is loaded."""
    width, height = image.size
    turned = image.format == 'TIFF' and tags(image).get(0x0112) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


class Range(NamedTuple):
    """Which values are black and white."""

    low: float
    high: float
    declared: bool = False  # by the file, beyond what its type of number can hold
    inverted: bool = False


def to_rgb(data: bytes, image: ImageFile.ImageFile) -> np.ndarray:
    """Returns the pixels, uint8 (height, width, 3), as stored: a TIFF's orientation, which Pillow follows, is undone.

    Args:
      data: the file.
      image: `opened`, not yet loaded.

    Raises:
      DamagedError: the mode or the values have no known meaning as RGB.
    """
    _refuse_misread(image)
    turn = TURNED_BACK.get(image.getexif().get(0x0112, 1)) if image.format == 'TIFF' else None
    limits, depth, tile = _range(data, image), bits(data, image), image.tile[0] if image.tile else None
    image.load()
    if image.mode == 'F' or image.mode.startswith('I'):
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        _scale(pixels, lambda place: np.asarray(_cut(image, place))[..., None], limits, _significant_bits(data))
    else:
        pixels = _eight_bits(image)
        if depth > 8 and image.mode != 'CMYK' and (limits.declared or pixels.max(initial=0) < 256 * BLACK):
            image.close()
            _scale_sixteen(pixels, data, tile, limits)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def bits(data: bytes, image: ImageFile.ImageFile) -> int:
    """Returns the bits of a sample, before the image is loaded."""
    if image.format == 'TIFF':
        return max(tags(image).get(BITS, (1,)))
    if image.format == 'PNG':
        return data[24]
    return 16 if image.format == 'PPM' and (image.mode == 'I' or _largest_of_pnm(image) > 255) else 8


def _eight_bits(image: Image.Image) -> np.ndarray:
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for place in _blocks(pixels.shape):
        part = _cut(image, place)
        # Transparency of palettes is in bytes, which RGB would warn of; colours multiplied by alpha have one way back.
        by_way_of = {'P': 'RGBA', 'PA': 'RGBA', 'La': 'LA', 'RGBa': 'RGBA'}.get(part.mode)
        pixels[place] = np.asarray((part.convert(by_way_of) if by_way_of else part).convert('RGB'))
    return pixels


def _scale_sixteen(pixels: np.ndarray, data: bytes, tile, limits: Range) -> None:
    """Replaces upper bytes by what two bytes are in their range."""
    several = isinstance(tile.args, tuple)
    raw = tile.args[0] if several else tile.args
    if raw not in LOWER:
        if limits.declared or not pixels.any():
            return
        raise DamagedError(_too_dark(256 * int(pixels.max())))
    other, channels = LOWER[raw]
    lower = opened(data)
    lower.tile = [tile._replace(args=(other, *tile.args[1:]) if several else other)]

    def values(place) -> np.ndarray:
        return pixels[place].astype(np.uint16) * 256 + np.asarray(_cut(lower, place))[..., channels]

    _scale(pixels, values, limits, _significant_bits(data))


def _scale(pixels: np.ndarray, values: Callable, limits: Range, significant: int | None) -> None:
    """Writes values, which a function gives of each block, to `pixels`.

    Raises:
      DamagedError: values outside the range, not finite, or so low in a range that is not declared.
    """
    low, high, some = np.inf, -np.inf, 0
    for place in _blocks(pixels.shape):
        part = values(place)
        low, high = np.minimum(low, part.min()), np.maximum(high, part.max())
        if significant and part.dtype.kind in 'ui':
            some |= int(np.bitwise_or.reduce(part, axis=None))
    if not np.isfinite(low) or not np.isfinite(high):
        raise DamagedError('some values are not finite')
    # A PNG's samples fill 16 bits by its standard; some writers leave them in the lower bits all the same.
    if significant and high < 1 << significant and some % (1 << 16 - significant):
        limits = limits._replace(high=(1 << significant) - 1, declared=True)
    if low < limits.low or high > limits.high:
        raise DamagedError(
            f'its values go from {low:,g} to {high:,g}; expected {limits.low:,g} to {limits.high:,g}, or the range '
            'declared in the file (SMinSampleValue and SMaxSampleValue of a TIFF)'
        )
    if not limits.declared and 0 < high < limits.high * BLACK:
        raise DamagedError(_too_dark(high, limits.high))
    span = limits.high - limits.low
    for place in _blocks(pixels.shape):
        part = (values(place).astype(np.float64) - limits.low) / span
        pixels[place] = np.floor((1 - part if limits.inverted else part) * 255 + 0.5)


def _too_dark(high: float, of: float = 65535) -> str:
    return (
        f'its largest value is {high:,g} of {of:,g}, which would be all but black; save it with its full range, or '
        'declare the range (SMaxSampleValue of a TIFF, sBIT of a PNG, the largest value of a PGM)'
    )


def _range(data: bytes, image: ImageFile.ImageFile) -> Range:
    """Returns the range of an image that is not loaded yet."""
    if image.format == 'PPM':
        # Pillow has scaled the values to 16 bits already, if there are fewer.
        return Range(0, 1) if image.mode == 'F' else Range(0, 65535, declared=_largest_of_pnm(image) not in (0, 65535))
    if image.format != 'TIFF':
        return Range(0, 65535)
    fields = tags(image)
    depth, inverted = max(fields.get(BITS, (1,))), fields.get(PHOTOMETRIC) == WHITE_IS_ZERO
    if fields.get(S_MAX) is not None:
        low, high = (max(np.ravel(fields.get(tag, 0))) for tag in (S_MIN, S_MAX))
        if not low < high:
            raise DamagedError(f'it declares a range from {low:,g} to {high:,g}')
        return Range(float(low), float(high), True, inverted)
    most = int(max(np.ravel(fields.get(MAX_SAMPLE, 0))))
    if 255 <= most < (1 << min(depth, 16)) - 1 and not most & (most + 1) and image.mode != 'F':
        return Range(0, most, True, inverted)
    if image.mode == 'F':
        return Range(0, 1, inverted=inverted)
    signed = max(fields.get(SAMPLE_FORMAT, (1,))) == SIGNED and depth == 16
    return Range(0, 32767 if signed else (1 << min(depth, 16)) - 1, 8 < depth < 16, inverted)


def _largest_of_pnm(image: ImageFile.ImageFile) -> int:
    """Returns the largest value that a PNM declares, if it is not the usual one, or 0."""
    args = image.tile[0].args if image.tile else ()
    return args[1] if isinstance(args, tuple) and len(args) > 1 and image.tile[0].codec_name.startswith('ppm') else 0


def _significant_bits(data: bytes) -> int | None:
    """Returns what a PNG's sBIT says of 16-bit samples: the most bits of a channel, if fewer."""
    at = 8
    while data.startswith(b'\x89PNG') and at + 8 <= len(data):
        length, name = struct.unpack_from('>I4s', data, at)
        if name == b'sBIT' and 0 < length <= 4:
            most = max(data[at + 8 : at + 8 + min(length, 3 if length > 2 else 1)])
            return most if 8 < most < 16 else None
        if name in (b'IDAT', b'IEND'):
            return None
        at += 12 + length
    return None


def _refuse_misread(image: Image.Image) -> None:
    """Raises DamagedError for TIFFs that Pillow reads as something else, without a word."""
    if image.format != 'TIFF':
        return
    fields, plain = tags(image), image.info.get('compression') == 'raw'
    depth = max(fields.get(BITS, (1,)))
    if depth <= 8 and max(fields.get(SAMPLE_FORMAT, (1,))) == SIGNED:
        raise DamagedError('a TIFF of signed bytes, which have no known range; convert it to 8 bits without a sign')
    if plain and depth > 8 and fields.get(PLANAR, 1) == 2:
        raise DamagedError('a TIFF of 16-bit planes, uncompressed; convert it to interleaved samples')
    if plain and fields.get(PHOTOMETRIC) == 6 and tuple(fields.get(SUBSAMPLING, (2, 2))) != (1, 1):
        raise DamagedError('a TIFF of subsampled YCbCr, uncompressed; convert it to RGB')


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yields places of at most `BLOCK` pixels, row by row."""
    columns = min(shape[1], BLOCK)
    rows = BLOCK // max(columns, 1)
    for top in range(0, shape[0], max(rows, 1)):
        for left in range(0, shape[1], max(columns, 1)):
            yield slice(top, min(top + rows, shape[0])), slice(left, min(left + columns, shape[1]))


def _cut(image: Image.Image, place: tuple[slice, slice]) -> Image.Image:
    rows, columns = place
    return image.crop((columns.start, rows.start, columns.stop, rows.stop))
