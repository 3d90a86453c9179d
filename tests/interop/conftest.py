"""Files of weights, one of each format."""

import gzip
import shutil
import zipfile

import pytest

from cvresearch.interop import weight_files
from tests.interop.tensors import CHECKPOINT, DATA


@pytest.fixture
def files(tmp_path):
    """The files of `data/` and one of each format that we write, by ending."""
    for name in ('checkpoint.pth', 'checkpoint_legacy.pth'):
        shutil.copy(DATA / name, tmp_path)
    for name in ('tiny.keras', 'tiny.h5'):
        (tmp_path / name).write_bytes(gzip.decompress((DATA / f'{name}.gz').read_bytes()))
    with zipfile.ZipFile(tmp_path / 'tiny.keras') as archive:
        (tmp_path / 'tiny.weights.h5').write_bytes(archive.read('model.weights.h5'))
    for name in ('plain.npz', 'plain.safetensors'):
        weight_files.write(tmp_path / name, CHECKPOINT)
    return {path.name: path for path in sorted(tmp_path.iterdir())}
