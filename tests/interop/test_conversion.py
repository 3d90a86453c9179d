"""From a file of weights to one of our nets, and back."""

import flax.linen as nn
import jax
import jax.numpy as jnp
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
from tests.interop.tensors import eighths


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
