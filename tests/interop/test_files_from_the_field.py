"""Files as training programs leave them: the net's tensors are found, whatever lies around them."""

import argparse
import collections
import datetime
import io
import json
import pathlib
import pickle
import zipfile
from collections import OrderedDict

import h5py
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from cvresearch.base.errors import UserError
from cvresearch.inspect import cost
from cvresearch.interop import conversion, weight_files
from cvresearch.models import registry
from tests.interop.torch_saved import Tensor, save, save_tar

NET = {
    'conv.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), 'bn.running_mean': np.float32([1, 2]),
    'fc.bias': np.float32([3, 4, 5]),
}  # fmt: skip
STATE = OrderedDict((name, Tensor(array)) for name, array in NET.items())
AVERAGE = {name: Tensor(-array) for name, array in NET.items()}


def read(path):
    """Returns the arrays of a file and what was said."""
    notes = []
    return weight_files.read(path, notes.append), notes


def assert_is(got, expected=NET):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def prefixed(prefix, state=STATE):
    return {f'{prefix}{name}': tensor for name, tensor in state.items()}


class Config(dict):
    """A dict of some program's own class, with attributes."""


class Module:
    """A net that was saved whole, as torch.nn.Module pickles itself."""

    def __init__(self, parameters=(), buffers=(), modules=()):
        self._parameters, self._buffers, self._modules = (OrderedDict(part) for part in (parameters, buffers, modules))
        self._non_persistent_buffers_set, self.training = {'mask'}, True


WHOLE = Module(
    modules=dict(
        conv=Module(parameters=dict(weight=STATE['conv.weight'], bias=None)),
        bn=Module(buffers=dict(running_mean=STATE['bn.running_mean'], mask=Tensor(np.float32([9])))),
        fc=Module(parameters=dict(bias=STATE['fc.bias'])),
    )
)
KEPT = {
    'arguments': dict(state_dict=STATE, args=argparse.Namespace(lr=0.1)),
    'a counter': dict(model=STATE, lr_scheduler=dict(milestones=collections.Counter([30, 60]))),
    'numbers of NumPy': dict(state_dict=STATE, best=np.float64(12.5), rng=np.random.default_rng(0).bytes(3)),
    'a generator': dict(state_dict=STATE, rng=np.random.RandomState(0).get_state()),
    'a path, a date, a set': dict(net=STATE, at=pathlib.PurePosixPath('a'), on=datetime.date(2020, 1, 1), seen={1}),
    'a default dict': dict(model_state=STATE, log=collections.defaultdict(list, loss=[1.0])),
    'a dict of another class': Config(state_dict=Config(STATE)),
    'beside numbers': {**STATE, 'epoch': 3, 'args': argparse.Namespace()},
    'an optimizer': dict(weights_of_mine=STATE, optimizer=dict(state={0: dict(exp_avg=Tensor(np.ones(3, 'f4')))})),
    'a tensor beside': dict(class_weights=Tensor(np.ones(9, 'f4')), state_dict=STATE),
    'a module within': dict(model=dict(state_dict=prefixed('module.'))),
    'before 0.4': OrderedDict((name, Tensor(array, old=True)) for name, array in NET.items()),
    'the whole net': WHOLE,
    'the whole net in a dict': dict(epoch=1, model=WHOLE, optimizer={}),
    'parallel parts': {'conv.module.weight': STATE['conv.weight'], '_orig_mod.bn.module.running_mean':
                       STATE['bn.running_mean'], 'module._orig_mod.fc.bias': STATE['fc.bias']},
}  # fmt: skip


@pytest.mark.parametrize('kind', KEPT)
def test_the_net_is_found_and_nothing_else_matters(tmp_path, kind):
    got, notes = read(save(tmp_path / 'a.pth', KEPT[kind]))
    assert_is(got)
    assert not notes


