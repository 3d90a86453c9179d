"""Data in buckets, copied before they are read: a bucket in memory that fails, and a server of S3 if there is one."""

import hashlib
import os
import subprocess
import sys
import threading

import cv2
import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cvresearch.base import buckets
from cvresearch.base import mirror as copies
from cvresearch.base.errors import UserError
from cvresearch.data import identity, mirror, sources

KNOBS = {'crop': {'name': 'resize', 'size': 8}}
CONTENT = {f'train/{kind}/{number}.bin': os.urandom(size) for kind in 'ab' for number, size in enumerate((0, 5, 3000))}
ADDRESS = 's3://lab/photos'


class Bucket(MemoryFileSystem):
    """A bucket that tells MD5s, as S3 does, and of which the next answers can be spoilt."""

    cachable = False

    def __init__(self):
        super().__init__()
        self.store, self.pseudo_dirs = {}, ['']
        self.spoil, self.asked, self._turn = [], [], threading.Lock()

    def put_all(self, content, prefix='lab/photos'):
        for name, data in content.items():
            self.pipe(f'{prefix}/{name}', data)

    def find(self, path, **options):
        found = {}
        for key, info in super().find(path, detail=True).items():
            found[key.lstrip('/')] = info | {'ETag': f'"{hashlib.md5(super().cat_file(key)).hexdigest()}"'}
        if not found:
            raise FileNotFoundError(path)
        return found

    def cat_file(self, path, start=None, end=None, **options):
        with self._turn:
            self.asked.append((path, start))
            spoil = self.spoil.pop(0) if self.spoil else None
        data = super().cat_file(path, start=start, end=end)
        return spoil(data) if spoil else data


@pytest.fixture
def bucket(monkeypatch):
    made = Bucket()
    made.put_all(CONTENT)
    monkeypatch.setattr(buckets, 'filesystem', lambda scheme: made)
    monkeypatch.setattr(copies, 'PAUSE_SECONDS', 0.001)
    monkeypatch.setattr(copies, 'PIECE', 1000)
    return made


def held(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob('*') if file.is_file()}


def fails(data):
    raise ConnectionResetError('by peer')


def test_the_copy_is_what_the_bucket_holds_and_is_fetched_once(bucket, tmp_path):
    folder = mirror.mirrored(ADDRESS, str(tmp_path))
    assert folder == tmp_path / 's3/lab/photos' and held(folder) == CONTENT
    bucket.asked.clear()
    assert held(mirror.mirrored(f'{ADDRESS}/', str(tmp_path))) == CONTENT and bucket.asked == []


def test_changes_of_the_bucket_are_followed(bucket, tmp_path):
    folder = mirror.mirrored(ADDRESS, str(tmp_path))
    bucket.asked.clear()
    bucket.rm('lab/photos/train/a/1.bin')
    changed = {'train/b/1.bin': b'other', 'train/c/9.bin': b'new'}  # the first has as many bytes as before
    bucket.put_all(changed)
    mirror.mirrored(ADDRESS, str(tmp_path))
    expected = {name: data for name, data in (CONTENT | changed).items() if name != 'train/a/1.bin'}
    assert held(folder) == expected
    assert {path.rpartition('photos/')[2] for path, _ in bucket.asked} == {*changed}


# Others each time: bytes that come twice alike are taken, since of some objects the mark is no MD5.
@pytest.mark.parametrize('spoil', [fails, lambda data: data[:-1], lambda data: os.urandom(len(data))])
def test_answers_that_break_come_short_or_are_others_are_asked_for_again(spoil, bucket, tmp_path):
    bucket.spoil = [spoil, spoil, spoil]
    assert held(mirror.mirrored(ADDRESS, str(tmp_path))) == CONTENT


def test_what_was_interrupted_goes_on_within_a_file(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, 'THREADS', 1)
    monkeypatch.setattr(copies, 'TRIES', 1)
    bucket.put_all({'0.tar': os.urandom(2500)})
    bucket.spoil = [None, None, fails]  # the third piece of the first file
    with pytest.raises(UserError, match=r"7 files .* missing: '0.tar' .*ConnectionResetError.* goes on from here"):
        mirror.mirrored(ADDRESS, str(tmp_path))
    assert '0.tar' not in held(tmp_path / 's3/lab/photos')  # nothing that is half lies under its name
    bucket.asked.clear()
    mirror.mirrored(ADDRESS, str(tmp_path))
    assert [start for path, start in bucket.asked if path.endswith('0.tar')] == [2000]
    assert (tmp_path / 's3/lab/photos/0.tar').read_bytes() == bucket.cat_file('lab/photos/0.tar')


