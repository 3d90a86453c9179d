"""Photographs of many sizes, modes and formats, cut out of those that packages bring along.

Used by both sides, as seeded.py: by what records another library's answers, and by what compares ours.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

MODES = ('RGB', 'L', 'RGBA', 'RGB', 'LA')
# As programs write JPEGs: quality, subsampling of the colours, progressive or not.
JPEGS = ((90, 2, False), (75, 2, True), (95, 0, False), (60, 1, False))
SIDES = (40, 700)  # pixels


def cut(count: int, pictures: Sequence[np.ndarray] = (), jpegs: bool = False) -> dict[str, bytes]:
    """Returns {name: bytes} of image files, cut at random places and sizes out of photographs.

    PNGs alone are the same pixels with every version of the codecs.

    Args:
      count: how many.
      pictures: uint8 (height, width, 3), the photographs; those of scikit-learn if none are given.
      jpegs: every other file is a JPEG, grey every third time.
    """
    pictures = pictures or load_sample_images().images
    random = np.random.Generator(np.random.Philox(key=18))
    files = {}
    for number in range(count):
        picture = pictures[number % len(pictures)]
        sides = np.exp(random.uniform(*np.log(SIDES), 2)).astype(int)
        height, width = (min(side, most) for side, most in zip(sides, picture.shape, strict=False))
        top, left = (random.integers(n - m + 1) for m, n in zip((height, width), picture.shape, strict=False))
        image = Image.fromarray(picture[top : top + height, left : left + width])
        file, form = io.BytesIO(), 'JPEG' if jpegs and number % 2 else 'PNG'
        if form == 'JPEG':
            quality, subsampling, progressive = JPEGS[number // 2 % len(JPEGS)]
            image = image.convert('L') if number % 3 == 0 else image
            image.save(file, form, quality=quality, subsampling=subsampling, progressive=progressive)
        else:
            image = image.convert(MODES[number // (2 if jpegs else 1) % len(MODES)])
            if 'A' in image.mode:  # what lies under a see-through pixel is what a net sees, in every library
                alpha = np.linspace(0, 255, width).astype(np.uint8)
                image.putalpha(Image.fromarray(np.broadcast_to(alpha, (height, width)).copy()))
            image.save(file, form)
        files[f'{number:03}.{form.lower()}'] = file.getvalue()
    return files


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Writes each file into the folder of a class: 000.png into 0, 001.png into 1, ..."""
    for number, (name, data) in enumerate(files.items()):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / name).write_bytes(data)
