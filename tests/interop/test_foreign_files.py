"""Files that are no weights say what they are; Keras's weights in several files; numbers that a tensor repeats."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import h5py
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.interop import weight_files
from tests.interop.torch_saved import Tensor, save


def read(path):
    """Returns the arrays of a file and what was said."""
    notes = []
    return weight_files.read(path, notes.append), notes


NPY = io.BytesIO()
np.save(NPY, np.ones(3))
CONTENTS = {
    'empty': b'',
    'text, not weights': b'Entry not found\n',
    'zeros alone': bytes(600),
    'a web page': b'\n<!DOCTYPE html>\n<html><title>404</title></html>',
    'a web page, not': b'<HTML>',
    "XML, not weights: '<?xml": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    'git lfs pull': b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n',
    'compressed (gzip)': gzip.compress(b'weights'),
    'compressed (bzip2)': bz2.compress(b'weights'),
    'compressed (xz)': lzma.compress(b'weights'),
    'numpy.savez': NPY.getvalue(),
    'GGUF': b'GGUF\x03\0\0\0',
    'TensorFlow Lite': b'\x1c\0\0\0TFL3\x14\0',
    'ONNX': b'\x08\x07\x12\x07pytorch\x1a\x032.0',
    '{"error": "Repository not found"}': b'{"error": "Repository not found"}',
    'no format known here': b'\xfe\xed\xfa\xce',
}


@pytest.mark.parametrize('words', CONTENTS)
@pytest.mark.parametrize('name', ['net.pth', 'net.safetensors', 'net'])
def test_what_is_no_weights_says_what_it_is(tmp_path, words, name):
    (tmp_path / name).write_bytes(CONTENTS[words])
    with pytest.raises(UserError) as caught:
        read(tmp_path / name)
    assert words in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        (['a/net.pth'], "'a/net.pth' in it; unpack"),
        (['n/archive_format', 'n/data/net.pt'], 'torch.export'),
        (['a'], 'neither'),
    ],
)
def test_a_zip_of_something_else_says_what_it_is(tmp_path, names, words):
    with zipfile.ZipFile(tmp_path / 'net.pth', 'w') as archive:
        for name in names:
            archive.writestr(name, 'text')
    with pytest.raises(UserError, match=words):
        read(tmp_path / 'net.pth')


@pytest.mark.parametrize(('file', 'words'), [('.metadata', 'distributed checkpoint'), ('checkpoint', 'TensorFlow')])
def test_a_folder_of_another_format_says_what_it_is(tmp_path, file, words):
    (tmp_path / file).write_bytes(b'')
    with pytest.raises(UserError, match=words):
        read(tmp_path)


def test_an_index_is_one_by_its_content_and_none_leads_to_another(tmp_path):
    save(tmp_path / 'a.bin', {'a': Tensor(np.float32([1, 2]))})
    (tmp_path / 'index.pth').write_text(json.dumps({'weight_map': {'a': 'a.bin'}}))
    assert read(tmp_path / 'index.pth')[0]['a'].tolist() == [1, 2]
    (tmp_path / 'again.json').write_text(json.dumps({'weight_map': {'a': 'index.pth'}}))
    with pytest.raises(UserError, match=r'index\.pth is an index too'):
        read(tmp_path / 'again.json')


class Expanded(Tensor):
    """One number as torch.Tensor.expand repeats it: with strides of 0."""

    def __init__(self, number, shape):
        super().__init__(np.float32([number]))
        self.shape = shape

    def __reduce__(self):
        function, (storage, offset, _, _, *rest) = super().__reduce__()
        return function, (storage, offset, self.shape, (0,) * len(self.shape), *rest)


def test_numbers_that_a_tensor_repeats_are_repeated_and_not_without_end(tmp_path):
    assert read(save(tmp_path / 'a.pth', {'a.b': Expanded(3, (2, 4))}))[0]['a.b'].tolist() == [[3] * 4] * 2
    with pytest.raises(UserError, match='would unpack'):
        read(save(tmp_path / 'bomb.pth', {'a.b': Expanded(3, (2**20, 2**20))}))


# Keras


def keras_shards(folder):
    """Writes two files as Keras 3.15 does where a layer does not fit into the first: its name is there alone."""
    arrays = {'conv2d/vars/0': np.ones((1, 1, 3, 2), 'f4'), 'conv2d/vars/1': np.float32([1, 2]),
              'conv2d_1/vars/0': np.full((1, 1, 2, 2), 3, 'f4'), 'conv2d_1/vars/1': np.float32([4, 5])}  # fmt: skip
    for number, names in enumerate([list(arrays)[:3], list(arrays)[3:]]):
        with h5py.File(folder / f'net_{number:05}.weights.h5', 'w') as root:
            for name in names:
                root[f'layers/{name}'] = arrays[name]
            if number == 0:
                for place, layer in (('conv2d', 'conv2d_7'), ('conv2d_1', 'conv2d_8')):
                    root[f'layers/{place}/vars'].attrs['name'] = layer
    files = [f'net_{number:05}.weights.h5' for number in range(2)]
    (folder / 'net.weights.json').write_text(
        json.dumps(
            {
                'metadata': {'total_size': 1.0},
                'weight_map': {'/layers/conv2d/vars': files[:1], '/layers/conv2d_1/vars': files},
            }
        )
    )
    return arrays


@pytest.mark.parametrize('name', ['net.weights.json', '.', 'net_00001.weights.h5'])
def test_weights_of_keras_in_several_files(tmp_path, name):
    arrays = keras_shards(tmp_path)
    got, _ = read(tmp_path / name)
    # Layers that have only Keras's numbers are counted from the first, over all files.
    names = ('conv2d/kernel', 'conv2d/bias', 'conv2d_1/kernel', 'conv2d_1/bias')
    assert sorted(got) == sorted(names)
    for name, array in zip(names, arrays.values(), strict=True):
        np.testing.assert_array_equal(got[name], array)


def test_a_missing_or_doubled_file_of_keras_is_refused(tmp_path):
    keras_shards(tmp_path)
    second = tmp_path / 'net_00001.weights.h5'
    second.write_bytes((tmp_path / 'net_00000.weights.h5').read_bytes())
    with pytest.raises(UserError, match='two of its files hold'):
        read(tmp_path / 'net.weights.json')
    second.unlink()
    with pytest.raises(UserError, match=r'net_00001\.weights\.h5 is not there'):
        read(tmp_path / 'net.weights.json')


@pytest.mark.parametrize('averages', [True, False])
@pytest.mark.parametrize('ending', ['.keras', '.h5'])
def test_averages_that_an_optimizer_of_keras_keeps_are_said_and_not_taken(tmp_path, averages, ending):
    optimizer, file = {'class_name': 'SGD', 'config': {'use_ema': averages}}, io.BytesIO()
    with h5py.File(file, 'w') as root:
        root['layers/dense/vars/0'] = np.ones((2, 2), 'f4')
        root['layers/dense/vars'].attrs['name'] = 'fc'
        root.attrs['training_config'] = json.dumps({'optimizer_config': optimizer})
    path = tmp_path / f'net{ending}'
    path.write_bytes(file.getvalue())
    if ending == '.keras':
        with zipfile.ZipFile(path, 'w') as archive:
            config = {'config': {'layers': []}, 'compile_config': {'optimizer': optimizer}}
            archive.writestr('config.json', json.dumps(config))
            archive.writestr('model.weights.h5', file.getvalue())
    got, notes = read(path)
    assert got['fc/kernel'].tolist() == [[1, 1], [1, 1]]
    assert ['averages of the weights' in note for note in notes] == [True] * averages
