"""Reading and writing weights: what libraries wrote comes back exactly, and nothing hostile gets through."""

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import flax.linen as nn
import h5py
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from cvresearch.base.errors import UserError
from cvresearch.inspect import cost
from cvresearch.interop import conversion, weight_files
from cvresearch.models import registry
from cvresearch.models.variant import Reference, Variant
from cvresearch.nn.conv import Conv
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.stacked import with_stacked

DATA = Path(__file__).parent / 'data'


def eighths(*shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) / 8


CHECKPOINT = {
    'conv.weight': eighths(2, 3, 1, 2),
    'every_other.weight': eighths(4, 6)[:, ::2],
    'turned.weight': eighths(4, 6).T,
    'half.weight': eighths(3).astype(np.float16),
    'brain.weight': eighths(3),
    'double.weight': eighths(2).astype(np.float64),
    'bn.num_batches_tracked': np.array(7),
    'empty.weight': eighths(0, 3),
}
KERAS = {
    'conv1/kernel': eighths(1, 1, 2, 3),
    'conv1/bias': eighths(3),
    'batch_normalization/beta': eighths(3),
    'batch_normalization/moving_mean': eighths(3),
    'batch_normalization/moving_variance': eighths(3),
    'depthwise_conv2d/kernel': eighths(2, 2, 3, 1),
    'sep/depthwise_kernel': eighths(2, 2, 3, 1),
    'sep/pointwise_kernel': eighths(1, 1, 3, 1),
    'sep/bias': eighths(1),
}


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


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


def refused(path):
    """Returns the error of reading a file: one line that names it."""
    with pytest.raises(UserError) as caught:
        weight_files.read(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)
    return str(caught.value)


# What libraries write


@pytest.mark.parametrize('name', ['checkpoint.pth', 'checkpoint_legacy.pth', 'plain.npz', 'plain.safetensors'])
def test_tensors_come_back_exactly(files, name):
    assert_equal(weight_files.read(files[name]), CHECKPOINT)


@pytest.mark.parametrize('name', ['tiny.keras', 'tiny.h5', 'tiny.weights.h5'])
def test_keras_layers_are_named_and_counted_from_the_first(files, name):
    assert_equal(weight_files.read(files[name]), KERAS)


@pytest.mark.parametrize('ending', ['.pt', '.bin'])
def test_other_endings_of_pytorch(files, ending):
    path = files['checkpoint.pth'].with_suffix(ending)
    shutil.copy(files['checkpoint.pth'], path)
    assert_equal(weight_files.read(path), CHECKPOINT)


def test_layers_without_a_stored_name_are_found_by_the_configuration(files, tmp_path):
    path = tmp_path / 'old.keras'
    weights_file = tmp_path / 'model.weights.h5'
    with zipfile.ZipFile(files['tiny.keras']) as archive:
        weights_file.write_bytes(archive.read('model.weights.h5'))
        config = archive.read('config.json')
    with h5py.File(weights_file, 'a') as root:
        root['layers'].visititems(lambda _, node: node.attrs.clear())
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('config.json', config)
        archive.write(weights_file, 'model.weights.h5')
    assert_equal(weight_files.read(path), KERAS)
    assert 'does not say which layer' in refused(weights_file)


def test_names_of_older_keras(tmp_path):
    path = tmp_path / 'old.h5'
    with h5py.File(path, 'w') as root:
        root.attrs['layer_names0'] = [b'block1_conv1', b'conv_dw_1']  # of many layers, in several attributes
        root.attrs['layer_names1'] = [b'batch_normalization_9', b'conv1/bn', b'bn']
        root['conv1/bn/conv1/bn/gamma:0'] = eighths(5)
        root['bn/bn/gamma:0'] = eighths(6)
        root['block1_conv1/block1_conv1_W_1:0'] = eighths(2)
        root['block1_conv1/block1_conv1_b_1:0'] = eighths(1)
        root['conv_dw_1/conv_dw_1/depthwise_kernel:0'] = eighths(3)
        root['batch_normalization_9/batch_normalization_9_1/gamma:0'] = eighths(4)
    assert_equal(
        weight_files.read(path),
        {
            'block1_conv1/kernel': eighths(2),
            'block1_conv1/bias': eighths(1),
            'conv_dw_1/kernel': eighths(3),
            'batch_normalization/gamma': eighths(4),
            'conv1/bn/gamma': eighths(5),
            'bn/gamma': eighths(6),
        },
    )


def test_bfloat16_of_safetensors_comes_as_float32(tmp_path):
    safetensors.numpy.save_file({'a': eighths(3).astype(ml_dtypes.bfloat16)}, tmp_path / 'a.safetensors')
    assert_equal(weight_files.read(tmp_path / 'a.safetensors'), {'a': eighths(3)})


# Files that are damaged, of another kind, or hostile


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


# From a file to one of our nets


