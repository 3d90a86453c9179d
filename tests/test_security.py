"""Files of strangers: nothing in them is run, nothing beside them is written or read, what they unpack to is bounded.

What is tested elsewhere: weights (tests/interop/test_hostile_files.py) and single images (tests/data/test_damage.py).
"""

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from cvresearch.base import records
from cvresearch.base.errors import UserError
from cvresearch.data import decode, files, idx, preprocessing, small
from cvresearch.evaluation.predictions import Predictions
from cvresearch.interop import archives, keras_files
from tests.data.photographs import jpeg


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.mark.parametrize('where', ['folder', 'archive'])
def test_a_pickle_among_the_data_is_not_run(tmp_path, where):
    evil = pickle.dumps({b'data': Runs(tmp_path / 'was_run'), b'labels': []}, protocol=2)
    if where == 'folder':
        (tmp_path / 'cifar-10-batches-py').mkdir()
        (tmp_path / 'cifar-10-batches-py' / 'data_batch_1').write_bytes(evil)
        for name in ('data_batch_2', 'data_batch_3', 'data_batch_4', 'data_batch_5', 'test_batch'):
            (tmp_path / 'cifar-10-batches-py' / name).write_bytes(evil)
    else:
        with tarfile.open(tmp_path / 'cifar-10-python.tar.gz', 'w:gz') as tar:
            for name in ('data_batch_1', 'data_batch_2', 'data_batch_3', 'data_batch_4', 'data_batch_5', 'test_batch'):
                _add(tar, f'cifar-10-batches-py/{name}', evil)
    with pytest.raises(UserError, match=r'asks for \w+\.system; it is not the original'):
        small.cifar10(str(tmp_path))
    pickle.loads(evil)  # it would have
    assert (tmp_path / 'was_run').exists()


def test_a_pickle_among_predictions_is_not_run(tmp_path):
    np.savez(tmp_path / 'a.npz', logits=np.array([Runs(tmp_path / 'was_run')], object), labels=0, record=0)
    with pytest.raises(UserError, match='holds no predictions'):
        Predictions.load(tmp_path / 'a.npz')
    assert not (tmp_path / 'was_run').exists()


def _add(tar, name, data=b'', **fields):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def test_a_tar_reaches_nothing_outside_and_nothing_of_it_is_written(tmp_path):
    (tmp_path / 'secret.jpg').write_bytes(b'secret')
    folder = tmp_path / 'in'
    folder.mkdir()
    with tarfile.open(folder / 'images.tar', 'w') as tar:
        _add(tar, '../outside.jpg', jpeg(1))
        _add(tar, '/absolute.jpg', jpeg(2))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            _add(tar, f'link{kind.decode()}.jpg', type=kind, linkname=str(tmp_path / 'secret.jpg'))
        _add(tar, 'device.jpg', type=tarfile.CHRTYPE, devmajor=1, devminor=5)
        _add(tar, 'pipe.jpg', type=tarfile.FIFOTYPE)
    before = sorted(tmp_path.rglob('*'))
    listing = files.list_tar(folder / 'images.tar')
    assert sorted(listing.names.tolist()) == [b'absolute.jpg', b'outside.jpg']
    members = files.Members(folder / 'images.tar', listing.names, listing.offsets, listing.sizes, np.zeros(2, np.int32))
    assert [members[i].image for i in range(2)] == [jpeg(1), jpeg(2)]
    written = {path for path in tmp_path.rglob('*') if path not in before}
    assert all(path.is_relative_to(tmp_path / 'cache') for path in written)  # the listing, of names and places


def test_a_member_of_a_tar_is_no_longer_than_the_tar(tmp_path):
    member = tarfile.TarInfo('long.jpg')
    member.size = 1 << 50
    (tmp_path / 'a.tar').write_bytes(member.tobuf(tarfile.GNU_FORMAT) + jpeg(1))
    listing = files.list_tar(tmp_path / 'a.tar')
    assert listing.sizes.tolist() == [len(jpeg(1))]
    sparse = tarfile.TarInfo('sparse.jpg')
    sparse.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / 'b.tar').write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert not files.list_tar(tmp_path / 'b.tar').names.size


