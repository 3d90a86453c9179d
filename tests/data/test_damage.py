"""Damaged images: a case a row. Training goes on by a rule and counts; evaluation leaves nothing out."""

import io
import json
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cvresearch.base.errors import RunError
from cvresearch.data import decode, files, sources
from cvresearch.data.stream import Stream, in_order
from cvresearch.data.transforms import Transform
from tests.data.photographs import jpeg

TRANSFORM = dict(
    train=dict(crop=dict(name='random_resized_crop', size=32), flip=0.5),
    eval=dict(crop=dict(name='resize_center_crop', size=32, resize=36), fast=False, antialias=True),
)
PIXELS = np.asarray(Image.open(io.BytesIO(jpeg(1))))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge_png(side: int = 30_000) -> bytes:
    """Returns the beginning of a PNG that says it has side x side pixels: 2.7 GB."""
    head = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    chunks = [(b'IHDR', head), (b'IDAT', zlib.compress(bytes(1000)))]
    body = b''.join(
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data)) for name, data in chunks
    )
    return b'\x89PNG\r\n\x1a\n' + body


def huge_jpeg(side: int = 30_000) -> bytes:
    """Returns a JPEG whose header says it has side x side pixels."""
    data = bytearray(jpeg(1))
    at = data.index(b'\xff\xc0')
    data[at + 5 : at + 9] = struct.pack('>HH', side, side)
    return bytes(data)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(PIXELS), 'JPEG', exif=exif)


SIXTEEN = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
WHOLE = {  # what is decoded, and to what
    'CMYK': (saved(Image.fromarray(PIXELS).convert('CMYK'), 'JPEG', quality=95), PIXELS),
    'grayscale': (
        saved(Image.fromarray(PIXELS[..., 1]), 'JPEG', quality=95), np.repeat(PIXELS[..., 1:2], 3, axis=2)),
    '16-bit': (saved(SIXTEEN, 'PNG'), np.repeat(PIXELS[..., :1], 3, axis=2)),
    'EXIF-rotated': (rotated(), PIXELS),
    'animated': (saved(
        Image.fromarray(PIXELS), 'GIF', save_all=True, append_images=[Image.new('RGB', (64, 48))]), PIXELS),
    'PNG-named-JPEG': (saved(Image.fromarray(PIXELS), 'PNG'), PIXELS),
    'transparent': (saved(Image.fromarray(PIXELS).convert('RGBA'), 'PNG'), PIXELS),
    'palette': (saved(Image.fromarray(PIXELS).quantize(256), 'PNG', transparency=b'\x00\xff'), PIXELS),
    'bytes after the end': (jpeg(1) + b'trailing' * 50, PIXELS),
}  # fmt: skip
DAMAGED = {
    'truncated': jpeg(1)[: len(jpeg(1)) // 2],
    'empty': b'',
    '30,000 x 30,000 PNG': huge_png(),
    '30,000 x 30,000 JPEG': huge_jpeg(),
    'text': b'<html>404 not found</html>',
    'header only': jpeg(1)[:100],
    'truncated PNG': saved(Image.fromarray(PIXELS), 'PNG')[:900],
}


@pytest.mark.parametrize('name', WHOLE)
@pytest.mark.parametrize('quick', [False, True])
def test_odd_images_are_decoded(name, quick):
    data, expected = WHOLE[name]
    pixels = decode.decode(data, decode.header(data), (48, 64) if quick else None)
    assert pixels.shape == (48, 64, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).mean() < 8  # a palette is the coarsest of them


@pytest.mark.parametrize('name', DAMAGED)
def test_damaged_images_are_refused_in_bounded_memory(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(decode.DamagedError):
        Transform()(DAMAGED[name], {'crop': [0.5] * 40})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


@pytest.fixture
def folder(tmp_path):
    """Returns a function that lays 40 good images and the given ones in a class of both splits."""

    def lay(damaged: dict[str, bytes], split: str = 'train') -> dict:
        for part in ('train', 'test'):
            for label in ('cat', 'dog'):
                (tmp_path / part / label).mkdir(parents=True)
                for number in range(20):
                    (tmp_path / part / label / f'{number:02d}.jpg').write_bytes(jpeg(number))
        for name, data in damaged.items():
            path = tmp_path / split / 'cat' / f'bad {name}.jpg'
            path.write_bytes(data) if data is not None else path.symlink_to('nowhere')
        return dict(name='image_folder', root=str(tmp_path), most_damaged=0.3)

    return lay


@pytest.mark.parametrize('name', [*DAMAGED, 'unreadable'])
def test_training_replaces_a_damaged_image_by_its_rule_and_counts_it(folder, name):
    spec = folder({name.replace(',', '').replace(' ', '_'): DAMAGED.get(name)})
    batches = []
    for threads in (1, 3):
        train = sources.load(spec | {'threads': threads}, 0, TRANSFORM).splits['train']
        stream = Stream(train, 0, 41)
        batches.append(stream.batch(0))
        bad = [number for number, i in enumerate(train.ids(np.arange(41))) if 'bad' in i]
        assert list(train.damage.found) == train.ids(bad)
        stream.batch(1)
        assert len(train.damage.found) == 1  # counted once, however often it is drawn
    assert all(np.array_equal(batches[0][key], batches[1][key]) for key in batches[0])
    assert batches[0]['image'].std(axis=(1, 2, 3)).min() > 0


@pytest.mark.parametrize('name', [*DAMAGED, 'unreadable'])
def test_evaluation_names_a_damaged_image_and_stops(folder, name):
    spec = folder({name.replace(',', '').replace(' ', '_'): DAMAGED.get(name)}, 'test')
    test = sources.load(spec, 0, TRANSFORM).splits['test']
    with pytest.raises(RunError, match=r'the image cat/bad .* cannot be decoded .*; evaluation leaves no image out'):
        list(in_order(test, 8))


def test_a_run_stops_where_too_many_are_damaged(folder):
    spec = folder({f'{number}': b'' for number in range(3)}) | {'most_damaged': 0.05}
    train = sources.load(spec, 0, TRANSFORM).splits['train']
    with pytest.raises(RunError, match=r'3 of 43 training images cannot be decoded, more than the share .*bad'):
        Stream(train, 0, 43).batch(0)


def test_what_was_found_is_kept_over_a_restart(folder, tmp_path):
    spec = folder({'empty': b'', 'cut': jpeg(1)[:500]})
    kept = tmp_path / 'damaged.jsonl'
    for _ in range(2):
        train = sources.load(spec, 0, TRANSFORM).splits['train']
        train.damage.keep_in(kept)
        Stream(train, 0, 42).batch(0)
        rows = [json.loads(line) for line in kept.read_text().splitlines()]
        assert sorted(row['id'] for row in rows) == ['cat/bad cut.jpg', 'cat/bad empty.jpg']
        kept.write_text(kept.read_text() + '{"id": "cat/ba')  # a process killed while it wrote


def test_member_of_a_tar_that_is_cut_off_is_damaged(tmp_path):
    data = jpeg(1)
    (tmp_path / 'x.tar').write_bytes(data[:-200])
    cut = files.Members(
        tmp_path / 'x.tar', np.array([b'a.JPEG']), np.array([0]), np.array([len(data)]), np.array([0], np.int32)
    )
    with pytest.raises(decode.DamagedError):
        Transform()(cut[0].image, {'crop': [0.5] * 40})
