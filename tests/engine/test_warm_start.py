"""The start from weights: what is loaded, new, left over and adapted; resumed and killed runs."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine import classifiers, warm_start
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.transplant import transplanted
from cvresearch.engine.warm_start import WarmStart
from cvresearch.interop.classifier import Classifier, Provenance
from cvresearch.models import registry

TINY = dict(stage_sizes=(1,))


def net_of(classes=3, channels=3, order='RGB', seed=0, **arguments):
    """Returns a small classifier with random weights, statistics of norms too."""
    module = registry.build('resnet18', classes, **TINY, **arguments)
    variables = module.init(jax.random.key(seed), jnp.zeros((1, 16, 16, channels)))
    random = np.random.default_rng(seed)
    variables = jax.tree.map(lambda x: np.asarray(x) + random.uniform(0, 0.1, x.shape).astype(np.float32), variables)
    prepare = Preprocessing(crop=16, resize=16, channels=order)
    names = tuple(f'class {number}' for number in range(classes))
    return Classifier(module, variables, prepare, names, Provenance('file', 'file:net', 'resnet18', 'f' * 64))


def own_of(classes=3, channels=3):
    module = registry.build('resnet18', classes, **TINY)
    return module, jax.device_get(module.init(jax.random.key(9), jnp.zeros((1, 16, 16, channels))))


def images(channels=3):
    return np.random.default_rng(1).normal(size=(2, 16, 16, channels)).astype(np.float32)


def test_all_but_a_new_head_is_loaded_and_told():
    net, (_, own) = net_of(classes=5), own_of(classes=3)
    found = transplanted(net, own)
    assert found.new == found.left_over == ['head'] and found.loaded == len(trees.named_leaves(own)) - 2
    for path, leaf in trees.named_leaves(found.variables):
        expected = 0 if '/head/' in path else dict(trees.named_leaves(net.variables))[path]
        assert np.all(leaf == expected), path


def test_kept_head_has_its_outputs_in_the_order_of_the_runs_classes():
    net, (module, own) = net_of(), own_of()
    found = transplanted(net, own, order=np.array([2, 0, 1]))
    logits = module.apply(found.variables, images())
    assert np.allclose(logits, net.apply(net.variables, images())[:, [2, 0, 1]], atol=1e-5)
    assert set(found.adapted) == {'head/bias', 'head/kernel'}


@pytest.mark.parametrize('case', ['grey from three', 'three from grey', 'four from three', 'blue first'])
def test_other_input_channels_give_the_same_logits_by_the_stated_rule(case):
    had = 1 if case == 'three from grey' else 3
    has = {'grey from three': 1, 'four from three': 4}.get(case, 3)
    net = net_of(channels=had, order='L' if had == 1 else 'BGR' if case == 'blue first' else 'RGB')
    module, own = own_of(channels=has)
    found = transplanted(net, own, order=np.arange(3))
    assert list(found.adapted) == ['stem_conv/kernel']
    grey = images(1)
    before, after = {
        'grey from three': (np.repeat(grey, 3, -1), grey),
        'three from grey': (grey, np.repeat(grey, 3, -1)),
        'four from three': (images(4)[..., :3], images(4)),
        'blue first': (images()[..., ::-1], images()),
    }[case]
    assert np.allclose(net.apply(net.variables, before), module.apply(found.variables, after), atol=1e-4)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda net: dict(skip=('steam.*',)), "'steam.*' matches no array"),
        (lambda net: net.variables['params'].pop('stem_norm') and {}, r'2 missing \(stem_norm/bias, stem_norm/scale'),
        (lambda net: net.variables['params'].update(more={'kernel': np.zeros(3)}) or {}, 'left over.*more/kernel'),
        (lambda net: net.variables['params']['stem_norm'].update(bias=np.zeros(2)) or {}, 'shape.*stem_norm/bias'),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(change, message):
    net = net_of()
    with pytest.raises(UserError, match=message) as error:
        transplanted(net, own_of()[1], **change(net))
    assert '\n' not in str(error.value)


def test_strict_input_refuses_other_channels():
    with pytest.raises(UserError, match='strict'):
        transplanted(net_of(), own_of(channels=1)[1], inputs='strict')


def test_normalization_follows_the_order_and_number_of_channels():
    prepare = Preprocessing(mean=(1, 2, 3), std=(4, 5, 6), channels='BGR')
    net = dataclasses.replace(net_of(order='BGR'), preprocessing=prepare)
    assert warm_start.normalization(net, 3) == ((3, 2, 1), (6, 5, 4))
    assert warm_start.normalization(net, 1) == ((2,), (5,))
    assert warm_start.normalization(net, 3, 'BGR') == ((1, 2, 3), (4, 5, 6))


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A finished run of LeNet-5 with ten classes."""
    workdir = tmp_path_factory.mktemp('source') / 'run'
    assert train.run(configs.load('configs/lenet5_fake.py:smoke', {'mesh.data': '1'}), workdir) == 0
    return workdir


