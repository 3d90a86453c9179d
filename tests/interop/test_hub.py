"""The hub: what its cache has is found without a network, and timm's config.json is read as timm reads it."""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub import constants

from cvresearch.base.errors import UserError
from cvresearch.data import preprocessing
from cvresearch.inspect import cost
from cvresearch.interop import conversion, hub
from cvresearch.models import registry

RECORD = json.loads((Path(__file__).parent.parent / 'goldens' / 'timm_preprocessing.json').read_text())['nets']
REPO, COMMIT = 'timm/shufflenet_v2_x0_5.tv_in1k', '0123456789abcdef0123456789abcdef01234567'
CONFIG = RECORD['resnet18.a1_in1k']['config']


def add(cache, name, content, repo=REPO, commit=COMMIT):
    """Puts a file into a cache as huggingface_hub lays it out: a blob, and a link to it in a snapshot."""
    folder = cache / f'models--{repo.replace("/", "--")}'
    for part in ('blobs', 'refs', f'snapshots/{commit}'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(content).hexdigest()
    (folder / 'blobs' / digest).write_bytes(content)
    (folder / 'snapshots' / commit / name).symlink_to(f'../../blobs/{digest}')
    (folder / 'refs' / 'main').write_text(commit)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    return tmp_path


@pytest.mark.parametrize('revision', [None, 'main', COMMIT])
def test_weights_in_the_cache_are_found_without_a_network(cache, revision):
    reference = 'torchvision/shufflenet_v2_x0_5'
    module = registry.build('shufflenet_v2_x0_5', 5, **registry.reference(reference).arguments)
    shapes = cost.shapes(module, (64, 64, 3))
    draw = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: draw.random(leaf.shape, np.float32), shapes)
    add(cache, 'config.json', json.dumps(CONFIG).encode())
    add(cache, 'model.safetensors', safetensors.numpy.save(conversion.to_tensors(variables, reference)))
    (file,), config, commit = hub.fetch(REPO, revision)
    assert commit == COMMIT and config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, conversion.load(file, reference)[1], variables)


def test_weights_in_several_files_are_found(cache):
    add(cache, 'config.json', json.dumps(CONFIG).encode())
    part = 'model-00001-of-00001.safetensors'
    add(cache, 'model.safetensors.index.json', json.dumps({'weight_map': {'a': part}}).encode())
    with pytest.raises(UserError, match=part):
        hub.fetch(REPO)
    add(cache, part, safetensors.numpy.save({'a': np.ones(2, np.float32)}))
    assert [file.name for file in hub.fetch(REPO)[0]] == ['model.safetensors.index.json', part]


def test_files_of_pickles_are_not_taken(cache):
    add(cache, 'config.json', json.dumps(CONFIG).encode())
    add(cache, 'pytorch_model.bin', b'')
    with pytest.raises(UserError, match=r'has no model.safetensors'):
        hub.fetch(REPO)


def test_what_the_cache_lacks_is_one_line(cache, monkeypatch):
    with pytest.raises(UserError, match=r'config.json is not in the cache, and HF_HUB_OFFLINE is set'):
        hub.fetch('timm/resnet50.a1_in1k')
    add(cache, 'config.json', json.dumps(CONFIG).encode())
    with pytest.raises(UserError, match=f'@{"f" * 40}.* is not in the cache'):
        hub.fetch(REPO, 'f' * 40)
    with pytest.raises(UserError, match='expected OWNER/NAME'):
        hub.fetch('resnet50')


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=r'pip install .cvresearch\[hub\]'):
        hub.fetch(REPO)


# timm's config.json


@pytest.mark.parametrize('test_size', [False, True])
@pytest.mark.parametrize('name', RECORD)
def test_images_are_prepared_as_timm_prepares_them(name, test_size):
    prepare, classes = hub.preprocessing_of(RECORD[name]['config'])
    prepare = prepare.as_published() if test_size else prepare
    expected = RECORD[name]['timm_test_size' if test_size else 'timm']
    got = {key: getattr(prepare, key) for key in expected}
    assert json.loads(json.dumps(got)) == expected and classes is None


@pytest.mark.parametrize('name', RECORD)
def test_files_without_a_config_are_prepared_likewise(name):
    size = registry.variant(registry.resolve(name)).input_shape[0]
    ours, config = preprocessing.of(f'timm/{name}', size)[0], hub.preprocessing_of(RECORD[name]['config'])[0]
    assert ours == config


def test_timms_default_weights_are_prepared_by_their_own_row_and_an_unknown_tag_as_they_are():
    """By hand, of timm 1.0.31's code: the size of training, and the size of its published accuracies beside."""
    for name in ('efficientnet_b4', 'efficientnet_b4.of_mine', 'efficientnet_b4.ra2_in1k'):
        found = preprocessing.of(f'timm/{name}', 380)[0]
        assert (found.crop, found.resize, found.test_crop, found.test_resize) == (320, 365, 384, 384), name
    assert preprocessing.of('timm/dm_nfnet_f0', 256)[0].as_published().crop == 256
    missing = [
        name for name in registry.references() if name.startswith('timm/') and preprocessing.of(name, 7)[0].crop == 7
    ]
    assert not missing


def test_the_older_form_of_the_file_and_names_of_classes():
    older = {'architecture': 'resnet18', **CONFIG['pretrained_cfg'], 'num_classes': 2, 'labels': ['a', 'b']}
    prepare, classes = hub.preprocessing_of(older)
    assert prepare == hub.preprocessing_of(CONFIG)[0] and classes == ('a', 'b')
    assert hub.preprocessing_of(CONFIG | {'label_names': ['a'], 'num_classes': 1})[1] == ('a',)
    with pytest.raises(UserError, match='1 entries for 1000 classes'):
        hub.preprocessing_of(CONFIG | {'label_names': ['a']})


@pytest.mark.parametrize(
    'change',
    [
        dict(input_size=[1, 28, 28]),
        dict(input_size=[3, 224, 192]),
        dict(input_size='large'),
        dict(crop_pct='all'),
        dict(interpolation='hamming'),
        dict(crop_mode='stretch'),
        dict(mean=[0.5]),
        dict(std=[0, 1, 1]),
        dict(crop_pct=1.2),
        dict(test_input_size=[3, 288, 224]),
    ],
)
def test_what_cannot_be_prepared_is_refused(change):
    with pytest.raises(UserError, match=r'config.json'):
        hub.preprocessing_of(CONFIG | {'pretrained_cfg': CONFIG['pretrained_cfg'] | change})


@pytest.mark.parametrize('content', [[], {}, {'architecture': 'a', 'pretrained_cfg': 3}, {'pretrained_cfg': {}}])
def test_another_json_is_refused(content):
    with pytest.raises(UserError, match='as timm writes it'):
        hub.preprocessing_of(content)
