"""Tables of other libraries' names, and what all nets with batch norms share."""

import pytest

from cvresearch.base.errors import UserError
from cvresearch.models import registry
from cvresearch.models.names import Names, numbered, within
from cvresearch.nn.norms import NormSpec


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        ('head', 'fc'),  # an entry without braces, though the first pattern fits it too
        ('stem', 'stem'),
        ('stage2_block11/conv3', 'layer1.m.conv4'),
        ('stage2_block0/se/fc1', 'se2.fc1'),
        ('stage2_block0/norm1', 'bn'),  # the first of two that fit
    ],
)
def test_a_table_fills_in_numbers_letters_and_words(path, name):
    names = Names(
        {
            '{layer}': '{layer}',
            'stage{i}_block{j}/conv{n}': 'layer{i-1}.{j:b}.conv{n+1}',
            'head': 'fc',
            'stage{i}_block0/se/{layer}': 'se{i}.{layer}',
            'stage{i}_block{j}/norm1': 'bn',
            'stage{i}_block{j}/norm{n}': 'other',
        }
    )
    assert names(path) == name


def test_a_path_that_no_entry_fits_is_an_error():
    with pytest.raises(KeyError, match='stage1_block0/conv1'):
        Names({'conv{n}': 'conv{n}'})('stage1_block0/conv1')  # the whole path counts


def test_an_earlier_table_goes_before_a_later_one():
    assert Names({'stem{n}': 'first'}, {'stem{n}': 'second', 'head': 'fc'})('stem1') == 'first'


def test_tables_within_blocks_and_numbered_by_keras():
    assert within('block{j}/', 'layer{j}.', {'conv': '0'}) == {'block{j}/conv': 'layer{j}.0'}
    assert numbered(['a_', 'b/']) == {
        'a_conv': 'conv2d',
        'a_bn': 'batch_normalization',
        'b/conv': 'conv2d_1',
        'b/bn': 'batch_normalization_1',
    }


def test_constants_of_batch_norms_are_keys_of_their_own():
    net = registry.build('mobilenetv1_025', bn_eps=0.1)
    assert net.bn == NormSpec(momentum=0.9997, eps=0.1)
    keys = registry.arguments_of('mobilenetv1_025')
    assert {key: keys[key] for key in keys if key.startswith('bn')} == {
        'bn_momentum': 0.9997,
        'bn_eps': 1e-3,
        'bn_unbiased': False,
    }
    layer = net.bn.layer(train=True)()
    assert (layer.momentum, layer.eps, layer.unbiased, layer.train) == (0.9997, 0.1, False, True)


@pytest.mark.parametrize(('key', 'near'), [('bn', 'bn_'), ('bn_epsilon', 'bn_eps')])
def test_the_spec_itself_and_a_misspelt_constant_are_errors(key, near):
    with pytest.raises(UserError, match=f'did you mean.*{near}'):
        registry.build('mobilenetv1_025', **{key: 0.1})
