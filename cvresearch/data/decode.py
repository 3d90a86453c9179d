"""From the bytes of an image file to pixels. What cannot be decoded is `DamagedError`.

JPEGs go through libjpeg-turbo (simplejpeg); what it refuses, and all other formats, through Pillow.
"""

import dataclasses
import io
import re
import struct

import numpy as np
import simplejpeg
from PIL import Image

# No others: Pillow would hand PostScript, whatever the file is called, to another program.
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'PPM', 'TIFF')
BLOCK_ROWS = 32  # pixels: JPEG's blocks of 8 rows, where colours are stored at a quarter of the height at most
# What libjpeg says when the data go on after the last row, and before anything else was wrong.
ONLY_MORE_DATA = re.compile(r'Corrupt JPEG data: \d+ extraneous bytes before marker 0x[0-9a-f]{2}')
MOST_PIXELS = 1 << 26  # of a file: a thread needs 4 bytes for each; ImageNet's largest image has 21 million


class DamagedError(Exception):
    """Bytes that are not a whole image; the message says why."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded."""

    height: int
    width: int
    plain_jpeg: bool  # grey or YCbCr, which libjpeg-turbo turns into RGB


def header(data: bytes) -> Header:
    """Returns the size of an image.

    Raises:
      DamagedError: not an image, or one of more than `MOST_PIXELS` pixels.
    """
    if not data:
        raise DamagedError('the file is empty')
    found = None
    if data[:2] == b'\xff\xd8':
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            found = Header(height, width, colours in ('YCbCr', 'Gray', 'GRAY', 'RGB'))
        except (ValueError, KeyError):  # Pillow says what is wrong
            pass
    if found is None:
        with _opened(data) as image:
            found = Header(image.height, image.width, False)
    if found.height * found.width > MOST_PIXELS:
        raise DamagedError(f'{found.width} x {found.height} pixels; at most {MOST_PIXELS:,} are decoded')
    return found


def decode(data: bytes, known: Header, least: tuple[int, int] | None = None, bottom: int | None = None) -> np.ndarray:
    """Returns the pixels of an image, uint8 (height, width, 3), RGB.

    Pixels are as they are stored: an orientation in the EXIF data is not followed, as torchvision, timm and
    TensorFlow do not follow it either. Of an animation the first picture is taken; transparency is dropped.

    Args:
      data: the file.
      known: its `header`.
      least: where given, speed counts: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as it has at
        least this height and width, with the fast inverse transform. Otherwise pixels are Pillow's, exactly.
      bottom: where given with `least`, rows of the whole image from here on may be missing in the result. Whether
        the bytes of missing rows are damaged is not looked at; that they are there is.

    Raises:
      DamagedError: the bytes are not a whole image.
    """
    if known.plain_jpeg:
        try:
            if least is None:
                return simplejpeg.decode_jpeg(data, 'RGB')
            factor = max(f for f in (1, 2, 4, 8) if f == 1 or all(
                scaled(side, f) >= enough for side, enough in zip((known.height, known.width), least, strict=True)
            ))  # fmt: skip
            pixels = None if bottom is None else _upper_part(data, known, factor, bottom)
            return pixels if pixels is not None else _fast(data, known.height, known.width, factor)
        except ValueError:  # also what is only odd: Pillow decides
            pass
    with _opened(data) as image:
        try:
            return np.asarray(_rgb(image))
        except Exception as error:  # whatever a decoder meets in a damaged file
            raise DamagedError(_reason(error)) from error


def scaled(side: int, factor: int) -> int:
    """Returns the pixels of a side that libjpeg decodes at 1/factor of its length."""
    return -(-side // factor)


def _fast(data: bytes, height: int, width: int, factor: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decodes a JPEG of height x width at 1/factor of its size, with the fast inverse transform."""
    return simplejpeg.decode_jpeg(
        data, 'RGB', fastdct=True, fastupsample=True, min_height=scaled(height, factor),
        min_width=scaled(width, factor), min_factor=2, buffer=out,
    )  # fmt: skip


def _upper_part(data: bytes, known: Header, factor: int, bottom: int) -> np.ndarray | None:
    """Returns the rows above `bottom` at least, without the work for what is below; None where that cannot be done.

    libjpeg-turbo is told in the header that the image ends there. It finds the rest then, and says so in a warning,
    which simplejpeg raises when all rows are written.
    """
    rows = -(-(bottom + factor) // BLOCK_ROWS) * BLOCK_ROWS  # one more at the smaller scale, for rounding
    place = _height_of_sequential(data) if rows < known.height else None
    if place is None or struct.unpack_from('>HH', data, place) != (known.height, known.width):
        return None
    shorter = b''.join((data[:place], struct.pack('>H', rows), data[place + 2 :]))
    out = np.empty((scaled(rows, factor), scaled(known.width, factor), 3), np.uint8)
    try:
        return _fast(shorter, rows, known.width, factor, out)
    except ValueError as warning:
        return out if ONLY_MORE_DATA.fullmatch(str(warning)) else None


def _height_of_sequential(data: bytes) -> int | None:
    """Returns where a JPEG's height is written; None if its rows are not all in one scan that can be cut short."""
    place, components = None, None
    at = 2
    while data[at : at + 1] == b'\xff' and at + 10 <= len(data):
        marker, length = struct.unpack_from('>BH', data, at + 1)
        if marker in (0xC0, 0xC1):  # sequential, Huffman coded
            place, components = at + 5, data[at + 9]
        elif marker == 0xDA:  # start of scan
            return place if place and data[at + 4] == components else None
        elif marker == 0xDD or (0xC2 <= marker <= 0xCF and marker != 0xC4):  # other codings; restarts
            return None
        at += 2 + length
    return None


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise DamagedError('not an image of a known format') from error
    except (Exception, Image.DecompressionBombError) as error:
        raise DamagedError(_reason(error)) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I') or image.mode == 'F':  # 16 bits: `convert` would cut off above 255
        pixels = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.clip(pixels / 257 + 0.5, 0, 255).astype(np.uint8)).convert('RGB')
    # Transparency of palettes is in bytes, which RGB would warn of.
    return (image.convert('RGBA') if image.mode == 'P' else image).convert('RGB')


def _reason(error: BaseException) -> str:
    kind = 'damaged' if isinstance(error, OSError | SyntaxError | struct.error) else type(error).__name__
    return f'{kind}: {error}'