@pytest.mark.parametrize('name', ['a.pth.tar', 'a.ckpt', 'A.PTH', 'a', 'a.safetensors', 'a.weird'])
def test_the_first_bytes_decide_and_not_the_name(tmp_path, name):
    assert_is(read(save(tmp_path / name, STATE))[0])
    safetensors.numpy.save_file(NET, tmp_path / name)
    assert_is(read(tmp_path / name)[0])


def test_a_tar_of_the_first_pytorch(tmp_path):
    assert_is(read(save_tar(tmp_path / 'a.pth', dict(state_dict=STATE)))[0])


def test_a_tar_of_something_else_is_refused(tmp_path):
    path = save_tar(tmp_path / 'a.pth', STATE)
    path.write_bytes(path.read_bytes().replace(b'storages', b'storage_'))
    with pytest.raises(UserError):
        read(path)


@pytest.mark.parametrize(
    'tree',
    [
        dict(state_dict=STATE, state_dict_ema=AVERAGE),
        dict(model=STATE, model_ema=prefixed('module.', AVERAGE) | {'n_averaged': Tensor(np.int64(3))}),
        dict(model=STATE, ema=dict(module=AVERAGE, updates=7)),
        dict(params=STATE, params_ema=AVERAGE),
        dict(net=STATE, swa_state_dict=AVERAGE),
    ],
)
def test_averaged_weights_are_taken_and_that_is_said(tmp_path, tree):
    got, (note,) = read(save(tmp_path / 'a.pth', tree))
    assert_is(got, {name: -array for name, array in NET.items()})
    assert 'averaged' in note and repr(next(iter(tree))) in note


def test_statistics_that_averages_lack_come_from_the_last_weights(tmp_path):
    parameters = {name: tensor for name, tensor in AVERAGE.items() if 'running' not in name}
    got, (note,) = read(save(tmp_path / 'a.pth', dict(model=STATE, ema=dict(shadow=parameters))))
    assert_is(got, {name: array if 'running' in name else -array for name, array in NET.items()})
    assert '1 tensors' in note


def test_averages_without_names_are_said_and_not_taken(tmp_path):
    got, (note,) = read(save(tmp_path / 'a.pth', dict(model=STATE, ema=dict(shadow_params=list(AVERAGE.values())))))
    assert_is(got)
    assert "'ema' have no names" in note


@pytest.mark.parametrize(
    ('tree', 'part'),
    [
        (dict(state_dict={**STATE, 'conv.bias': argparse.Namespace()}), "'conv.bias' is 'argparse.Namespace'"),
        (dict(encoder=STATE, decoder=dict(STATE)), 'several state dicts'),
        ({'a.weight': STATE['fc.bias'], 'a.module.weight': STATE['fc.bias']}, "two of its tensors are 'a.weight'"),
        (dict(args=argparse.Namespace(lr=1)), "'args' is 'argparse.Namespace'"),
    ],
)
def test_what_is_no_net_is_refused_by_name(tmp_path, tree, part):
    with pytest.raises(UserError, match='cannot read') as caught:
        read(save(tmp_path / 'a.pth', tree))
    assert part in str(caught.value)


# Several files


def shards(folder, ending='safetensors'):
    """Writes NET in two files with an index; returns the index."""
    stem = {'safetensors': 'model', 'bin': 'pytorch_model'}[ending]
    parts = [list(NET)[:1], list(NET)[1:]]
    of = {}
    for number, names in enumerate(parts, 1):
        file = f'{stem}-{number:05}-of-00002.{ending}'
        of |= dict.fromkeys(names, file)
        if ending == 'bin':
            save(folder / file, {name: STATE[name] for name in names})
        else:
            safetensors.numpy.save_file({name: NET[name] for name in names}, folder / file)
    index = folder / f'{stem}.{ending}.index.json'
    index.write_text(json.dumps({'metadata': {'total_size': 1}, 'weight_map': of}, indent=2))
    return index


