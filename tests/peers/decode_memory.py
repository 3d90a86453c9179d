"""Bytes a pixel that decoding takes at most, by format and mode: python tests/peers/decode_memory.py [FILE.json].

Each case is decoded in a process of its own; the peak of its memory less the peak before, the file itself included
only where the decoder copies it. Compared with the bound that `decode.header` states for the image.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 3000


def photograph(channels: int = 3) -> np.ndarray:
    """Returns a smooth image, uint8 (SIDE, SIDE, channels)."""
    coarse = np.random.default_rng(0).integers(0, 256, (30, 30, channels), np.uint8)
    return np.stack([np.asarray(Image.fromarray(plane).resize((SIDE, SIDE))) for plane in coarse.transpose(2, 0, 1)], 2)


def _case(name: str) -> bytes:
    kind, mode, *more = name.split()
    rgb = Image.fromarray(photograph())
    if mode in ('I;16', 'I', 'F'):
        grey = photograph(1)[..., 0]
        image = Image.fromarray(
            {'I;16': grey.astype(np.uint16) * 257, 'I': grey.astype(np.int32) * 257, 'F': np.float32(grey / 255)}[mode]
        )
    else:
        image = rgb.convert(mode)
    options = {'progressive': True} if 'progressive' in more else {'compression': 'tiff_lzw'} if 'lzw' in more else {}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


CASES = (
    'JPEG RGB',
    'JPEG L',
    'JPEG RGB progressive',
    'JPEG CMYK',
    'PNG RGB',
    'PNG RGBA',
    'PNG L',
    'PNG P',
    'PNG I;16',
    'PNG LA',
    'PNG 1',
    'GIF P',
    'BMP RGB',
    'WEBP RGB',
    'WEBP RGBA',
    'PPM RGB',
    'TIFF RGB',
    'TIFF RGB lzw',
    'TIFF RGBA',
    'TIFF CMYK',
    'TIFF I;16',
    'TIFF I',
    'TIFF F',
    'TIFF F lzw',
)


def measure(path: str) -> None:
    """Prints the bytes that decoding a file takes, and the bytes that are stated for it."""
    from cvresearch.data import decode

    data, small = Path(path).read_bytes(), io.BytesIO()
    with Image.open(path) as image:
        image.crop((0, 0, 16, 16)).save(small, image.format)
    decode.decode(small.getvalue(), decode.header(small.getvalue()))  # what is loaded once
    known = decode.header(data)
    before = _peak()
    decode.decode(data, known)
    print(_peak() - before, known.memory)


def _peak() -> int:
    """Returns the most bytes that this program has held; getrusage's are inherited from the process that began it."""
    line = next(line for line in Path('/proc/self/status').read_text('utf-8').splitlines() if line.startswith('VmHWM'))
    return 1024 * int(line.split()[1])


def main(out: Path | None) -> None:
    """Prints a table of all cases, and writes its record."""
    import tempfile

    from cvresearch.base import records, tables

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            file = Path(folder) / 'image'
            file.write_bytes(_case(name))
            command = [sys.executable, __file__, '--measure', file]
            done = subprocess.run(command, capture_output=True, check=True, text=True)
            took, stated = (int(word) / SIDE**2 for word in done.stdout.split())
            rows.append({'image': name, 'bytes a pixel': round(took, 1), 'stated': round(stated, 1)})
    print(tables.render(rows, tuple(rows[0])))
    if out:
        records.write_measurement(out, rows, side=SIDE)


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))
    measure(sys.argv[2]) if sys.argv[1:2] == ['--measure'] else main(Path(sys.argv[1]) if sys.argv[1:] else None)
