"""Reading and writing weights: what libraries wrote comes back exactly."""

import json
import shutil
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from cvresearch.interop import weight_files
from tests.interop.tensors import CHECKPOINT, KERAS, assert_equal, eighths, refused


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
