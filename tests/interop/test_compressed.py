"""A compressed net is written whole, and is the same net when it is read."""

import json

import jax
import numpy as np
import pytest

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.interop import compressed, container
from cvresearch.models import registry
from cvresearch.nn.stored import Stored
from cvresearch.optim import factorise, sharing
from cvresearch.optim.kernels import kernels, with_kernels
from tests.interop.nets import CHEAPEST

SIZE = (28, 28, 1)


@pytest.fixture(scope='module')
def net():
    module = registry.build('lenet5', 7, act='relu')
    return module, jax.device_get(module.init(jax.random.key(0), np.zeros((1, *SIZE), np.float32)))


def saved(path, module, variables, **about):
    return compressed.save(path, variables, compressed.architecture_of('lenet5', module, SIZE), compressed.Notes(about))


def test_a_net_comes_back_with_equal_logits_and_its_record(net, tmp_path):
    module, variables = net
    weights = {name: sharing.share(kernel, 4).weights() for name, kernel in kernels(variables['params']).items()}
    variables = {'params': with_kernels(variables['params'], weights)}
    record = saved(tmp_path / 'net', module, variables, original_sha256='a')
    back, read, about = compressed.load(tmp_path / 'net')
    assert trees.sha256(read) == trees.sha256(variables) == record['sha256']
    assert (back.act, back.num_classes, about['original_sha256']) == ('relu', 7, 'a')
    images = np.random.default_rng(0).normal(size=(2, *SIZE)).astype(np.float32)
    assert np.array_equal(back.apply(read, images), module.apply(variables, images))


@pytest.mark.parametrize('name', ['efficientnet_lite0', 'resnet50', *CHEAPEST])
def test_any_architecture_is_built_anew_from_its_record(name):
    wanted = {name: 0.123 for name in registry.arguments_of(name) if name == 'bn_momentum'}
    module = registry.build(name, 7, **wanted)
    record = json.loads(json.dumps(compressed.architecture_of(name, module, SIZE)))
    assert record['arguments'] == wanted
    back, size = compressed._build(record)
    assert (back, size) == (module, SIZE)


def test_the_record_accounts_for_every_byte(net, tmp_path):
    saved(tmp_path / 'net', *net)
    record = json.loads((tmp_path / 'net' / compressed.RECORD).read_text())
    assert sum(record['bytes'].values()) == record['total_bytes'] == (tmp_path / 'net' / 'net.cvr').stat().st_size


def test_a_factored_net_comes_back(net, tmp_path):
    module, variables = net
    factors = factorise.by_layer(kernels(variables['params']), {'C5': 10, 'F6': 20})
    variables = {'params': factorise.with_factors(variables['params'], factors)}
    saved(tmp_path / 'net', Stored(module), variables)
    back, read, _ = compressed.load(tmp_path / 'net' / 'net.cvr')
    images = np.ones((1, *SIZE), np.float32)
    assert read['params']['C5']['first'].shape == (5, 5, 16, 10)
    assert np.array_equal(back.apply(read, images), Stored(module).apply(variables, images))


@pytest.mark.parametrize('model', registry.catalogue())
def test_of_every_net_the_arguments_are_kept_that_differ(model):
    own = registry.arguments_of(model)
    changed = {key: value for key, value in {'bn_eps': 0.5, 'bn_momentum': 0.25}.items() if key in own}
    architecture = compressed.architecture_of(model, registry.build(model, 3, **changed), SIZE)
    assert architecture['arguments'] == changed


def test_an_existing_folder_is_left_alone(net, tmp_path):
    (tmp_path / 'net').mkdir()
    with pytest.raises(UserError, match='exists already'):
        saved(tmp_path / 'net', *net)
    assert not list((tmp_path / 'net').iterdir())


def test_nothing_is_left_of_a_folder_that_could_not_be_written(net, tmp_path):
    with pytest.raises(UserError, match='float64'):
        saved(tmp_path / 'net', net[0], {'params': {'a': np.zeros(3)}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model': 'lenet6'}, 'unknown model'),
        ({'num_classes': 8}, 'head/bias'),
        ({'arguments': {'acts': 1}}, 'no argument'),
        ({'input_shape': [28]}, 'height, width'),
        ({'stored': None}, 'what net'),
        ({'stored': True, 'num_classes': 2}, None),
    ],
)
def test_a_file_of_another_net_than_it_says_is_an_error(net, tmp_path, change, message):
    module, variables = net
    architecture = compressed.architecture_of('lenet5', module, SIZE) | change
    arrays = dict(trees.named_leaves(variables))
    container.write(tmp_path / 'net.cvr', arrays, {'architecture': architecture, 'sha256': trees.sha256(variables)})
    if message is None:  # seven classes are what it stores
        assert compressed.load(tmp_path / 'net.cvr')[1]['params']['head']['bias'].shape == (7,)
        return
    with pytest.raises(UserError, match=message):
        compressed.load(tmp_path / 'net.cvr')


def test_arrays_that_do_not_run_are_an_error(net, tmp_path):
    module, variables = net
    arrays = dict(trees.named_leaves(variables)) | {'params/C1/kernel': np.zeros((5, 5, 3, 6), np.float32)}
    architecture = compressed.architecture_of('lenet5', Stored(module), SIZE)
    container.write(tmp_path / 'net.cvr', arrays, {'architecture': architecture})
    with pytest.raises(UserError, match='do not fit the net'):
        compressed.load(tmp_path / 'net.cvr')


def test_folders_and_files_are_recognised(net, tmp_path):
    saved(tmp_path / 'net', *net)
    found = [compressed.is_compressed(path) for path in (tmp_path / 'net', tmp_path / 'net' / 'net.cvr', tmp_path)]
    assert found == [True, True, False]
