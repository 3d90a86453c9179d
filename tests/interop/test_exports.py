"""What leaves the project: every format of a classifier, the command, and what it refuses."""

import dataclasses
import json
import os
import resource

import jax
import numpy as np
import onnxruntime
import pytest
import safetensors

from cvresearch import cli
from cvresearch.base import outputs
from cvresearch.base.errors import RunError, UserError
from cvresearch.data import crops, transforms
from cvresearch.data.preparation import AsEvaluated
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine import classifiers
from cvresearch.interop import export, exports, weight_files
from cvresearch.interop.classifier import Classifier, Provenance
from cvresearch.nn.stored import Stored
from tests.interop.nets import of_library, relative_error, small_net

PREPARED = dict(crop=32, resize=40, interpolation='bicubic', mean=(0.1, 0.5, 0.7), std=(0.2, 0.3, 0.4))


@pytest.fixture(scope='module')
def net():
    """A net that takes colours in the order BGR."""
    module, variables, _ = small_net('toy_inception', num_classes=3)
    provenance = Provenance('file', 'file:x', 'toy_inception', '00')
    return Classifier(module, variables, Preprocessing(channels='BGR', **PREPARED), ('a', 'b', 'c'), provenance)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A file of torchvision's ShuffleNet with a sidecar."""
    path = tmp_path_factory.mktemp('weights') / 'net.safetensors'
    module, variables, _ = small_net('shufflenet_v2_x0_5', num_classes=3)
    provenance = Provenance('run', 'run:x', 'shufflenet_v2_x0_5', '00')
    made = Classifier(module, variables, Preprocessing(**PREPARED), ('cat', 'dog', 'é'), provenance)
    exports.export(made, 'torchvision', path)
    return path


def pixels(net, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, *net.input_shape), np.uint8)


def onnx_outputs(path, names, images):
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return session.get_modelmeta().custom_metadata_map, session.run(names, {'images': images})


def test_onnx_of_raw_pixels_gives_the_classifiers_logits(net, tmp_path):
    exports.export(net, 'onnx', tmp_path / 'net.onnx', exports.Options(raw=True))
    metadata, (logits, probabilities) = onnx_outputs(tmp_path / 'net.onnx', ['logits', 'probabilities'], pixels(net))
    expected = np.asarray(net.logits(pixels(net)))
    assert relative_error(logits, expected) <= 1e-5
    assert relative_error(probabilities, np.asarray(jax.nn.softmax(expected))) <= 1e-5
    assert json.loads(metadata['classes']) == ['a', 'b', 'c']
    assert json.loads(metadata['provenance'])['digest'] == '00'
    assert json.loads(metadata['preprocessing'])['channels'] == 'BGR'


def test_stablehlo_of_raw_pixels_with_the_weights_beside(net, tmp_path):
    exports.export(net, 'stablehlo', tmp_path / 'net.stablehlo', exports.Options(raw=True, beside=True))
    assert sorted(os.listdir(tmp_path)) == ['net.stablehlo', 'net.stablehlo.json', 'net.stablehlo.safetensors']
    exported = jax.export.deserialize(bytearray((tmp_path / 'net.stablehlo').read_bytes()))
    tensors = weight_files.read(tmp_path / 'net.stablehlo.safetensors')
    assert relative_error(np.asarray(exported.call(tensors, pixels(net))), np.asarray(net.logits(pixels(net)))) <= 1e-5
    assert json.loads((tmp_path / 'net.stablehlo.json').read_text())['classes'] == ['a', 'b', 'c']


def test_weights_come_back_to_the_bit_with_classes_and_preprocessing(weights, tmp_path):
    first = classifiers.load(f'file:{weights}#torchvision/shufflenet_v2_x0_5')
    exports.export(first, 'torchvision', tmp_path / 'again.safetensors')
    again = classifiers.load(f'file:{tmp_path}/again.safetensors#torchvision/shufflenet_v2_x0_5')
    jax.tree.map(np.testing.assert_array_equal, first.variables, again.variables)
    assert again.class_names == ('cat', 'dog', 'é') and again.preprocessing == Preprocessing(**PREPARED)
    with safetensors.safe_open(tmp_path / 'again.safetensors', 'numpy') as file:
        assert json.loads(file.metadata()['provenance'])['reference'] == 'torchvision/shufflenet_v2_x0_5'


def test_the_command_writes_what_it_says(weights, tmp_path, capsys):
    name = f'file:{weights}#torchvision/shufflenet_v2_x0_5'
    assert cli.main(['export', '--weights', name, '--to', 'onnx', '--out', str(tmp_path / 'net.onnx')]) == 0
    size = (tmp_path / 'net.onnx').stat().st_size
    assert capsys.readouterr().out == f'{tmp_path}/net.onnx: shufflenet_v2_x0_5, 3 classes, onnx, {size:,} bytes\n'
    found = classifiers.load(name)
    images = found.normalize(pixels(found))
    _, (logits,) = onnx_outputs(tmp_path / 'net.onnx', ['logits'], np.asarray(images))
    assert relative_error(logits, np.asarray(found.apply(found.variables, images))) <= 1e-5


