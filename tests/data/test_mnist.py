"""MNIST's four files, where people have them: as LeCun gives them, and as torchvision lays them."""

import gzip

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import small

DIGITS = np.arange(2 * 28 * 28).astype(np.uint8)


@pytest.fixture(autouse=True)
def _any_count(monkeypatch):
    monkeypatch.setattr(small, '_check_count', lambda what, got, expected: None)


def lay(folder, packed=False):
    folder.mkdir(parents=True)
    for stem in ('train', 't10k'):
        images = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + DIGITS.tobytes()
        labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3])
        for name, data in ((f'{stem}-images-idx3-ubyte', images), (f'{stem}-labels-idx1-ubyte', labels)):
            (folder / (f'{name}.gz' if packed else name)).write_bytes(gzip.compress(data) if packed else data)


def check(source):
    assert source.splits['train'].labels.tolist() == [7, 3]
    np.testing.assert_array_equal(source.splits['test'].images.reshape(-1), DIGITS)


@pytest.mark.parametrize('below', ['.', 'raw', 'MNIST/raw'])
@pytest.mark.parametrize('packed', [False, True])
def test_files_are_found_in_a_folder_and_in_torchvisions_root(tmp_path, below, packed):
    lay(tmp_path / 'root' / below, packed)
    check(small.mnist(str(tmp_path / 'root')))


def test_torchvisions_folder_is_found_without_a_root(tmp_path, monkeypatch):
    lay(tmp_path / 'MNIST/raw')
    monkeypatch.setenv('CVRESEARCH_DATA', str(tmp_path))
    check(small.mnist())


def test_files_beside_the_four_are_passed_over(tmp_path):
    lay(tmp_path / 'root')
    (tmp_path / 'root/train-images-idx3-ubyte.gz').write_bytes(b'half a download')
    (tmp_path / 'root/train-images-idx3-ubyte-old').write_bytes(b'x')
    check(small.mnist(str(tmp_path / 'root')))


@pytest.mark.parametrize(
    'name, data',
    [
        ('train-images-idx3-ubyte', None), ('train-labels-idx1-ubyte', b''),
        ('t10k-images-idx3-ubyte', b'\0\0\x08\3\0'),
        ('t10k-labels-idx1-ubyte', bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 3])),
        ('train-labels-idx1-ubyte.gz', gzip.compress(bytes(99))[:-9]),
    ],
)  # fmt: skip
def test_file_that_is_missing_or_damaged_is_named(tmp_path, name, data):
    lay(tmp_path / 'root', packed=name.endswith('.gz'))
    (tmp_path / 'root' / name).unlink()
    if data is None:  # a name that the search of the folder takes
        name = 'train-images-idx3-ubyte.part'
    (tmp_path / 'root' / name).write_bytes(data or b'')
    with pytest.raises(UserError, match=r'download it again') as error:
        small.mnist(str(tmp_path / 'root'))
    assert name.removesuffix('.part') in str(error.value).replace('?', '-')
