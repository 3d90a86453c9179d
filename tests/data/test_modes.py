"""One function from a file to RGB, in training, predict and explain: a ramp in every mode, its values by hand.

The ramp has 256 columns; column c is grey c, or a colour of it, whatever the bits that store it. Sixteen bits hold
257 c (65,535 / 255), twelve 4,095 c / 255 rounded, floats c / 255: all are c again in 8 bits.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cvresearch.data import decode, explain, modes
from cvresearch.data.preprocessing import open_image
from cvresearch.data.transforms import make

RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
GREY = np.repeat(RAMP[..., None], 3, 2)
COLOUR = np.stack([RAMP, RAMP[:, ::-1], RAMP // 2], 2)
TWELVE = np.rint(RAMP * (4095 / 255)).astype(np.uint16)
# As training and evaluation take an image whole: both are 4 x 4 of it at these places, no pixel mixed with another.
KNOBS = dict(crop=dict(name='resize_center_crop', size=4, resize=4), flip=0.0)


def saved(image, kind='PNG', **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def array(values, kind='TIFF', mode=None, **options):
    image = Image.fromarray(values)
    assert mode is None or image.mode == mode
    return saved(image, kind, **options)


def tiff(values, **tags):
    """Returns an uncompressed TIFF of one strip, as TIFF 6.0 lays it, with further tags by number."""
    height, width, channels = (*values.shape, 1)[:3]
    bits, data = 8 * values.dtype.itemsize, np.ascontiguousarray(values).tobytes()
    fields = {256: width, 257: height, 258: (bits,) * channels, 259: 1, 262: 2 if channels == 3 else 1}
    fields |= {273: 8, 277: channels, 278: height, 279: len(data), 284: 1}
    fields |= {int(tag[1:]): value for tag, value in tags.items()}
    more, at = b'', 8 + len(data) + 2 + 12 * len(fields) + 4
    rows = b''
    for tag, value in sorted(fields.items()):
        value = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f'<{len(value)}{"f" if any(isinstance(v, float) for v in value) else "I"}', *value)
        kind = 11 if any(isinstance(v, float) for v in value) else 4
        place = packed if len(packed) == 4 else struct.pack('<I', at + len(more))
        rows += struct.pack('<HHI', tag, kind, len(value)) + place
        more += packed if len(packed) > 4 else b''
    return b'II*\0' + struct.pack('<I', 8 + len(data)) + data + struct.pack('<H', len(fields)) + rows + bytes(4) + more


def png(values, *chunks):
    """Returns a PNG of 16 bits, grey or RGB, with further chunks."""
    kind = 2 if values.ndim == 3 else 0
    head = struct.pack('>IIBBBBB', values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    parts = [(b'IHDR', head), *chunks, (b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(d)) + n + d + struct.pack('>I', zlib.crc32(n + d)) for n, d in parts
    )


PALETTE = Image.fromarray(RAMP, 'L').convert('P')
PALETTE.putpalette(COLOUR[0].tobytes())
ALPHA = np.dstack([COLOUR, 255 - RAMP])
SIXTEEN = RAMP.astype(np.uint16) * 257
EXPECTED = {
    '1': (saved(Image.fromarray(RAMP > 127)), np.where(GREY > 127, 255, 0)),
    'L': (saved(Image.fromarray(RAMP)), GREY),
    'LA': (saved(Image.fromarray(np.dstack([RAMP, RAMP[:, ::-1]]), 'LA')), GREY),
    'P': (saved(PALETTE), COLOUR),
    'P, transparent': (saved(PALETTE, transparency=bytes(range(256))), COLOUR),
    'P, one colour transparent (GIF)': (saved(PALETTE, 'GIF', transparency=7), COLOUR),
    'RGB': (saved(Image.fromarray(COLOUR)), COLOUR),
    'RGBA': (saved(Image.fromarray(ALPHA)), COLOUR),
    'RGBA, TIFF': (saved(Image.fromarray(ALPHA), 'TIFF'), COLOUR),
    'CMYK, TIFF': (saved(Image.fromarray(np.dstack([255 - COLOUR, 0 * RAMP]), 'CMYK'), 'TIFF'), COLOUR),
    'I;16, PNG': (array(SIXTEEN, 'PNG', 'I;16'), GREY),
    'I;16, TIFF': (array(SIXTEEN, 'TIFF', 'I;16'), GREY),
    'I;16, PGM': (saved(Image.fromarray(SIXTEEN), 'PPM'), GREY),
    'I, 32 bits': (array(SIXTEEN.astype(np.int32), 'TIFF', 'I'), GREY),
    'F, 0 to 1': (array(np.float32(RAMP / 255), 'TIFF', 'F'), GREY),
    'F, 0 to 255 declared': (tiff(np.float32(RAMP), _339=3, _340=0.0, _341=255.0), GREY),
    '12 bits in 16, declared by MaxSampleValue': (tiff(TWELVE, _281=4095), GREY),
    '12 bits in 16, declared by SMaxSampleValue': (tiff(TWELVE, _340=0, _341=4095), GREY),
    '12 bits in 16, PNG with sBIT': (png(TWELVE, (b'sBIT', b'\x0c')), GREY),
    'RGB of 16 bits, PNG': (png(COLOUR.astype(np.uint16) * 257), COLOUR),
    'RGB of 16 bits, TIFF': (tiff(COLOUR.astype(np.uint16) * 257), COLOUR),
    'white is 0, TIFF': (tiff(255 - RAMP, _262=0), GREY),
    'white is 0, 16 bits': (tiff(65535 - SIXTEEN, _262=0), GREY),
}
REFUSED = {
    'F, 0 to 255': (array(np.float32(RAMP)), 'its values go from 0 to 255; expected 0 to 1'),
    'F, not a number': (array(np.where(RAMP == 3, np.nan, RAMP / 255).astype(np.float32)), 'are not finite'),
    'F, below 0': (array(np.float32(RAMP / 255 - 0.5)), 'its values go from -0.5 to 0.5'),
    '12 bits in 16': (array(TWELVE), r'its largest value is 4,095 of 65,535, which would be all but black'),
    '12 bits in 16, PNG': (array(TWELVE, 'PNG'), 'its largest value is 4,095'),
    'I, beyond 16 bits': (array(np.int32(SIXTEEN) * 9), 'its values go from 0 to 589,815'),
    'I, below 0': (array(np.int32(SIXTEEN) - 9), 'its values go from -9'),
    'values beyond the declared range': (tiff(TWELVE, _340=0, _341=4094), 'its values go from 0 to 4,095'),
    'a range from high to low': (tiff(TWELVE, _340=9, _341=9), 'it declares a range from 9 to 9'),
}  # fmt: skip


@pytest.mark.parametrize('name', EXPECTED)
def test_every_mode_is_the_same_rgb_for_all_programs(name, tmp_path):
    data, expected = EXPECTED[name]
    (tmp_path / 'image').write_bytes(data)
    pixels = decode.decode(data, decode.header(data))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)  # evaluation
    np.testing.assert_array_equal(open_image(tmp_path / 'image'), expected)  # predict
    np.testing.assert_array_equal(explain._pixels(data), expected)
    for fast in (True, False):  # training: the centre, of one size
        cut = make(KNOBS | dict(fast=fast))(data, {'crop': []})
        np.testing.assert_array_equal(cut, expected[:, 126:130])


@pytest.mark.parametrize('name', REFUSED)
def test_values_without_a_known_meaning_are_refused_by_all_programs(name, tmp_path):
    data, why = REFUSED[name]
    with pytest.raises(decode.DamagedError, match=why):
        decode.decode(data, decode.header(data))
    with pytest.raises(decode.DamagedError, match=why):
        make(KNOBS)(data, {'crop': []})


def test_black_images_of_16_bits_are_no_mistake():
    for values in (np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.float32)):
        data = array(values)
        assert not decode.decode(data, decode.header(data)).any()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientations_are_followed_in_no_format(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(lossless=True) if kind == 'WEBP' else dict(quality=100, subsampling=0) if kind == 'JPEG' else {}
    data = saved(Image.fromarray(COLOUR), kind, exif=exif, **options)
    known = decode.header(data)
    pixels = decode.decode(data, known)
    assert (known.height, known.width) == pixels.shape[:2] == (4, 256)
    assert np.abs(pixels.astype(int) - COLOUR).max() <= (8 if kind == 'JPEG' else 0)


def test_images_in_blocks_are_those_at_once(monkeypatch):
    for name in ('RGBA', 'I;16, TIFF', 'RGB of 16 bits, TIFF', 'F, 0 to 255 declared'):
        data, expected = EXPECTED[name]
        monkeypatch.setattr(modes, 'BLOCK', 100)  # less than a row
        np.testing.assert_array_equal(decode.decode(data, decode.header(data)), expected)


def test_signed_bytes_are_refused():
    data = tiff(RAMP, _339=2)
    with pytest.raises(decode.DamagedError, match='signed bytes'):
        decode.decode(data, decode.header(data))