REFUSED = {
    'coreml': 'unknown format',
    'onnx --out x.pb': 'ends in .onnx',
    'hub --uint8': 'formats that have it: onnx, stablehlo, savedmodel, tflite',
    'stablehlo --float16 --out x.stablehlo': 'formats that have it: onnx',
    'hub --out taken': 'taken exists',
    'hub --out nowhere/net': 'there is no folder',
    'onnx --push me/net --out x.onnx': '--push is for --to hub',
}


@pytest.mark.parametrize('arguments', REFUSED)
def test_bad_input_is_refused_before_the_net_is_read(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'taken').mkdir()
    words = arguments.split()
    out = [] if '--out' in words else ['--out', 'x']
    with pytest.raises(UserError, match=REFUSED[arguments]):
        export.main(['--weights', 'file:none.npz#torchvision/alexnet', '--to', *words, *out])
    assert os.listdir(tmp_path) == ['taken']


def test_a_missing_package_is_said_with_its_extra(net, tmp_path, monkeypatch):
    monkeypatch.setitem(exports.FORMATS, 'onnx', exports.Format(exports._onnx, package='no_such_package'))
    with pytest.raises(UserError, match=r"needs the package no_such_package; pip install 'cvresearch\[export\]'"):
        exports.export(net, 'onnx', tmp_path / 'net.onnx')


def test_a_net_without_the_library_leaves_nothing(net, tmp_path):
    with pytest.raises(UserError, match='timm has no net like toy_inception'):
        exports.export(net, 'hub', tmp_path / 'folder')
    assert not os.listdir(tmp_path)


def test_a_net_with_other_layers_is_none_of_a_library(weights, tmp_path):
    found = classifiers.load(f'file:{weights}#torchvision/shufflenet_v2_x0_5')
    narrower = dataclasses.replace(found, module=Stored(found.module))
    with pytest.raises(UserError, match='which no net of torchvision has; export it to onnx'):
        exports.export(narrower, 'torchvision', tmp_path / 'net.safetensors')
    assert not os.listdir(tmp_path)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    with pytest.raises(RunError, match='No space left on device'), outputs.beside(tmp_path / 'a') as folder:
        (folder / 'a').write_text('half')
        full()
    assert not os.listdir(tmp_path)


FULL = {
    'net.onnx': ('onnx', 'torchvision/shufflenet_v2_x0_5'), 'net.stablehlo': ('stablehlo', 'timm/mobilenetv2_035'),
    'net.safetensors': ('torchvision', 'torchvision/shufflenet_v2_x0_5'), 'net.pth': ('timm', 'timm/mobilenetv2_035'),
    'net.h5': ('keras', 'keras/MobileNet_025'), 'folder': ('hub', 'timm/mobilenetv2_035'),
}  # fmt: skip


@pytest.mark.parametrize('most', [3_000, 100_000])
@pytest.mark.parametrize('name', FULL)
def test_a_file_that_cannot_be_finished_is_not_there(name, most, tmp_path):
    """A limit on the size of files stands for a full disk: writing fails in the middle."""
    form, reference = FULL[name]
    found, path = of_library(reference), tmp_path / name
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    jax.config.update('jax_enable_compilation_cache', False)  # its files would be too large too
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        with pytest.raises(RunError, match='cannot write') as error:
            exports.export(found, form, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        jax.config.update('jax_enable_compilation_cache', True)
    assert '\n' not in str(error.value) and str(path) in str(error.value) and not os.listdir(tmp_path)


def test_a_file_that_comes_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(UserError, match='exists'), outputs.beside(tmp_path / 'a') as folder:
        (folder / 'a').write_text('ours')
        (tmp_path / 'a').write_text('theirs')
    assert os.listdir(tmp_path) == ['a'] and (tmp_path / 'a').read_text() == 'theirs'


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match='there is no folder'), outputs.beside(tmp_path / 'b' / 'a'):
        pass


@pytest.mark.parametrize(
    ('crop', 'expected'),
    [
        (crops.ResizeCenterCrop(64, resize=73), (64, 73, False)),
        (crops.CenterCropResize(64, margin=9), (64, 73, False)),
        (crops.Resize(64), (64, 64, True)),
    ],
)
def test_how_a_run_prepares_images_in_the_words_of_others(crop, expected):
    transform = transforms.Transform(crop=crop, interpolation='area')
    found = exports.as_preprocessing(AsEvaluated(transform, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    assert (found.crop, found.resize, found.squash) == expected
    assert (found.interpolation, found.mean) == ('bilinear', (0.1, 0.2, 0.3))