def test_the_pieces_of_a_large_file_come_at_once_and_in_their_order(bucket, tmp_path, monkeypatch):
    content, together = {'train.tar': os.urandom(8 * 1000 + 7)}, threading.Barrier(3, timeout=10)
    bucket.put_all(content, 'lab/one')
    bucket.spoil = [lambda data: (together.wait(), data)[1]] * 3 + [None, fails]
    assert held(mirror.mirrored('s3://lab/one', str(tmp_path))) == content


def test_an_object_whose_mark_only_looks_like_an_md5_is_taken(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, '_tag', lambda info: 'a' * 32)  # encrypted by a key of KMS
    assert held(mirror.mirrored(ADDRESS, str(tmp_path))) == CONTENT


@pytest.mark.parametrize(
    ('address', 'cache', 'said'),
    [
        (ADDRESS, '', 'set config.data.cache to'),
        ('s3://other/photos', '.', 'cannot be listed (FileNotFoundError'),
        ('s3://lab/../../etc', '.', 'without ".."'),
        (ADDRESS, '/proc/cache', 'cannot be written'),
    ],
)
def test_bad_input_is_one_line(address, cache, said, bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        mirror.mirrored(address, cache)
    assert said in str(caught.value)


def test_names_that_lead_out_of_the_folder_and_disks_that_are_small(bucket, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(copies, 'ROOM', 1 << 60)
        with pytest.raises(UserError, match='larger disk'):
            mirror.mirrored(ADDRESS, str(tmp_path))
    real = bucket.find
    monkeypatch.setattr(
        bucket, 'find', lambda *path, **options: {'lab/photos/a/../../../../x': {'size': 1}, **real(*path)}
    )
    with pytest.raises(UserError, match='no name of a file'):
        mirror.mirrored(ADDRESS, str(tmp_path))


def test_a_scheme_without_its_package_says_which(monkeypatch):
    def absent(scheme, **options):
        raise ImportError('install gcsfs')

    monkeypatch.setattr(fsspec, 'filesystem', absent)
    with pytest.raises(UserError, match=r'pip install "cvresearch\[gs\]"'):
        sources.load({'name': 'imagenet', 'root': 'gs://lab/ilsvrc', 'cache': 'x'})


def photographs():
    for split, kind, number in ((s, k, n) for s in ('train', 'test') for k in ('cat', 'dog') for n in range(3)):
        image = np.random.default_rng([number, len(kind)]).integers(0, 256, (9, 10, 3), np.uint8)
        yield f'{split}/{kind}/{number}.png', cv2.imencode('.png', image)[1].tobytes()


def test_a_folder_of_images_in_a_bucket_is_the_one_on_the_disk(bucket, tmp_path):
    content = dict(photographs())
    bucket.put_all(content, 'lab/pets')
    for name, data in content.items():
        (tmp_path / 'disk' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'disk' / name).write_bytes(data)
    spec, transform = {'name': 'image_folder'}, {'train': KNOBS, 'eval': KNOBS}
    there = sources.load(spec | {'root': 's3://lab/pets', 'cache': str(tmp_path)}, transform=transform)
    here = sources.load(spec | {'root': str(tmp_path / 'disk')}, transform=transform)
    assert identity.of(there) == identity.of(here) and there.notes == here.notes


SERVER = """
import sys, os
import boto3, fsspec
from moto.server import ThreadedMotoServer
from cvresearch.data import mirror
server = ThreadedMotoServer(port=0)
server.start()
os.environ['AWS_ENDPOINT_URL'] = 'http://127.0.0.1:%d' % server.get_host_and_port()[1]
client = boto3.client('s3')
client.create_bucket(Bucket='lab')
content = {'train/%d.bin' % n: os.urandom(n * 100_000) for n in range(20)}
for name, data in content.items():
    client.put_object(Bucket='lab', Key='photos/' + name, Body=data)
folder = mirror.mirrored('s3://lab/photos', sys.argv[1])
assert {name: (folder / name).read_bytes() for name in content} == content
try:
    mirror.mirrored('s3://none/photos', sys.argv[1])
except mirror.UserError as error:
    print(error)
"""


def test_a_server_of_s3(tmp_path):
    for package in ('moto', 's3fs'):
        pytest.importorskip(package, reason=f'{package} is not installed: data in S3 are not tested against a server')
    keys = {'AWS_ACCESS_KEY_ID': 'x', 'AWS_SECRET_ACCESS_KEY': 'x', 'AWS_DEFAULT_REGION': 'us-east-1'}
    done = subprocess.run(
        [sys.executable, '-c', SERVER, str(tmp_path)], capture_output=True, text=True, env=os.environ | keys
    )
    assert done.returncode == 0, done.stderr
    assert 's3://none/photos cannot be listed (' in done.stdout