def starting(source, **overrides):
    base = {'mesh.data': '1', 'init.weights': f'run:{source}'}
    more = {key.replace('__', '.'): str(value) for key, value in overrides.items()}
    return configs.load('configs/lenet5_fake.py:smoke', base | more)


def first_state(config, workdir):
    start = WarmStart.of(config, workdir)
    experiment = Experiment.from_config(start.config)
    return *start.started(experiment), experiment


def test_kept_head_starts_where_the_other_run_ended(source, tmp_path):
    state, record, _ = first_state(starting(source, init__head='keep'), tmp_path / 'run')
    assert trees.sha256(jax.device_get(state.params)) == read_card(source)['params_sha256'] == record['digest']
    assert record['new'] == record['left_over'] == [] and record['adapted'] == {}


def test_all_new_is_the_run_from_scratch(source, tmp_path):
    config = starting(source, init__skip="('.*',)")
    state, record, experiment = first_state(config, tmp_path / 'run')
    assert record['loaded'] == 0
    assert trees.sha256(jax.device_get(state)) == trees.sha256(jax.device_get(experiment.initial_state()))


def test_another_net_or_other_classes_are_refused(source, tmp_path):
    with pytest.raises(UserError, match=r"config.model.name is 'mlp'.*has the weights of 'lenet5'"):
        first_state(starting(source, model__name='mlp'), tmp_path / 'run')
    with pytest.raises(UserError, match=r'has 10 classes and the run has 7; expected config\.init\.head=new'):
        first_state(starting(source, init__head='keep', data__classes=7), tmp_path / 'run')
    with pytest.raises(UserError, match=r'unknown init\.head'):
        first_state(starting(source, init__head='old'), tmp_path / 'run')


def test_other_normalization_is_said(source, tmp_path):
    _, record, _ = first_state(starting(source), tmp_path / 'a')
    assert not any('expect' in line for line in record['lines'])
    _, record, _ = first_state(starting(source, normalize__mean='(0.1,)'), tmp_path / 'b')
    assert any('mean (0.1)' in line and 'the weights expect' in line for line in record['lines'])


def test_killed_at_the_start_or_resumed_without_the_weights_ends_the_same(source, tmp_path, monkeypatch):
    weights = shutil.copytree(source, tmp_path / 'weights')
    config = starting(weights, max_steps=6, save_every_epochs=0.125)
    assert train.run(config, tmp_path / 'alone') == 0
    for name, seam in (('loading', (classifiers, 'load')), ('placed', (WarmStart, '_record'))):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(*seam, lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
            train.run(config, tmp_path / name)
        assert train.run(config, tmp_path / name) == 0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        from tests.seams import at_step

        at_step(patch, 5, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        train.run(config, tmp_path / 'resumed')
    Checkpoints(tmp_path / 'resumed' / 'checkpoints').close()
    shutil.rmtree(weights)
    assert train.run(config, tmp_path / 'resumed') == 0
    cards = [read_card(tmp_path / name) for name in ('alone', 'loading', 'placed', 'resumed')]
    assert len({card['params_sha256'] for card in cards}) == 1
    assert all(card['init']['digest'] == read_card(source)['params_sha256'] for card in cards)


def test_weights_that_changed_before_the_first_checkpoint_are_refused(source, tmp_path):
    start = WarmStart.of(starting(source), tmp_path / 'run')
    other = dataclasses.replace(start, record=dict(name='', digest='0' * 64, followed={}))
    with pytest.raises(UserError, match='holds other weights'):
        other.started(Experiment.from_config(start.config))


def test_what_an_earlier_version_recorded_of_its_start_has_the_names_of_today(tmp_path):
    config = configs.load('configs/finetune.py:probe', {'init.weights': 'run:gone', 'model.name': 'resnet18'})
    followed = {'optimizer.freeze': ['stem_.*', ['stage1_.*', 2.0]]}
    (tmp_path / 'run.json').write_text(json.dumps({'init': {'name': 'run:gone', 'digest': '', 'followed': followed}}))
    start = WarmStart.of(config, tmp_path)
    assert list(start.config.updates.freeze) == ['stem_.*', ['stage1_.*', 2.0]] and 'freeze' not in config.optimizer