class Tiny(nn.Module):
    """A net of every kind of tensor."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        x = BatchNorm(train=train, name='bn1')(Conv(4, 3, use_bias=False, name='conv1')(x))
        x = Conv(4, 3, groups=4, use_bias=False, name='sep/depthwise')(x)
        x = Conv(5, 1, name='sep/pointwise')(x)
        x = nn.relu(nn.Dense(7, name='fc')(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes, name='head')(x)


@pytest.fixture
def tiny(monkeypatch):
    """Puts a small net and its references among the variants; returns its variables for three classes."""
    facts = dict(input_shape=(8, 8, 3), num_classes=10, params=None, macs=None, paper='', evidence='')
    monkeypatch.setattr(registry, 'catalogue', lambda: {'tiny': Variant(module=Tiny, **facts)})
    references = {
        'torch/tiny': Reference(
            'tiny',
            lambda path: path.replace('/', '.'),
            flatten={'fc': (5, 8, 8)},
            ignore=(r'mask\..*',),
            published=((r'bn\.(\d)\.(.*)', r'bn\1.\2'), (r'last\.(.*)', r'head.\1')),
        ),
        'torch/tiny_conv': Reference(
            'tiny',
            lambda path: f'features.{path}',
            flatten={'fc': (5, 8, 8)},
            as_convolution=('fc|he.d',),
        ),
        'keras/Tiny': Reference('tiny', lambda path: path.replace('conv1', 'conv2d')),
    }
    monkeypatch.setattr(registry, 'references', lambda: references)
    return Tiny(3).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize('reference', ['torch/tiny', 'torch/tiny_conv', 'keras/Tiny'])
@pytest.mark.parametrize('ending', ['.npz', '.safetensors'])
def test_what_is_saved_is_loaded_and_the_classes_are_counted(tiny, tmp_path, reference, ending):
    path = tmp_path / f'tiny{ending}'
    conversion.save(path, tiny, reference)
    module, variables = conversion.load(path, reference)
    assert module.num_classes == 3
    jax.tree.map(np.testing.assert_array_equal, variables, tiny)
    assert conversion.infer(weight_files.read(path), 'tiny') == reference


def test_tensors_have_the_shapes_of_the_reference(tiny):
    torch = conversion.to_tensors(tiny, 'torch/tiny')
    assert torch['conv1.weight'].shape == (4, 3, 3, 3) and torch['head.weight'].shape == (3, 7)
    assert torch['sep.depthwise.weight'].shape == (4, 1, 3, 3) and torch['fc.weight'].shape == (7, 320)
    convolutions = conversion.to_tensors(tiny, 'torch/tiny_conv')
    assert convolutions['features.head.weight'].shape == (3, 7, 1, 1)
    np.testing.assert_array_equal(convolutions['features.fc.weight'], torch['fc.weight'].reshape(7, 5, 8, 8))
    keras = conversion.to_tensors(tiny, 'keras/Tiny')
    shapes = {name: array.shape for name, array in keras.items() if name.startswith('sep/')}
    assert shapes == {
        'sep/depthwise_kernel': (3, 3, 4, 1), 'sep/pointwise_kernel': (1, 1, 4, 5), 'sep/bias': (5,)
    }  # fmt: skip
    assert 'bn1/moving_variance' in keras and 'bn1/gamma' in keras


def test_layout_of_the_variables_cannot_be_told_from_the_tensors():
    name = 'timm/resnetv2_50'
    model = registry.build('resnetv2_50', **registry.reference(name).arguments)
    shapes = cost.shapes(with_stacked(model), (64, 64, 3))
    assert 'stage3_block1-5' in shapes['params']
    tensors = conversion.to_tensors(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), name)
    assert conversion.infer(tensors, 'resnetv2_50') == name


def test_tensors_that_no_net_needs_are_left(tiny, tmp_path):
    path = tmp_path / 'tiny.npz'
    more = {'bn1.num_batches_tracked': np.array(3), 'mask.index': eighths(2)}
    weight_files.write(path, conversion.to_tensors(tiny, 'torch/tiny') | more)
    conversion.load(path, 'torch/tiny')
    weight_files.write(path, conversion.to_tensors(tiny, 'keras/Tiny') | {'normalization/mean': eighths(3)})
    conversion.load(path, 'keras/Tiny')


def test_a_file_without_tensors_fits_no_net(tiny, tmp_path):
    weight_files.write(tmp_path / 'empty.safetensors', {})
    with pytest.raises(UserError, match='12 missing'):
        conversion.load(tmp_path / 'empty.safetensors', 'torch/tiny')


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64'])
def test_weights_of_another_precision_come_as_float32(tiny, tmp_path, dtype):
    tensors = {key: tensor.astype(dtype) for key, tensor in conversion.to_tensors(tiny, 'torch/tiny').items()}
    safetensors.numpy.save_file(tensors, tmp_path / 'tiny.safetensors')
    _, variables = conversion.load(tmp_path / 'tiny.safetensors', 'torch/tiny')
    jax.tree.map(
        lambda got, ours: np.testing.assert_array_equal(got, np.asarray(ours).astype(dtype).astype(np.float32)),
        variables,
        tiny,
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype('float32')}


def test_published_files_may_have_older_names(tiny, tmp_path):
    path = tmp_path / 'tiny.npz'
    tensors = conversion.to_tensors(tiny, 'torch/tiny')
    older = {key.replace('bn1', 'bn.1').replace('head', 'last'): tensor for key, tensor in tensors.items()}
    weight_files.write(path, older)
    module, variables = conversion.load(path, 'torch/tiny')
    assert module.num_classes == 3 and conversion.infer(older, 'tiny') == 'torch/tiny'
    jax.tree.map(np.testing.assert_array_equal, variables, tiny)
    weight_files.write(path, older | {'head.bias': eighths(3)})
    with pytest.raises(UserError, match=r'left over \(last.bias\)'):
        conversion.load(path, 'torch/tiny')


def test_a_tag_changes_nothing_of_the_net(tiny, tmp_path):
    conversion.save(tmp_path / 'tiny.npz', tiny, 'torch/tiny.a1_in1k')
    jax.tree.map(np.testing.assert_array_equal, conversion.load(tmp_path / 'tiny.npz', 'torch/tiny.v2')[1], tiny)


def test_weights_of_another_net_show_the_difference(tiny, tmp_path):
    path = tmp_path / 'tiny.npz'
    tensors = conversion.to_tensors(tiny, 'torch/tiny')
    tensors['extra.weight'] = tensors.pop('conv1.weight')
    tensors['sep.pointwise.bias'] = eighths(6)
    weight_files.write(path, tensors)
    with pytest.raises(UserError) as caught:
        conversion.load(path, 'torch/tiny')
    for part in (str(path), 'missing (conv1.weight)', 'left over (extra.weight)', 'sep.pointwise.bias [6]', '[5]'):
        assert part in str(caught.value)
    with pytest.raises(UserError, match='do not fit torch/tiny'):
        conversion.infer(tensors, 'tiny')


def test_a_number_of_classes_that_is_asked_for_counts(tiny, tmp_path):
    path = tmp_path / 'tiny.npz'
    conversion.save(path, tiny, 'torch/tiny')
    with pytest.raises(UserError, match=r'head.bias \[3\] for params/head/bias \[10\]'):
        conversion.load(path, 'torch/tiny', num_classes=10)


def test_references_with_equal_names_must_be_chosen(tiny, monkeypatch):
    references = registry.references()
    monkeypatch.setattr(registry, 'references', lambda: references | {'other/tiny': references['torch/tiny']})
    with pytest.raises(UserError, match='torch/tiny or of other/tiny'):
        conversion.infer(conversion.to_tensors(tiny, 'torch/tiny'), 'tiny')
    monkeypatch.setattr(registry, 'references', dict)
    with pytest.raises(UserError, match='no library'):
        conversion.infer({}, 'tiny')


def test_a_misspelt_reference_is_said_before_the_file_is_read(tiny):
    with pytest.raises(UserError, match='torch/tiny'):
        conversion.load('missing.npz', 'torch/tini')


def test_configurations_of_keras_are_only_read(files, tmp_path):
    """A layer that would run code when built is a name like any other."""
    path = tmp_path / 'lambda.keras'
    with zipfile.ZipFile(files['tiny.keras']) as old, zipfile.ZipFile(path, 'w') as new:
        config = json.loads(old.read('config.json'))
        config['config']['layers'].append({'class_name': 'Lambda', 'name': 'run', 'config': {'function': 'os.mkdir'}})
        new.writestr('config.json', json.dumps(config))
        new.writestr('model.weights.h5', old.read('model.weights.h5'))
    assert_equal(weight_files.read(path), KERAS)


def test_h5_is_laid_out_as_keras_2_did(tmp_path):
    """Keras assigns a layer's weights in the order of `weight_names`. That it takes them: peers/strict_loads.py."""
    names = [
        'bn/moving_variance',
        'bn/beta',
        'a_separable/bias',
        'bn/gamma',
        'a_separable/pointwise_kernel',
        'bn/moving_mean',
        'a_separable/depthwise_kernel',
    ]
    tensors = {name: np.full((2, 3), number, np.float32) for number, name in enumerate(names)}
    weight_files.write(tmp_path / 'net.h5', tensors)
    with h5py.File(tmp_path / 'net.h5') as file:
        assert {name.decode() for name in file.attrs['layer_names']} == {'bn', 'a_separable'}
        assert [name.decode() for name in file['bn'].attrs['weight_names']] == [
            f'bn/{name}:0' for name in ('gamma', 'beta', 'moving_mean', 'moving_variance')
        ]
        assert file['a_separable'].attrs['weight_names'][0] == b'a_separable/depthwise_kernel:0'
    assert_equal(weight_files.read(tmp_path / 'net.h5'), tensors)


def test_names_of_many_layers_are_several_attributes(tmp_path):
    tensors = {f'{"x" * 90}{number}/kernel': np.zeros(1, np.float32) for number in range(1500)}
    weight_files.write(tmp_path / 'net.h5', tensors)
    with h5py.File(tmp_path / 'net.h5') as file:
        assert set(file.attrs) >= {'layer_names0', 'layer_names1'} and 'layer_names' not in file.attrs
    assert_equal(weight_files.read(tmp_path / 'net.h5'), tensors)
