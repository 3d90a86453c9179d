"""Decoding takes no more memory than is stated, by format and mode; all cases: python tests/peers/decode_memory.py."""

import subprocess
import sys

import pytest

from tests.peers import decode_memory


@pytest.mark.parametrize('name', ['JPEG RGB', 'JPEG CMYK', 'PNG RGBA', 'PNG I;16', 'WEBP RGB', 'TIFF F', 'TIFF F lzw'])
def test_memory_of_decoding_is_bounded_as_stated(name, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_memory, 'SIDE', 2000)
    (tmp_path / 'image').write_bytes(decode_memory._case(name))
    command = [sys.executable, decode_memory.__file__, '--measure', str(tmp_path / 'image')]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took, stated = map(int, done.stdout.split())
    assert 2 * 2000**2 < took <= stated