def test_bombs_among_the_data_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    for module in (idx, small):
        monkeypatch.setattr(module, 'MOST_BYTES', 1 << 16)
    zeros = bytes(1 << 20)
    for stem in ('train', 't10k'):
        for kind in ('images-idx3', 'labels-idx1'):
            (tmp_path / f'{stem}-{kind}-ubyte.gz').write_bytes(gzip.compress(b'\0\0\x08\1' + zeros))
    with pytest.raises(UserError, match='unpacks to more than 65,536 bytes'):
        idx.mnist(str(tmp_path))
    with tarfile.open(tmp_path / 'cifar-10-python.tar.gz', 'w:gz') as tar:
        _add(tar, 'cifar-10-batches-py/data_batch_1', zeros)
    with pytest.raises(UserError, match='unpacks to more than 65,536 bytes'):
        small.cifar10(str(tmp_path))

    from scipy.io import savemat

    for name in ('train', 'test'):
        savemat(tmp_path / f'{name}_32x32.mat', {'X': np.zeros((256, 256, 3, 4), np.uint8)}, do_compression=True)
    with pytest.raises(UserError, match=r'says it has images of \(256, 256, 3, 4\)'):
        small.svhn(str(tmp_path))


def test_bombs_of_two_layers_and_of_predictions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, 'ALWAYS_ALLOWED', 1 << 16)
    weights = io.BytesIO()
    with h5py.File(weights, 'w') as root:
        layer = root.create_group('layers/dense/vars')
        layer.attrs['name'] = 'dense'
        layer.create_dataset('0', (2**19,), 'u1', chunks=(2**17,), compression='gzip')  # 512 KB of nothing
        layer.create_dataset('1', data=np.zeros(2**13, np.uint8))
    with zipfile.ZipFile(tmp_path / 'a.keras', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('config.json', json.dumps({'config': {'layers': []}}))
        archive.writestr('model.weights.h5', weights.getvalue())
    # Neither layer alone is out of proportion: 10 KB of HDF5 may hold 1 MB, and 10 KB may be in any archive.
    with pytest.raises(ValueError, match='would unpack to'):
        keras_files.read_keras(tmp_path / 'a.keras')
    np.savez_compressed(tmp_path / 'b.npz', logits=np.zeros((2**17, 2), np.float32), labels=0, record=0)
    with pytest.raises(UserError, match='would unpack to'):
        Predictions.load(tmp_path / 'b.npz')


def test_only_formats_of_pictures_are_opened(tmp_path):
    postscript = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n'
    assert Image.open(io.BytesIO(postscript)).format == 'EPS'  # which Pillow gives to Ghostscript
    with pytest.raises(decode.DamagedError, match='not an image of a known format'):
        decode.header(postscript)
    (tmp_path / 'a.jpg').write_bytes(postscript)
    with pytest.raises(UserError, match='not an image of a known format'):
        preprocessing.open_image(tmp_path / 'a.jpg')


def test_a_run_card_keeps_secrets_to_itself(monkeypatch):
    monkeypatch.setenv('SOME_API_KEY', 'k3y-k3y-k3y')
    given = [
        '-m',
        'cvresearch.main',
        '--hub_token=abc',
        '--password',
        'abc',
        '--config.data.root=x/k3y-k3y-k3y/y',
        'https://me:abc@example.org/a',
        '--config.seed=1',
    ]
    assert records.without_secrets(given) == [
        '-m',
        'cvresearch.main',
        '--hub_token=***',
        '--password',
        '***',
        '--config.data.root=x/***/y',
        'https://***@example.org/a',
        '--config.seed=1',
    ]


def test_a_run_card_holds_no_environment_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv('SOME_TOKEN', 't0ken-of-the-environment')
    monkeypatch.setattr(records.sys, 'orig_argv', ['python', 'x', '--token', 'abc', 't0ken-of-the-environment'])
    records.RunCard(tmp_path)
    text = (tmp_path / 'run.json').read_text()
    assert json.loads(text)['command'] == "python x --token '***' '***'"
    assert 't0ken' not in text and os.environ['PATH'] not in text
