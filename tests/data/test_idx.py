"""MNIST and Fashion-MNIST from their original files: content checked by sum, other sets' files named."""

import gzip
import hashlib

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import idx, sources

installed = pytest.mark.skipif(
    not idx.DEBIAN.is_dir(), reason='NOT TESTED: no Fashion-MNIST here; apt-get install dataset-fashion-mnist'
)


def idx_file(array):
    """Returns an array of bytes in MNIST's format, as yann.lecun.com describes it."""
    lengths = b''.join(length.to_bytes(4, 'big') for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.astype(np.uint8).tobytes()


def images(count, first):
    return (first + np.arange(count * 784).reshape(count, 28, 28)) % 251


def contents(first):
    """Returns the four files of a small set: 20 images to train and 10 to test, the labels from `first` on."""
    made = []
    for count in (20, 10):
        made += [idx_file(images(count, first)), idx_file((first + np.arange(count)) % 10)]
    return made


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Returns a function that writes a small stand-in for a set; the sums known are of the stand-ins."""
    made = {'MNIST': contents(0), 'Fashion-MNIST': contents(5)}
    for title, parts in made.items():
        monkeypatch.setitem(idx.SUMS, title, tuple(hashlib.sha256(part).hexdigest() for part in parts))
    monkeypatch.setattr(idx, 'DEBIAN', tmp_path / 'not installed')

    def write(title, compressed=True):
        folder = tmp_path / title
        folder.mkdir()
        for name, part in zip(idx.FILES, made[title], strict=True):
            path = folder / (f'{name}.gz' if compressed else name)
            path.write_bytes(gzip.compress(part) if compressed else part)
        return folder

    return write


@pytest.mark.parametrize('compressed', [True, False])
@pytest.mark.parametrize(('title', 'first'), [('MNIST', 0), ('Fashion-MNIST', 5)])
def test_arrays_are_what_the_files_hold(files, title, first, compressed):
    name = idx.NAMES[title]
    source = sources.load({'name': name, 'root': str(files(title, compressed))})
    for split, count in (('train', 20), ('test', 10)):
        part = source.splits[split]
        np.testing.assert_array_equal(part.images[..., 0], images(count, first))
        assert part.labels.tolist() == [(first + i) % 10 for i in range(count)]


def test_names_with_a_dot_and_packed_files_without_the_ending_are_read(files):
    folder = files('Fashion-MNIST')
    (folder / f'{idx.FILES[0]}.gz').rename(folder / 'train-images.idx3-ubyte')
    assert len(idx.fashion_mnist(str(folder)).splits['train']) == 20


def test_part_of_the_training_images_is_balanced_and_in_file_order(files):
    splits = idx.fashion_mnist(str(files('Fashion-MNIST')), train=10, image_size=14, pad=2).splits
    assert splits['train'].labels.tolist() == [(5 + i) % 10 for i in range(10)]  # the first of each class
    assert splits['train'].images.shape == (10, 18, 18, 1) and splits['test'].images.shape == (10, 18, 18, 1)
    assert not splits['train'].images[:, :2].any() and splits['train'].images[:, 2:-2].any()


def test_files_of_the_other_set_are_named_both_ways(files):
    for wrong, asked in (('MNIST', 'Fashion-MNIST'), ('Fashion-MNIST', 'MNIST')):
        with pytest.raises(UserError) as error:
            sources.load({'name': idx.NAMES[asked], 'root': str(files(wrong))})
        assert f"{wrong}'s {idx.FILES[0]}, and the data is {asked}" in str(error.value)
        assert f'--config.data.name={idx.NAMES[wrong]}' in str(error.value)


def test_a_damaged_file_is_named_with_both_sums(files):
    folder = files('Fashion-MNIST', compressed=False)
    path = folder / idx.FILES[3]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # one label
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        idx.fashion_mnist(str(folder))
    text = str(error.value)
    assert str(path) in text and hashlib.sha256(data).hexdigest() in text and idx.SUMS['Fashion-MNIST'][3] in text
    assert '\n' not in text


def test_a_file_cut_short_and_an_empty_one_are_named(files):
    folder = files('Fashion-MNIST')
    path = folder / f'{idx.FILES[2]}.gz'
    whole = path.read_bytes()
    for data, message in ((whole[:-20], 'cannot be unpacked'), (b'', 'is damaged'), (whole[:9], 'cannot be unpacked')):
        path.write_bytes(data)
        with pytest.raises(UserError, match=message) as error:
            idx.fashion_mnist(str(folder))
        assert str(path) in str(error.value)


def test_exchanged_files_are_named(files):
    folder = files('Fashion-MNIST')
    train, test = (folder / f'{idx.FILES[place]}.gz' for place in (1, 3))
    train.write_bytes(test.read_bytes())
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte under another file's name"):
        idx.fashion_mnist(str(folder))


def test_a_missing_file_is_named_and_the_package_is_said(files):
    folder = files('Fashion-MNIST')
    (folder / f'{idx.FILES[1]}.gz').rename(folder / f'{idx.FILES[1]}.part')
    with pytest.raises(UserError, match='has no file train-labels-idx1-ubyte; expected it, or'):
        idx.fashion_mnist(str(folder))
    (folder / f'{idx.FILES[1]}.part').unlink()
    with pytest.raises(UserError) as error:
        idx.fashion_mnist(str(folder))
    assert any('apt-get install dataset-fashion-mnist' in line for line in error.value.details)


@pytest.mark.parametrize('arguments', [{'train': 15}, {'train': 0}, {'train': 60_010}, {'pad': -1}, {'image_size': 0}])
def test_arguments_out_of_range_are_refused(files, arguments):
    with pytest.raises(UserError, match=f'config.data.{next(iter(arguments))} is'):
        idx.fashion_mnist(str(files('Fashion-MNIST')), **arguments)


@installed
def test_fashion_mnist_is_whole_and_has_the_published_mean_and_deviation():
    source = sources.load({'name': 'fashion_mnist'}, minival=6000)
    assert {split: len(part) for split, part in source.splits.items()} == dict(train=54_000, minival=6_000, test=10_000)
    test = source.splits['test']
    assert np.bincount(test.labels).tolist() == [1_000] * 10 and test.images.shape[1:] == (28, 28, 1)
    images, labels = source.splits['train'].base.take(np.arange(60_000))
    assert np.bincount(labels).tolist() == [6_000] * 10
    # 0.2860 and 0.3530: as everywhere in public code.
    assert [round(float(images.mean() / 255), 4), round(float(images.std() / 255), 4)] == [0.2860, 0.3530]
    assert source.facts.class_names[int(labels[0])] == 'Ankle boot'  # the first image of the set, in all tutorials


@installed
def test_held_out_images_are_training_images_of_all_classes():
    source = sources.load({'name': 'fashion_mnist'}, minival=6000)
    held, kept = source.splits['minival'], source.splits['train']
    assert not set(held.index) & set(kept.index) and len(held) + len(kept) == 60_000
    assert np.bincount(held.labels).min() > 500  # 600 a class on average
