"""Data in buckets that are read in place, beside the same on the disk; a bucket in memory fails where it is told to."""

import pickle

import numpy as np
import pytest

from cvresearch.base import buckets
from cvresearch.base.errors import RunError, UserError
from cvresearch.data import files, identity, locations, prepare, remote, sources
from tests.data.photographs import ilsvrc, jpeg, unpacked
from tests.data.test_mirror import Bucket

KNOBS = {'crop': {'name': 'resize', 'size': 8}}
TRANSFORM = {'train': KNOBS, 'eval': KNOBS}


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    made = Bucket()
    monkeypatch.setattr(buckets, 'filesystem', lambda scheme: made)
    monkeypatch.setattr(buckets, 'PAUSE_SECONDS', 0.0001)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return made


def copied(bucket, folder, to):
    bucket.put_all(
        {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob('*') if file.is_file()}, to
    )


def pets(folder):
    for number, name in enumerate(
        f'{split}/{kind}/{n}.jpg' for split in ('train', 'test') for kind in 'ab' for n in '12'
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))
    (folder / 'train/a/.hidden.jpg').write_bytes(b'x')
    (folder / 'readme.txt').write_text('x')


def shown(source):
    """Returns all that a net is shown, and what a run notes of its data."""
    parts = {
        name: split.take(np.arange(len(split)), np.zeros(len(split), np.uint64))
        for name, split in source.splits.items()
    }
    return {name: (images.tolist(), labels.tolist()) for name, (images, labels) in parts.items()}, identity.of(source)


@pytest.mark.parametrize('form', ['folder', 'tars', 'unpacked'])
def test_what_is_read_in_place_is_what_a_disk_has(form, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, 'PIECE', 700)  # headers and images lie in several pieces
    disk, name = tmp_path / 'disk', 'image_folder' if form == 'folder' else 'imagenet'
    if form == 'folder':
        pets(disk)
    else:
        ilsvrc(disk if form == 'tars' else tmp_path / 'tars')
    if form == 'unpacked':
        unpacked(tmp_path / 'tars', disk)
    copied(bucket, disk, 'lab/data')
    there, here = (
        sources.load({'name': name, 'root': root}, transform=TRANSFORM) for root in ('s3://lab/data', str(disk))
    )
    assert shown(there) == shown(here) and there.notes == here.notes
    elsewhere = pickle.loads(pickle.dumps(there.splits['train'].encoded))  # as for another process that decodes
    assert elsewhere[1].image == there.splits['train'][1].image


def test_the_headers_of_a_tar_are_read_once_a_machine(bucket, tmp_path):
    ilsvrc(tmp_path / 'disk')
    copied(bucket, tmp_path / 'disk', 'lab/data')
    first = sources.load({'name': 'imagenet', 'root': 'gs://lab/data'}, transform=TRANSFORM)
    bucket.asked.clear()
    again = sources.load({'name': 'imagenet', 'root': 'gs://lab/data'}, transform=TRANSFORM)
    assert not bucket.asked and identity.of(first) == identity.of(again)
    again.splits['test'].take(np.array([0]))
    assert len(bucket.asked) == 1


def test_a_network_that_fails_is_no_damaged_image(bucket, tmp_path):
    pets(tmp_path)
    copied(bucket, tmp_path, 'lab/pets')
    source = sources.load({'name': 'image_folder', 'root': 's3://lab/pets', 'most_damaged': 1.0}, transform=TRANSFORM)

    def short(data):
        return data[:10]

    whole = source.splits['train'].take(np.arange(4))[0]
    bucket.spoil[:] = [short, short]
    assert np.array_equal(source.splits['train'].take(np.arange(4))[0], whole)  # asked for again
    bucket.spoil[:] = [short] * 1000
    with pytest.raises(RunError, match=r's3://lab/pets/train/./.\.jpg could not be read \(OSError: 10 bytes came of'):
        source.splits['train'].take(np.arange(4))
    assert source.splits['train'].damage.found == {}


def test_a_bucket_is_prepared_as_a_folder_is(bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pets(tmp_path / 'pets')
    (tmp_path / 'pets/train/a/bad.jpg').write_bytes(b'no image')
    copied(bucket, tmp_path / 'pets', 'lab/pets')
    codes = [prepare.main([folder, '--format', 'json']) for folder in ('pets', 'gs://lab/pets')]
    here, there = capsys.readouterr().out.split('\n}\n')[:2]
    assert codes[0] == codes[1] == 1 and here == there and 'bad.jpg' in here


@pytest.mark.parametrize(
    ('spec', 'said'),
    [
        ({'name': 'image_folder', 'root': 's3://lab/none'}, 'which cannot be listed (FileNotFoundError'),
        ({'name': 'imagenet', 'root': 'gs://lab/pets'}, "the data of 'imagenet' is not on this machine"),
        ({'name': 'mnist', 'root': 'gs://lab/pets'}, 'not read in place; set config.data.cache to a folder'),
        ({'name': 'tfds', 'data_dir': 'gs://lab/pets'}, 'config.data.data_dir is'),
        ({'name': 'image_folder', 'list': 'x.csv', 'root': 'gs://lab/pets'}, 'set config.data.cache'),
    ],
)  # fmt: skip
def test_what_is_not_there_or_not_read_in_place_is_one_line(spec, said, bucket, tmp_path):
    pets(tmp_path)
    copied(bucket, tmp_path, 'lab/pets')
    with pytest.raises(UserError) as caught:
        sources.load(spec, transform=TRANSFORM)
    assert said in str(caught.value)


def test_a_tar_in_a_bucket_that_ends_early_is_told(bucket, tmp_path):
    ilsvrc(tmp_path)
    path = tmp_path / 'ILSVRC2012_img_train.tar'
    path.write_bytes(path.read_bytes()[:9000])
    bucket.put_all({'a.tar': path.read_bytes()}, 'lab/tars')
    here, there = files.list_tar(path), files.list_tar(locations.place('s3://lab/tars') / 'a.tar')
    assert there.names.tolist() == here.names.tolist() and there.sizes.tolist() == here.sizes.tolist()
    assert len(there.cut) == len(here.cut) > 0
