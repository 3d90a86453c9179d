"""Folders in the layout of timm and the hub. (That timm loads them: tests/peers/exported.py.)"""

import json
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import yaml

from cvresearch.base.errors import UserError
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine import classifiers
from cvresearch.interop import conversion, export, hub_export, libraries
from cvresearch.models import registry
from tests.interop.nets import small_net

PREPARED = Preprocessing(crop=224, resize=236, interpolation='bicubic')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a ResNet-18 of three classes, and the net's variables."""
    path = tmp_path_factory.mktemp('hub')
    _, variables, _ = small_net('resnet18', num_classes=3)
    hub_export.write(
        path, variables, 'timm/resnet18', PREPARED, ('cat', 'dog', 'é'), {'top-1': 0.75, 'a|b': 'x\ny'}, 'mit'
    )
    return path, variables


def test_the_configuration_is_as_timm_writes_it(folder):
    config = json.loads((folder[0] / 'config.json').read_text())
    prepared = config.pop('pretrained_cfg')
    assert config == {
        'architecture': 'resnet18',
        'num_classes': 3,
        'num_features': 512,
        'label_names': ['cat', 'dog', 'é'],
    }
    assert prepared['input_size'] == [3, 224, 224] and prepared['crop_pct'] == pytest.approx(0.949, abs=1e-3)
    assert (prepared['classifier'], prepared['license']) == ('fc', 'mit')
    assert prepared['mean'] == [0.485, 0.456, 0.406] and prepared['interpolation'] == 'bicubic'


def test_the_weights_come_back_to_the_bit(folder):
    path, variables = folder
    with safetensors.safe_open(path / 'model.safetensors', 'numpy') as file:
        assert file.metadata() == {'format': 'pt'}
        assert {'conv1.weight', 'layer4.1.bn2.running_var', 'fc.bias'} <= set(file.keys())
    _, loaded = conversion.load(path / 'model.safetensors', 'timm/resnet18')
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_the_card_has_front_matter_and_the_facts(folder):
    _, front, text = (folder[0] / 'README.md').read_text().split('---\n', 2)
    assert yaml.safe_load(front) == {
        'tags': ['image-classification', 'timm'],
        'library_name': 'timm',
        'pipeline_tag': 'image-classification',
        'license': 'mit',
    }
    assert '| top-1 | 0.75 |' in text and '| a\\|b | x y |' in text


def test_the_card_of_a_run_has_results_with_the_number_of_images_and_the_recipe():
    run = Path(__file__).parents[2] / 'docs' / 'records' / 'lenet5_mnist5k_seed0'
    fc = {'fc.weight': np.zeros((10, 512))}
    config = hub_export.configuration(fc, 'timm/resnet18', PREPARED, 'abcdefghij', 'mit')
    text = hub_export.card(config, export._facts(f'run:{run}'), 'mit')
    front = yaml.safe_load(text.split('---\n', 2)[1])
    assert front['metrics'] == ['accuracy']
    assert '| split | top1 | top5 | loss | images seen |' in text and '| test | 98.4 | 100.0 | 0.0571' in text
    assert re.search(r'^\| test \|.*\| 1000 \|$', text, re.M) and '| data | mnist5k |' in text
    assert '| command | python -m cvresearch.main --config configs/lenet5_mnist5k.py' in text and '| revision |' in text
    assert json.loads(text.split('```json\n')[1].split('```')[0])['batch_size'] == 64


def test_the_card_says_which_weights_of_the_run_these_are():
    config = hub_export.configuration({'fc.weight': np.zeros((2, 512))}, 'timm/resnet18', PREPARED, 'ab', 'mit')
    origin = {'step': 40, 'weights': 'ema'}
    facts = origin | {'facts': origin, 'final': {'test': {'top1': 50.0}, 'test_ema': {'top1': 75.0}}}
    text = hub_export.card(config, facts, 'mit')
    assert 'This folder has their average (ema), after step 40.' in text and '| facts |' not in text


def test_channels_that_timm_cannot_give_are_refused():
    tensors = {'fc.weight': np.zeros((2, 512))}
    with pytest.raises(UserError, match='BGR'):
        hub_export.configuration(tensors, 'timm/resnet18', Preprocessing(channels='BGR'), ('a', 'b'), 'mit')


def test_timm_resizes_to_the_side_that_was_meant():
    pairs = [(crop, resize) for crop in (28, 224, 299, 331) for resize in range(crop, 2 * crop)]
    assert [(crop, math.floor(crop / hub_export.crop_share(crop, resize))) for crop, resize in pairs] == pairs


def test_the_folder_is_a_net_for_us_too(folder):
    path, variables = folder
    found = classifiers.load(path)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
    assert found.class_names == ('cat', 'dog', 'é') and found.preprocessing == PREPARED


SMALL = (64, 64, 3)


def test_the_reference_is_one_whose_program_is_the_same():
    resnet = registry.build('resnet18', 5)
    assert libraries.reference_in('timm', resnet, 'resnet18', SMALL) == 'timm/resnet18'
    assert libraries.reference_in('torchvision', resnet, 'resnet18', SMALL, 'timm/resnet18') == 'torchvision/resnet18'


def test_a_net_with_the_same_name_and_other_padding_is_another_net():
    theirs = registry.reference('torchvision/mobilenet_v2')
    same = registry.build(theirs.variant, 5, **theirs.arguments)
    assert libraries.reference_in('torchvision', same, theirs.variant, SMALL) == 'torchvision/mobilenet_v2'
    with pytest.raises(UserError, match='computes something else than keras/MobileNetV2'):
        libraries.reference_in('keras', same, theirs.variant, SMALL)


def test_a_net_without_a_reference_is_refused_with_those_it_has():
    with pytest.raises(UserError, match='keras has no net like resnet18; references of this net: timm/resnet18, torch'):
        libraries.reference_in('keras', registry.build('resnet18'), 'resnet18', SMALL)
    with pytest.raises(UserError, match='references of this net: none'):
        libraries.reference_in('timm', registry.build('lenet5'), 'lenet5', (28, 28, 1))
