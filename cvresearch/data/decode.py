"""From the bytes of an image file to pixels. What cannot be decoded is `DamagedError`.

JPEGs go through libjpeg-turbo (simplejpeg); what it refuses, and all other formats, through Pillow.
"""

import dataclasses
import io
import struct

import numpy as np
import simplejpeg
from PIL import Image

# No others: Pillow would hand PostScript, whatever the file is called, to another program.
FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'PPM', 'TIFF')
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


def decode(data: bytes, known: Header, least: tuple[int, int] | None = None) -> np.ndarray:
    """Returns the pixels of an image, uint8 (height, width, 3), RGB.

    Pixels are as they are stored: an orientation in the EXIF data is not followed, as torchvision, timm and
    TensorFlow do not follow it either. Of an animation the first picture is taken; transparency is dropped.

    Args:
      data: the file.
      known: its `header`.
      least: where given, speed counts: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as it has at
        least this height and width, with the fast inverse transform. Otherwise pixels are Pillow's, exactly.

    Raises:
      DamagedError: the bytes are not a whole image.
    """
    if known.plain_jpeg:
        quick = least is not None
        height, width = least if quick else (0, 0)
        try:
            return simplejpeg.decode_jpeg(
                data, 'RGB', fastdct=quick, fastupsample=quick, min_height=height, min_width=width,
                min_factor=2 if quick else 1,
            )  # fmt: skip
        except ValueError:  # also what is only odd: Pillow decides
            pass
    with _opened(data) as image:
        try:
            return np.asarray(_rgb(image))
        except Exception as error:  # whatever a decoder meets in a damaged file
            raise DamagedError(_reason(error)) from error


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
