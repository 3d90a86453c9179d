"""Decoding no more of a JPEG than a crop needs: the rows are those of the whole image, and damage is found."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from cvresearch.data import decode
from cvresearch.data.decode import DamagedError

PHOTOGRAPH = Image.fromarray(load_sample_image('china.jpg'))
SUBSAMPLINGS = {'4:4:4': 0, '4:2:2': 1, '4:2:0': 2}


def photograph(width: int, height: int, mode: str = 'RGB', **options) -> bytes:
    file = io.BytesIO()
    PHOTOGRAPH.resize((width, height)).convert(mode).save(file, 'JPEG', **dict(quality=92) | options)
    return file.getvalue()


def both(data: bytes, factor: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the whole image and what is decoded for the rows above `bottom`, at 1/factor of the size."""
    known = decode.header(data)
    least = -(-known.height // factor), -(-known.width // factor)
    return decode.decode(data, known, least), decode.decode(data, known, least, bottom)


@pytest.mark.parametrize('factor', [1, 2, 4, 8])
@pytest.mark.parametrize('stored', [*SUBSAMPLINGS, 'grey', 'optimised tables'])
def test_upper_rows_are_those_of_the_whole_image(stored, factor):
    options = dict(mode='L') if stored == 'grey' else dict(optimize=True, subsampling=SUBSAMPLINGS.get(stored, 2))
    for width, height in ((250, 187), (161, 320)):
        data = photograph(width, height, **options)
        for bottom in (1, 31, 32, 100, 150, height - 1, height):
            whole, upper = both(data, factor, bottom)
            assert whole.shape[0] == -(-height // factor)
            needed = min(-(-bottom // factor) + 1, whole.shape[0])  # one more where rounding wants it
            assert len(upper) >= needed
            assert np.array_equal(upper, whole[: len(upper)])
        assert len(both(data, factor, 32)[1]) < len(whole)  # or nothing would have been saved


@pytest.mark.parametrize('stored', [dict(progressive=True), dict(restart_marker_rows=1), dict(mode='CMYK')])
def test_what_cannot_be_cut_short_is_decoded_whole(stored):
    whole, upper = both(photograph(250, 187, **stored), 1, 40)
    assert np.array_equal(upper, whole)


def test_one_scan_a_component_is_decoded_whole():
    # A sequential JPEG of three scans: the scan's header names fewer components than the frame's.
    data = photograph(250, 187)
    scan = data.index(b'\xff\xda') + 4
    assert decode._height_of_sequential(data)
    assert decode._height_of_sequential(data[:scan] + b'\x01' + data[scan + 1 :]) is None


@pytest.mark.parametrize('where', ['above', 'below'])
def test_end_that_is_missing_is_found(where):
    data = photograph(250, 187)
    data = data[: len(data) // 10 if where == 'above' else -len(data) // 10]
    with pytest.raises(DamagedError, match='truncated'):
        both(data, 1, 60)


def test_file_that_ends_within_its_header_is_damaged():
    data = photograph(250, 187)
    known = decode.header(data)
    for length in range(2, data.index(b'\xff\xda') + 14):
        with pytest.raises(DamagedError):
            decode.decode(data[:length], known, (187, 250), 60)


def test_damage_in_the_rows_that_are_needed_is_found_as_in_the_whole_image():
    data = bytearray(photograph(250, 187))
    scan = data.index(b'\xff\xda') + 14
    data[scan + 500 : scan + 502] = b'\xff\xe1'  # a marker amid the codes
    whole, upper = both(bytes(data), 1, 60)  # Pillow decides what becomes of it, in both
    assert np.array_equal(upper[:60], whole[:60]) and len(upper) == len(whole)
