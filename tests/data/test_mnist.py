"""MNIST's four files, where people have them: as LeCun gives them, and as torchvision lays them."""

import gzip
import hashlib

import numpy as np
import pytest

from cvresearch.data import idx

DIGITS = np.arange(2 * 28 * 28).astype(np.uint8)
IMAGES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + DIGITS.tobytes()
LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3])


@pytest.fixture(autouse=True)
def _sums(monkeypatch):
    sums = tuple(hashlib.sha256(data).hexdigest() for data in (IMAGES, LABELS, IMAGES, LABELS))
    monkeypatch.setitem(idx.SUMS, 'MNIST', sums)


def lay(folder, packed=False):
    folder.mkdir(parents=True)
    for stem in ('train', 't10k'):
        for name, data in ((f'{stem}-images-idx3-ubyte', IMAGES), (f'{stem}-labels-idx1-ubyte', LABELS)):
            (folder / (f'{name}.gz' if packed else name)).write_bytes(gzip.compress(data) if packed else data)


def check(source):
    assert source.splits['train'].labels.tolist() == [7, 3]
    np.testing.assert_array_equal(source.splits['test'].images.reshape(-1), DIGITS)


@pytest.mark.parametrize('below', ['.', 'raw', 'MNIST/raw'])
@pytest.mark.parametrize('packed', [False, True])
def test_files_are_found_in_a_folder_and_in_torchvisions_root(tmp_path, below, packed):
    lay(tmp_path / 'root' / below, packed)
    check(idx.mnist(str(tmp_path / 'root')))


def test_torchvisions_folder_is_found_without_a_root(tmp_path, monkeypatch):
    lay(tmp_path / 'MNIST/raw')
    monkeypatch.setenv('CVRESEARCH_DATA', str(tmp_path))
    check(idx.mnist())


def test_files_beside_the_four_are_passed_over(tmp_path):
    lay(tmp_path / 'root')
    (tmp_path / 'root/train-images-idx3-ubyte.gz').write_bytes(b'half a download')
    (tmp_path / 'root/train-images-idx3-ubyte-old').write_bytes(b'x')
    check(idx.mnist(str(tmp_path / 'root')))