@pytest.mark.parametrize('ending', ['safetensors', 'bin'])
def test_weights_in_several_files(tmp_path, ending):
    index = shards(tmp_path, ending)
    assert_is(read(index)[0])
    assert_is(read(tmp_path)[0])
    got, (note,) = read(sorted(tmp_path.glob('*-of-*'))[1])
    assert_is(got)
    assert '2 files' in note


@pytest.mark.parametrize('change', ['gone', 'outside', 'not in it', 'no map'])
def test_an_index_that_does_not_hold_is_refused(tmp_path, change):
    index = shards(tmp_path)
    content = json.loads(index.read_text())
    if change == 'gone':
        (tmp_path / 'model-00002-of-00002.safetensors').unlink()
    elif change == 'outside':
        content['weight_map']['fc.bias'] = '../model-00002-of-00002.safetensors'
    elif change == 'not in it':
        content['weight_map']['fc.bias'] = 'model-00001-of-00002.safetensors'
    else:
        content = {'weights': 1}
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match='cannot read'):
        read(index)


# Kinds of numbers


@pytest.mark.parametrize('kind', ['bfloat16', 'float8_e4m3fn', 'float8_e5m2'])
def test_small_floats_of_safetensors_come_as_float32(tmp_path, kind):
    small = np.arange(4).astype(kind)
    types = {'bfloat16': 'BF16', 'float8_e4m3fn': 'F8_E4M3', 'float8_e5m2': 'F8_E5M2'}
    header = json.dumps({'a': {'dtype': types[kind], 'shape': [2, 2], 'data_offsets': [0, small.nbytes]}}).encode()
    header += b' ' * (-len(header) % 8)
    (tmp_path / 'a.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + small.tobytes())
    assert_is(read(tmp_path / 'a.safetensors')[0], {'a': np.float32([[0, 1], [2, 3]])})


def test_numbers_that_are_not_real_are_named(tmp_path):
    safetensors.numpy.save_file({'a.b': np.ones(2, np.complex64)}, tmp_path / 'a.safetensors')
    with pytest.raises(UserError, match='type C64'):
        read(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('ending', ['.weights.h5', '.hdf5', '.keras'])
def test_bfloat16_of_keras(tmp_path, ending):
    """Keras 3 leaves its bytes in HDF5, which has no such type, and says so in an attribute."""
    file = io.BytesIO()
    with h5py.File(file, 'w') as root:
        group = root.create_group('layers/dense/vars')
        group.attrs['name'] = 'fc'
        group.create_dataset('0', data=np.float32([[1.5, -2]]).astype(ml_dtypes.bfloat16)).attrs['dtype'] = 'bfloat16'
    path = tmp_path / f'a{ending}'
    path.write_bytes(file.getvalue())
    if ending == '.keras':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('config.json', '{"config": {"layers": []}}')
            archive.writestr('model.weights.h5', file.getvalue())
    assert_is(read(path)[0], {'fc/kernel': np.float32([[1.5, -2]])})


# Whose names have something before them


@pytest.fixture(scope='module')
def shufflenet():
    reference = 'torchvision/shufflenet_v2_x0_5'
    module = registry.build('shufflenet_v2_x0_5', 5, **registry.reference(reference).arguments)
    shapes = cost.shapes(module, (64, 64, 3))
    draw = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: draw.random(leaf.shape, np.float32), shapes)
    return reference, variables, conversion.to_tensors(variables, reference)


@pytest.mark.parametrize(
    'case', ['model.', 'net.', 'backbone.', 'module.model.encoder.', 'a loss', 'averages', 'a head']
)
def test_a_prefix_of_all_names_is_taken_off(shufflenet, tmp_path, case):
    reference, variables, tensors = shufflenet
    notes = []
    if case == 'a loss':
        tensors = prefixed('model.', tensors) | {'criterion.weight': np.ones(5, np.float32)}
    elif case == 'averages':
        others = {f'model.{name}': -tensor for name, tensor in tensors.items()}
        tensors = others | prefixed('model_ema.module.', tensors) | {'model_ema.n_averaged': np.int64(3)}
    elif case == 'a head':
        tensors = {f'{"head" if name.startswith("fc.") else "backbone"}.{name}': t for name, t in tensors.items()}
    else:
        tensors = prefixed(case, tensors)
    weight_files.write(tmp_path / 'a.npz', {name: np.asarray(tensor) for name, tensor in tensors.items()})
    module, got = conversion.load(tmp_path / 'a.npz', reference, note=notes.append)
    assert module.num_classes == 5
    jax.tree.map(np.testing.assert_array_equal, got, variables)
    expected = {'a loss': 'criterion.weight', 'averages': 'averaged'}.get(case)
    assert expected in notes[0] if expected else not notes
    assert conversion.infer(weight_files.read(tmp_path / 'a.npz'), 'shufflenet_v2_x0_5') == reference


def test_two_nets_in_one_file_must_be_chosen(shufflenet):
    reference, _, tensors = shufflenet
    both = prefixed('student.', tensors) | prefixed('teacher.', tensors)
    with pytest.raises(UserError, match=r"under 'student.' and 'teacher.'"):
        conversion.to_variables(both, reference)


@pytest.mark.parametrize('name', ['googlenet', 'inception_v3'])
def test_nets_without_their_auxiliary_heads_load_for_evaluation(name):
    reference = registry.reference(f'torchvision/{name}')
    shapes = cost.shapes(registry.build(reference.variant, 3, **reference.arguments), (299, 299, 3))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, 'f4'), shapes)
    tensors = conversion.to_tensors(zeros, f'torchvision/{name}')
    notes = []
    module, _ = conversion.to_variables(tensors, f'torchvision/{name}', 3, notes.append)
    assert module.aux and not notes
    heads = {key for key in tensors if key.lower().startswith('aux')}
    without = {key: tensor for key, tensor in tensors.items() if key not in heads}
    module, variables = conversion.to_variables(without, f'torchvision/{name}', 3, notes.append)
    assert not module.aux and not [key for key in variables['params'] if key.startswith('aux')]
    assert 'aux1' in notes[0] and 'will be new' in notes[0]
    assert conversion.infer(without, reference.variant) == f'torchvision/{name}'
    with pytest.raises(UserError, match='missing'):  # a part of the heads is a damaged file
        conversion.to_variables(without | {min(heads): tensors[min(heads)]}, f'torchvision/{name}', 3)


