"""Microseconds an image for which the loader holds Python's lock: python -m tests.peers.lock [--record FILE]

As many images a second as their inverse is one process makes at most, whatever its cores. What lets the lock go is
replaced by a constant: reading a file, decoding, resizing, mirroring. The rest is one thread's time on the processor
for a random resized crop and a flip of JPEGs of 500 x 375 pixels, files and random numbers included; the least of many
short turns, since neighbours on the machine only add to it. With config.data.processes a second row is of the run's own
process: batches of 32 pixels, since the copy of a batch lets the lock go too.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

from cvresearch.base.memory import keep_freed_pages
from cvresearch.data import decode, files, sources, transforms, windows
from cvresearch.data.stream import Stream
from tests.peers import data

IMAGES, TURNS = 128, 60


def stream_of(folder: Path, size: int, processes: int) -> Stream:
    """Returns batches of a folder's images."""
    crop = dict(name='random_resized_crop', size=size)
    transform = dict(train=dict(crop=crop, flip=0.5), eval=dict(crop=crop))
    settings = dict(name='image_folder', root=str(folder), threads=1, processes=processes)
    return Stream(sources.load(settings, 0, transform).splits['train'], 0, IMAGES)


def timed(stream: Stream, turns: int) -> list[float]:
    """Returns an image's microseconds of this process in each turn."""
    found = []
    for step in range(turns):
        start = time.process_time()
        stream.batch(step)
        found.append(1e6 * (time.process_time() - start) / IMAGES)
    return found


def of_one_process(folder: Path) -> list[float]:
    """Returns an image's microseconds in each turn, without what lets the lock go."""
    stream = stream_of(folder, data.SIZE, 1)
    contents = {path: files.read(path) for path in (str(path).encode() for path in folder.glob('train/*/*.jpg'))}
    pixels: dict[tuple[int, int], np.ndarray] = {}

    def decoded(*arguments, min_height: int, min_width: int, buffer=None, **knobs) -> np.ndarray:
        if buffer is None and (min_height, min_width) not in pixels:
            pixels[min_height, min_width] = np.zeros((min_height, min_width, 3), np.uint8)
        return pixels[min_height, min_width] if buffer is None else buffer

    with (
        mock.patch.object(files, 'read', contents.__getitem__),
        mock.patch.object(decode.simplejpeg, 'decode_jpeg', decoded),
        mock.patch.object(windows.cv2, 'resize', lambda *arguments, **knobs: None),
        mock.patch.object(transforms.cv2, 'flip', lambda *arguments, **knobs: None),
    ):
        return timed(stream, TURNS)


def main() -> None:
    """Prints the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    options = parser.parse_args()
    keep_freed_pages()  # as every command does
    with tempfile.TemporaryDirectory() as name:
        data.write_files(Path(name))
        found = {1: of_one_process(Path(name)), 2: timed(stream_of(Path(name), 32, 2), TURNS // 2)}
    rows = [
        dict(
            processes=number,
            least_us=round(min(times), 1),
            median_us=round(statistics.median(times), 1),
            most_images_s=round(1e6 / min(times)),
        )
        for number, times in found.items()
    ]
    print(*rows, sep='\n')
    if options.record:
        from cvresearch.base import records

        records.write_measurement(options.record, rows, turns=TURNS, images=IMAGES)


if __name__ == '__main__':
    main()
