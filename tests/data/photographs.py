"""Small images of known content, and ILSVRC's tars in small, for tests."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from cvresearch.data import imagenet


def jpeg(number: int, height: int = 48, width: int = 64, **options) -> bytes:
    """Returns a smooth picture that differs by `number`."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.BICUBIC).save(file, 'JPEG', **({'quality': 90} | options))
    return file.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    """Returns a tar of these files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def ilsvrc(folder: Path, classes: int = 3, train: int = 4, validation: int = 6) -> dict[str, bytes]:
    """Writes the two tars of ILSVRC2012 in small; returns the bytes of each image by its name.

    Classes are not in order in the outer tar, nor images in the inner ones, as in the original.
    """
    images, inner = {}, {}
    for label in reversed(range(classes)):
        wnid = imagenet.wnids()[label * 7]
        names = [f'{wnid}_{number}.JPEG' for number in (10026, 9, 1978, 2)[:train]]
        members = {name: jpeg(100 * label + place) for place, name in enumerate(names)}
        images |= members
        inner[f'{wnid}.tar'] = tar(members)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / imagenet.TRAIN_TAR).write_bytes(tar(inner))
    test = {f'ILSVRC2012_val_{number:08d}.JPEG': jpeg(9000 + number) for number in range(validation, 0, -1)}
    (folder / imagenet.VALIDATION_TAR).write_bytes(tar(test))
    return images | test


def unpacked(tars: Path, folder: Path) -> None:
    """Unpacks the two tars into train/<wnid>/ and val/."""

    def write(archive: tarfile.TarFile, into: Path) -> None:
        into.mkdir(parents=True)
        for member in archive:
            (into / member.name).write_bytes(archive.extractfile(member).read())

    with tarfile.open(tars / imagenet.TRAIN_TAR) as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                write(inner, folder / 'train' / Path(member.name).stem)
    with tarfile.open(tars / imagenet.VALIDATION_TAR) as archive:
        write(archive, folder / 'val')