# Written as torch.save does


def test_a_file_for_pytorch_has_what_its_strict_loading_asks_for(tmp_path):
    """torchvision's MNASNet refuses a state dict without its version. PyTorch 2.13 loads the file strictly."""
    assert {registry.reference(f'torchvision/mnasnet{width}').version for width in ('0_5', '0_75', '1_0', '1_3')} == {2}
    weight_files.write(tmp_path / 'a.pth', NET | {'turned': NET['conv.weight'].T, 'count': np.array(3)}, version=2)
    assert_is(read(tmp_path / 'a.pth')[0], NET | {'turned': NET['conv.weight'].T, 'count': np.array(3)})

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            return OrderedDict if name == 'OrderedDict' else (lambda *arguments: arguments)

        def persistent_load(self, identity):
            return identity[2:]

    with zipfile.ZipFile(tmp_path / 'a.pth') as archive:
        state = Reader(io.BytesIO(archive.read('archive/data.pkl'))).load()
        places = [info.header_offset + 30 + len(info.filename) + len(info.extra) for info in archive.infolist()]
    assert type(state) is OrderedDict and state._metadata == {'': {'version': 2}}
    assert state['conv.weight'][:4] == (('0', 'cpu', 24), 0, (2, 3, 2, 2), (12, 4, 2, 1))
    assert not any(place % 64 for place in places)  # PyTorch maps tensors where they lie
