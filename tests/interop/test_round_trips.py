"""What leaves comes back as it was, and what leaves is the net that was asked for: an average, a compressed one."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cvresearch import cli
from cvresearch.base.errors import UserError
from cvresearch.engine import classifiers
from cvresearch.interop import export, exports, weight_files
from tests.interop.nets import of_library, relative_error
from tests.interop.test_exports import onnx_outputs

FILES = {
    'torchvision/shufflenet_v2_x0_5': ('net.safetensors', 'net.pth'),
    'timm/mobilenetv2_035': ('net.safetensors', 'net.pth', 'folder'),
    'keras/MobileNet_025': ('net.safetensors', 'net.h5'),
}


def equal(first, again):
    """Whether two nets have the same variables, to the bit, the same classes and the same preprocessing."""
    jax.tree.map(np.testing.assert_array_equal, first.variables, again.variables)
    return (first.class_names, first.preprocessing) == (again.class_names, again.preprocessing)


@pytest.mark.parametrize(('name', 'file'), [(name, file) for name, files in FILES.items() for file in files])
def test_every_form_comes_back_to_the_bit(name, file, tmp_path):
    net, form = of_library(name), 'hub' if file == 'folder' else name.partition('/')[0]
    exports.export(net, form, tmp_path / file)
    again = classifiers.load(tmp_path / file if form == 'hub' else f'file:{tmp_path / file}#{name}')
    assert equal(net, again)


@pytest.mark.parametrize('file', ['net.safetensors', 'net.pth', 'net.h5'])
def test_a_file_of_weights_can_be_read_by_those_who_read_others(file, tmp_path):
    weight_files.write(tmp_path / file, {'a/kernel': np.ones(3, np.float32)})
    (tmp_path / 'other').touch()
    assert (tmp_path / file).stat().st_mode == (tmp_path / 'other').stat().st_mode


def test_an_average_leaves_as_the_average(tmp_path):
    run = Path(__file__).parents[1] / 'engine' / 'data' / 'runs' / 'softmax_ema_plateau'
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
    found = {}
    for name in (f'run:{run}@raw', f'run:{run}@ema'):
        path = tmp_path / f'{len(found)}.onnx'
        assert export.main(['--weights', name, '--to', 'onnx', '--out', str(path)]) == 0
        _, (found[name],) = onnx_outputs(path, ['logits'], images)
        head = classifiers.load(name).variables['params']['head']
        by_hand = images.reshape(3, -1).astype(np.float64) @ head['kernel'] + head['bias']
        assert relative_error(found[name], by_hand) <= 1e-5
    raw, average = found.values()
    assert relative_error(raw, average) > 1e-3


def test_a_pruned_net_leaves_to_its_library_and_its_program_to_onnx(tmp_path):
    reference = 'torchvision/shufflenet_v2_x0_5'
    exports.export(of_library(reference), 'torchvision', tmp_path / 'large.pth')
    small = str(tmp_path / 'small')
    large = f'file:{tmp_path}/large.pth#{reference}'
    assert cli.main(['compress', '--weights', large, '--out', small, '--prune', '0.5']) == 0
    for form, file in (('torchvision', 'small.pth'), ('onnx', 'small.onnx')):
        command = ['export', '--weights', f'compressed:{small}', '--to', form, '--out', str(tmp_path / file)]
        assert cli.main(command) == 0
    net, again = classifiers.load(small), classifiers.load(f'file:{tmp_path}/small.pth#{reference}')
    assert equal(net, again) and np.mean(net.variables['params']['head']['kernel'] == 0) >= 0.5
    images = np.random.default_rng(0).normal(size=(2, *net.input_shape)).astype(np.float32)
    _, (found,) = onnx_outputs(tmp_path / 'small.onnx', ['logits'], images)
    assert relative_error(found, np.asarray(net.apply(net.variables, images))) <= 1e-5


@pytest.mark.parametrize('form', ['torchvision', 'timm', 'keras', 'hub'])
def test_an_ensemble_is_no_net_of_a_library(form, tmp_path):
    exports.export(of_library('timm/mobilenetv2_035'), 'timm', tmp_path / 'net.pth')
    name = f'--weights=file:{tmp_path}/net.pth#timm/mobilenetv2_035'
    out = str(tmp_path / ('folder' if form == 'hub' else 'two.safetensors'))
    library = form if form != 'hub' else 'timm'
    with pytest.raises(UserError, match=f'{library} has no net like 2 x mobilenetv2_035'):
        export.main([name, name, '--to', form, '--out', out])
    assert sorted(file.name for file in tmp_path.iterdir()) == ['net.pth', 'net.pth.json']
