"""Files of weights that are damaged, of another kind, or hostile: refused in one line, and nothing gets through."""

import io
import os
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.interop import weight_files
from tests.interop.tensors import assert_equal, eighths, refused


def test_every_cut_off_file_is_refused(files, tmp_path):
    for path in files.values():
        whole = path.read_bytes()
        for length in {0, 1, 3, 8, 64, 200, *(len(whole) * n // 10 for n in range(1, 10)), len(whole) - 1}:
            cut = tmp_path / f'cut_{path.name}'
            cut.write_bytes(whole[:length])
            refused(cut)


@pytest.mark.parametrize('ending', ['.safetensors', '.pth', '.npz', '.h5', '.keras', '.index.json', ''])
@pytest.mark.parametrize('content', [b'', b'hello, world\n', b'\x89PNG\r\n\x1a\n' + bytes(64), bytes(512)])
def test_a_file_of_another_kind_is_refused(tmp_path, ending, content):
    path = tmp_path / f'other{ending}'
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize('ending', ['.pth', '.npz', '.keras'])
def test_a_zip_archive_of_something_else_is_refused(tmp_path, ending):
    path = tmp_path / f'other{ending}'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('notes.txt', 'hello')
    refused(path)


def test_a_missing_file_and_an_unknown_ending_are_said(tmp_path):
    refused(tmp_path / 'missing.npz')
    refused(tmp_path)
    with pytest.raises(UserError, match=r'none of .safetensors, .npz'):
        weight_files.write(tmp_path / 'weights.bin', {})
    with pytest.raises(UserError, match='cannot write'):
        weight_files.write(tmp_path / 'missing' / 'weights.npz', {'a': eighths(1)})


class Runs:
    """Pickles to a call of os.mkdir."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def archive_of(path, program, records=()):
    """Writes a zip archive as torch.save does, around a pickle's instructions."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', program)
        for key, record in dict(records).items():
            archive.writestr(f'archive/data/{key}', record)
    return path


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('layout', ['zip', 'bare'])
def test_a_pickle_that_runs_code_is_refused_by_name_and_not_run(tmp_path, protocol, layout):
    marker = tmp_path / 'was_run'
    program = pickle.dumps({'state_dict': {'a': Runs(marker)}}, protocol)
    path = tmp_path / 'hostile.pth'
    path.write_bytes(program) if layout == 'bare' else archive_of(path, program)
    named = f'{os.mkdir.__module__}.mkdir' in refused(path)
    assert named or (layout == 'bare' and protocol < 2)  # which torch.save never writes: no format known here
    assert not marker.exists()


def text(word):
    return b'X' + struct.pack('<I', len(word)) + word.encode()


def number(value):
    return b'J' + struct.pack('<i', value)


def state_dict(*arguments, tail=b'\x89)'):
    """A pickle of {'w': a tensor over the storage '0' of 4 float32}, with its offset, shape and strides."""
    storage = b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu') + number(4) + b'tQ'
    call = b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + b''.join(arguments) + tail + b'tR'
    return b'\x80\x02}' + text('w') + call + b's.'


WHOLE = (number(0), number(2) + number(2) + b'\x86', number(2) + number(1) + b'\x86')


def test_the_hand_written_pickle_is_right(tmp_path):
    path = archive_of(tmp_path / 'good.pth', state_dict(*WHOLE), {'0': eighths(4).tobytes()})
    assert_equal(weight_files.read(path), {'w': eighths(2, 2)})


@pytest.mark.parametrize('wrappers', [('model',), ('state_dict_ema',), ('model', 'state_dict')])
@pytest.mark.parametrize('prefix', ['module.', 'module._orig_mod.', '_orig_mod.module.'])
def test_state_dicts_are_found_in_checkpoints(tmp_path, wrappers, prefix):
    program = state_dict(*WHOLE).replace(text('w'), text(f'{prefix}w'))
    for wrapper in wrappers:
        program = b'\x80\x02}' + text('epoch') + number(3) + b's' + text(wrapper) + program[2:-1] + b's.'
    path = archive_of(tmp_path / 'checkpoint.pth', program, {'0': eighths(4).tobytes()})
    assert_equal(weight_files.read(path), {'w': eighths(2, 2)})


@pytest.mark.parametrize(
    'arguments',
    [
        (number(1), *WHOLE[1:]),  # past the end
        (number(-1), *WHOLE[1:]),
        (WHOLE[0], number(2) + number(3) + b'\x86', WHOLE[2]),
        (WHOLE[0], number(2**30) + number(2**30) + b'\x86', number(0) + number(0) + b'\x86'),  # 4 EB of one number
        (WHOLE[0], WHOLE[1], number(-2) + number(1) + b'\x86'),
        (WHOLE[0], number(4) + b'\x85', WHOLE[2]),
        (WHOLE[0], text('ab') + number(2**30) + b'\x86', WHOLE[2]),  # a text times a number is a long text
        (text('0'), *WHOLE[1:]),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, arguments):
    refused(archive_of(tmp_path / 'hostile.pth', state_dict(*arguments), {'0': eighths(4).tobytes()}))


def test_a_storage_that_is_short_or_missing_is_refused(tmp_path):
    refused(archive_of(tmp_path / 'short.pth', state_dict(*WHOLE), {'0': eighths(3).tobytes()}))
    refused(archive_of(tmp_path / 'missing.pth', state_dict(*WHOLE)))


@pytest.mark.parametrize(
    'program',
    [
        b'\x80\x02}.',  # nothing in it
        b'\x80\x02]' + b'.',  # a list
        b'\x80\x02}' + text('w') + number(1) + b's.',  # a number for a tensor
        b'\x80\x02}' + text('model') + b'h\x00s.',  # reads a memory that was not written
        b'\x80\x02}q\x00' + text('model') + b'h\x00s.',  # holds itself
        b'\x80\x02}' + b')' + b'\x85' * 500_000 + number(1) + b's.',  # a key that is too deep to be hashed
        b'\x80\x02ccollections\nOrderedDict\n(](' + b')' + b'\x85' * 500_000 + number(1) + b'\x86etR.',
        b'\x80\x02ccollections\nOrderedDict\n}' + text('__setstate__') + number(1) + b'sb.',  # changes a class
        b'\x80\x02ccollections\nOrderedDict\n)\x81}' + text('x') + b'\x82\x01sb.',  # a registered extension
        b'\x80\x02' + number(1) + text('x') + b'\x86Q.',  # refers to no storage
        b'\x80\x02' + text('module') + b'\x85Q.',
        b'\x80\x02r\xff\xff\xff\x7f.',  # writes a far place of an empty memory
        b'\x80\x04\x8e' + struct.pack('<Q', 2**62) + b'abc.',  # 4 EiB of bytes
        b'\x80\x02' + b'(' * 100_000 + b'.',
        b'\x80\x02N.',
    ],
)
def test_odd_pickles_are_refused(tmp_path, program):
    refused(archive_of(tmp_path / 'odd.pth', program))
    bare = tmp_path / 'bare.pth'
    bare.write_bytes(program)
    refused(bare)


def test_objects_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.array([Runs(tmp_path / 'was_run')], object))
    refused(tmp_path / 'a.npz')
    assert not (tmp_path / 'was_run').exists()


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'bomb.npz', 'w', zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {'descr': '|u1', 'fortran_order': False, 'shape': (2**27,)})
        archive.writestr('a.npy', header.getvalue() + bytes(2**27))
    assert 'unpack' in refused(tmp_path / 'bomb.npz')
    with h5py.File(tmp_path / 'bomb.h5', 'w') as root:
        root.attrs['layer_names'] = [b'conv1']
        root.create_dataset('conv1/kernel', (2**40,), 'f4', chunks=(1024,))
    assert 'unpack' in refused(tmp_path / 'bomb.h5')


def test_hdf5_cannot_reach_into_other_files(tmp_path):
    with h5py.File(tmp_path / 'secret.h5', 'w') as root:
        root['a'] = eighths(2)
    (tmp_path / 'secret.bin').write_bytes(eighths(2).tobytes())
    for name in ('external', 'link', 'virtual'):
        with h5py.File(tmp_path / f'{name}.h5', 'w') as root:
            root.attrs['layer_names'] = [b'conv1']
            layer = root.create_group('conv1')
            if name == 'external':
                layer.create_dataset('kernel', (2,), 'f4', external=[(str(tmp_path / 'secret.bin'), 0, 8)])
            elif name == 'link':
                layer['kernel'] = h5py.ExternalLink('secret.h5', '/a')
            else:
                layout = h5py.VirtualLayout((2,), 'f4')
                layout[:] = h5py.VirtualSource(tmp_path / 'secret.h5', 'a', (2,))
                layer.create_virtual_dataset('kernel', layout)
        refused(tmp_path / f'{name}.h5')
