"""From the bytes of an image file to pixels. What cannot be decoded is `DamagedError`.

JPEGs go through libjpeg-turbo (simplejpeg); what it refuses, and all other formats, through Pillow.
"""

import dataclasses
import re
import struct

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from cvresearch.data import modes
from cvresearch.data.modes import DamagedError

BLOCK_ROWS = 32  # pixels: JPEG's blocks of 8 rows, where colours are stored at a quarter of the height at most
# What libjpeg says when the data go on after the last row, and before anything else was wrong.
ONLY_MORE_DATA = re.compile(r'Corrupt JPEG data: \d+ extraneous bytes before marker 0x[0-9a-f]{2}')
MOST_PIXELS = 1 << 26  # of a file; ImageNet's largest image has 21 million
MOST_BYTES = 1 << 28  # of memory that the pixels of one image may take while it is decoded
BLOCKS = 1 << 25  # bytes beside them, whatever the size: of the block that is converted (`modes.BLOCK` pixels)
# Bytes a pixel while an image is decoded, as measured (tests/peers/decode_memory.py) and rounded up, its result of 3
# included: of plain JPEGs, progressive ones, and of what goes through Pillow, where the modes of one and two bytes
# take less. A TIFF's strip, and a JPEG's coefficients if it is progressive, are held whole beside the image.
JPEG, PROGRESSIVE, PILLOW, SMALL = 4, 10, 8, 6
BY_FORMAT = {'WEBP': 16, 'JPEG': 16, 'MPO': 16}
SMALL_MODES = ('1', 'L', 'P', 'I;16', 'I;16B', 'I;16L')
DEFLATE = 1032  # the most bytes that one of a PNG can become
CODED = 512  # pixels of a Huffman-coded JPEG that one byte can stand for: a bit for each 8 x 8
OTHERS = [
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb'....ftyp(hei|hev|hem|hes|mif1|msf1)', 'a HEIC image'),
        (rb'....ftypavi[fs]', 'an AVIF image'),
        (rb'\xff\x0a|....JXL ', 'a JPEG XL image'),
        (rb'\xff\x4f\xff\x51|....jP  ', 'a JPEG 2000 image'),
        (rb'8BPS', 'a Photoshop file'),
        (rb'%PDF', 'a PDF'),
        (rb'\s*(<\?xml.*)?<svg', 'an SVG drawing'),
        (rb'II\*\0|MM\0\*|II\+\0|MM\0\+', 'a TIFF of a kind of samples'),
    )
]


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded."""

    height: int
    width: int
    plain_jpeg: bool  # grey or YCbCr, which libjpeg-turbo turns into RGB
    cost: int = JPEG  # bytes a pixel that decoding takes at most

    @property
    def memory(self) -> int:
        """Bytes that decoding takes at most."""
        return self.height * self.width * self.cost + BLOCKS


def header(data: bytes) -> Header:
    """Returns the size of an image.

    Raises:
      DamagedError: not an image; one of more than `MOST_PIXELS` pixels or of more than `MOST_BYTES` to decode; or of
        more pixels than the bytes can hold.
    """
    if not data:
        raise DamagedError('the file is empty')
    fields = None
    if data[:2] == b'\xff\xd8':
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            fields = Header(int(height), int(width), colours in ('YCbCr', 'Gray', 'GRAY', 'RGB'))
        except (ValueError, KeyError):  # Pillow says what is wrong
            pass
    if fields is None:
        with _opened(data) as image:
            cost = BY_FORMAT.get(image.format or '', SMALL if image.mode in SMALL_MODES else PILLOW)
            if image.format == 'TIFF' and image.info.get('compression') != 'raw':
                cost += -(-sum(modes.tags(image).get(modes.BITS, (8,))) // 8)
            fields = Header(*modes.size(image), False, cost)
    elif not fields.plain_jpeg:
        fields = dataclasses.replace(fields, cost=BY_FORMAT['JPEG'])
    _refuse_large(fields, data)
    return fields


def _refuse_large(known: Header, data: bytes) -> None:
    pixels, size = known.height * known.width, f'{known.width} x {known.height} pixels'
    if pixels > MOST_PIXELS:
        raise DamagedError(f'{size}; at most {MOST_PIXELS:,} are decoded')
    # Its markers are read only where they decide: most images are far below the bound either way.
    if known.plain_jpeg and pixels * PROGRESSIVE > MOST_BYTES and _height_of_sequential(data) is None:
        known = dataclasses.replace(known, cost=PROGRESSIVE)
    if pixels * known.cost > MOST_BYTES:
        raise DamagedError(
            f'{size} of {known.cost} bytes each to decode; at most {MOST_BYTES >> 20} MiB are taken: make it smaller'
        )
    if known.plain_jpeg:
        bound = CODED * len(data)
        # Searching all of the bytes takes longer than anything else that is not decoding: only where it decides.
        if pixels > bound and (b'\xff\xc9' in data or b'\xff\xca' in data):  # arithmetic coding has no such bound
            bound = pixels
    else:
        # A PNG's bits a pixel, by its depth and type of colour.
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(data[25], 1) if data[:4] == b'\x89PNG' and len(data) > 25 else 0
        bound = 8 * DEFLATE * len(data) // max(channels * data[24], 1) if channels else pixels
    if pixels > bound:
        raise DamagedError(f'truncated: {len(data):,} bytes cannot hold {size}')


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
            factor, (rows, columns) = 8, least
            while factor > 1 and (scaled(known.height, factor) < rows or scaled(known.width, factor) < columns):
                factor //= 2
            pixels = None if bottom is None else _upper_part(data, known, factor, bottom)
            return pixels if pixels is not None else _fast(data, known.height, known.width, factor)
        except ValueError:  # also what is only odd: Pillow decides
            pass
    with _opened(data) as image:
        try:
            return modes.to_rgb(data, image)
        except (DamagedError, MemoryError):
            raise
        except Exception as error:  # whatever a decoder meets in a damaged file
            raise DamagedError(_reason(error)) from error


def scaled(side: int, factor: int) -> int:
    """Returns the pixels of a side that libjpeg decodes at 1/factor of its length."""
    return -(-side // factor)


def _fast(data: bytes | bytearray, height: int, width: int, factor: int, out: np.ndarray | None = None) -> np.ndarray:
    """Decodes a JPEG of height x width at 1/factor of its size, with the fast inverse transform."""
    return simplejpeg.decode_jpeg(
        data,
        'RGB',
        fastdct=True,
        fastupsample=True,
        min_height=scaled(height, factor),
        min_width=scaled(width, factor),
        min_factor=2,
        buffer=out,
    )


def _upper_part(data: bytes, known: Header, factor: int, bottom: int) -> np.ndarray | None:
    """Returns the rows above `bottom` at least, without the work for what is below; None where that cannot be done.

    libjpeg-turbo is told in the header that the image ends there. It finds the rest then, and says so in a warning,
    which simplejpeg raises when all rows are written.
    """
    rows = -(-(bottom + factor) // BLOCK_ROWS) * BLOCK_ROWS  # one more at the smaller scale, for rounding
    place = _height_of_sequential(data) if rows < known.height else None
    if place is None or struct.unpack_from('>HH', data, place) != (known.height, known.width):
        return None
    shorter = bytearray(data)
    struct.pack_into('>H', shorter, place, rows)
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


def _opened(data: bytes) -> ImageFile.ImageFile:
    try:
        return modes.opened(data)
    except MemoryError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DamagedError(_unknown(data)) from error
    except (Exception, Image.DecompressionBombError) as error:
        raise DamagedError(_reason(error)) from error


def _unknown(data: bytes) -> str:
    """Returns what is said of bytes that no decoder takes."""
    for pattern, name in OTHERS:
        if pattern.match(data):
            return f'{name}, which is not decoded here; convert it to JPEG, or to PNG of 8 bits'
    return 'not an image of a known format'


def _reason(error: BaseException) -> str:
    kind = 'damaged' if isinstance(error, OSError | SyntaxError | struct.error) else type(error).__name__
    return f'{kind}: {error}'
