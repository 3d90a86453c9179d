"""Runs that prune, share weights or round numbers on the way: what they keep, and that they are ordinary runs."""

import jax
import numpy as np
import optax
import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base import trees
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import read_card
from cvresearch.compress import __main__ as command
from cvresearch.engine import classifiers
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.phases import Phases
from cvresearch.optim import factorise, sharing
from cvresearch.optim.kernels import kernels
from tests.seams import at_step

MLP = {'model.name': 'mlp', 'model.widths': '(20,)'}
ITERATIVE = {
    'compress.name': 'prune',
    'compress.share': '0.9',
    'compress.schedule': 'iterative',
    'compress.rounds': '2',
    'compress.begin_epochs': '0.25',
    'compress.end_epochs': '0.5',
}


def tiny(feature='plain', net=MLP, **overrides):
    """Returns the configuration of the kill matrix' run, of 16 steps, with a net of two dense layers."""
    more = {key.replace('__', '.'): str(value) for key, value in overrides.items()}
    return configs.load(f'tests/kill_config.py:{feature}', {**net, **more})


def ended(config, workdir):
    """Trains; returns the state at the end, on the host."""
    assert train.run(config, workdir) == 0
    checkpoints = Checkpoints(workdir / 'checkpoints', read_only=True)
    return jax.device_get(checkpoints.restore(Experiment.from_config(config).abstract_state()))


def nonzeros(params):
    return {layer: int(np.count_nonzero(kernel)) for layer, kernel in kernels(params).items()}


@pytest.mark.parametrize(
    'more',
    [
        {},
        dict(optimizer__name='adamw', optimizer__weight_decay=0.1),
        dict(updates__sam=0.05),
        dict(updates__accumulate=4),
    ],
    ids=['momentum', 'adamw', 'sam', 'parts'],
)
def test_the_masks_hold_through_training_in_the_weights_and_in_the_average(tmp_path, more):
    state = ended(tiny('ema', **ITERATIVE, **more), tmp_path / 'run')
    expected = {'head': 200 - round(0.9 * 200), 'hidden1': 1280 - round(0.9 * 1280)}
    assert nonzeros(state.params) == nonzeros(state.average['params']) == expected
    card = read_card(tmp_path / 'run')['compression']
    assert card['nonzero'] == sum(expected.values()) and card['weights'] == 1480
    assert card['layers']['head'] == dict(weights=200, nonzero=20, distinct=card['layers']['head']['distinct'])
    net = classifiers.load(f'run:{tmp_path}/run')
    assert nonzeros(net.variables['params']) == expected


def test_each_round_keeps_the_same_share_of_what_is_left(tmp_path):
    """At step 4 the root of a tenth is left, after step 8 a tenth; before, all."""
    found = {}
    for stop in (4, 5, 8, 9):
        state = ended(tiny(**ITERATIVE, max_steps=stop), tmp_path / str(stop))
        found[stop] = nonzeros(state.params)['hidden1']
    left = 1280 - round((1 - 0.1**0.5) * 1280)
    assert found == {4: 1280, 5: left, 8: left, 9: 128}


def test_the_first_update_is_the_plain_one_of_the_masked_net(tmp_path):
    """By hand, with the rule of gradient descent: the weights of least magnitude go, the others descend."""
    config = tiny(
        max_steps=1, compress__name='prune', compress__share=0.75, optimizer__momentum=0.0, optimizer__weight_decay=0.0
    )
    experiment = Experiment.from_config(config)
    before = jax.device_get(experiment.initial_state().params)
    masked = jax.tree.map(np.array, before)
    for layer in masked.values():
        magnitudes = np.abs(layer['kernel'])
        layer['kernel'][magnitudes < np.quantile(magnitudes, 0.75)] = 0
    plain = tiny(max_steps=1, optimizer__momentum=0.0, optimizer__weight_decay=0.0)
    other = Experiment.from_config(plain)
    phases = Phases(other)
    start = other.initial_state({'params': masked})
    expected = jax.device_get(phases.update(0, start, phases.batch(0)).params)
    got = ended(config, tmp_path / 'run').params
    for layer, mask in ((name, part['kernel'] != 0) for name, part in masked.items()):
        np.testing.assert_allclose(got[layer]['kernel'], np.where(mask, expected[layer]['kernel'], 0), atol=1e-6)
        np.testing.assert_allclose(got[layer]['bias'], expected[layer]['bias'], atol=1e-6)


def test_zeros_of_the_net_that_it_starts_from_stay_zero(tmp_path):
    """Dense layers first, and in a second run the head alone trains, with the zeros of the others."""
    ended(tiny(**ITERATIVE), tmp_path / 'first')
    start = dict(init__weights=f'run:{tmp_path}/first', init__head='keep', compress__name='prune')
    state = ended(tiny(**start, compress__layers="(('head', 0.95),'hidden1')"), tmp_path / 'second')
    assert nonzeros(state.params) == {'head': 10, 'hidden1': 128}


def test_of_what_is_frozen_for_good_nothing_is_pruned(tmp_path):
    """Convolutions stay as they are while dense layers are pruned and retrained, and the reverse."""
    config = tiny(**ITERATIVE, updates__freeze="('hidden1',)")
    before = jax.device_get(Experiment.from_config(config).initial_state().params)
    after = ended(config, tmp_path / 'run').params
    assert np.array_equal(after['hidden1']['kernel'], before['hidden1']['kernel'])
    assert nonzeros(after)['head'] == 20


def test_all_layers_together_lose_the_share(tmp_path):
    state = ended(tiny(**ITERATIVE, compress__scope='global'), tmp_path / 'run')
    assert sum(nonzeros(state.params).values()) == 1480 - round(0.9 * 1480)


def test_the_threshold_is_of_the_deviation(tmp_path):
    config = tiny(max_steps=1, compress__name='prune', compress__quality=1.5)
    before = kernels(jax.device_get(Experiment.from_config(config).initial_state().params))
    after = nonzeros(ended(config, tmp_path / 'run').params)
    assert after == {name: int((np.abs(w) >= 1.5 * w.std()).sum()) for name, w in before.items()}


def test_shared_weights_move_together_by_the_sum_of_their_gradients(tmp_path):
    """Equation 3, with NumPy from the plain gradients of the shared net."""
    settings = dict(optimizer__momentum=0.0, optimizer__weight_decay=0.0)
    config = tiny(max_steps=1, compress__name='share', compress__bits=3, **settings)
    before = jax.device_get(Experiment.from_config(config).initial_state().params)
    shared = {layer: sharing.share(kernel, 3) for layer, kernel in kernels(before).items()}
    start = {name: {**part, 'kernel': shared[name].weights()} for name, part in before.items()}
    other = Experiment.from_config(tiny(max_steps=1, **settings))
    phases = Phases(other)
    plain = jax.device_get(phases.update(0, other.initial_state({'params': start}), phases.batch(0)).params)
    got = ended(config, tmp_path / 'run').params
    for name, part in start.items():
        step = plain[name]['kernel'].astype(np.float64) - part['kernel']
        codebook = [part['kernel'][shared[name].codes == c][0] + step[shared[name].codes == c].sum() for c in range(8)]
        np.testing.assert_allclose(got[name]['kernel'], np.array(codebook)[shared[name].codes], atol=1e-6)


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw', 'lamb'])
def test_a_layer_keeps_so_many_values_and_its_zeros(tmp_path, optimizer):
    ended(tiny(**ITERATIVE), tmp_path / 'pruned')
    start = dict(init__weights=f'run:{tmp_path}/pruned', init__head='keep', compress__name='share', compress__bits=2)
    state = ended(tiny('ema', **start, optimizer__name=optimizer), tmp_path / 'run')
    for params in (state.params, state.average['params']):
        assert nonzeros(params) == {'head': 20, 'hidden1': 128}
        assert [len(np.unique(kernel)) for kernel in kernels(params).values()] == [4, 4]  # zero among them
    before = classifiers.load(f'run:{tmp_path}/pruned').variables['params']
    assert np.array_equal(before['head']['kernel'] == 0, state.params['head']['kernel'] == 0)


def test_a_factored_net_trains_on_within_its_rank_and_leaves_as_two_smaller_layers(tmp_path):
    """The file has the factors of the run's kernel, the error of which is rounding; by Denton et al. 2014."""
    ended(tiny(), tmp_path / 'dense')
    start = dict(init__weights=f'run:{tmp_path}/dense', init__head='keep', compress__name='factors')
    state = ended(tiny('ema', **start, compress__size=0.5, compress__layers="('hidden1',)"), tmp_path / 'run')
    rank = factorise.rank_by_size(np.zeros((64, 20)), 0.5)
    before = kernels(classifiers.load(f'run:{tmp_path}/dense').variables['params'])['hidden1']
    for params in (state.params, state.average['params']):
        values = np.linalg.svd(kernels(params)['hidden1'], compute_uv=False)
        assert (values > 1e-5 * values[0]).sum() == rank == 7
        cut = factorise.product(factorise.factorise(before, rank))
        assert 0.01 < np.abs(kernels(params)['hidden1'] - cut).max() < np.abs(cut).max()  # trained, not only cut
    small = str(tmp_path / 'small')
    flags = ['--svd', 'size=0.5', '--layer', 'hidden1']
    assert command.main(['--weights', f'run:{tmp_path}/run@raw', '--out', small, *flags]) == 0
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    expected = classifiers.load(f'run:{tmp_path}/run@raw').logits(images)
    np.testing.assert_allclose(classifiers.load(small).logits(images), expected, atol=1e-4)


def test_a_net_that_trains_rounded_is_a_plain_net_with_other_weights(tmp_path):
    plain, rounded = (ended(tiny(max_steps=3, compress__name=name), tmp_path / name) for name in ('none', 'int8'))
    difference = optax.global_norm(jax.tree.map(np.subtract, plain.params, rounded.params))
    assert 0 < difference < 0.1 * optax.global_norm(plain.params)
    assert jax.tree.structure(plain) == jax.tree.structure(rounded)


@pytest.mark.parametrize(
    ('feature', 'more'), [('pruning', {}), ('sharing', {}), ('plain', dict(compress__name='factors'))]
)
def test_a_run_that_is_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch, feature, more):
    config = tiny(feature, net={}, **more)
    alone = ended(config, tmp_path / 'alone')
    at_step(monkeypatch, (3, 7), once=True)
    assert [train.run(config, tmp_path / 'run') for _ in range(2)] == [PREEMPTED] * 2
    assert trees.sha256(ended(config, tmp_path / 'run')) == trees.sha256(alone)


def test_without_it_nothing_is_kept_and_no_operation_is_more():
    experiment = Experiment.from_config(tiny())
    assert experiment.recipe.compression is None and experiment.abstract_state().compression == {}


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (dict(share=1.2), 'from 0 to 1'),
        (dict(share=0.5, quality=1.0), 'one of them'),
        (dict(layers="('nothing',)"), 'matches no parameter'),
        (dict(layers="(('head', 2.0),)"), 'from 0 to 1'),
        (dict(layers="(('head', 'x'),)"), 'a pattern, or'),
        (dict(schedule='cubic', end_epochs=2.0), 'step 32'),
        (dict(schedule='cubic'), 'an end after the begin'),
        (dict(schedule='linear'), 'unknown compress.schedule'),
        (dict(scope='channels'), 'unknown compress.scope'),
        (dict(name='share', bits=9), 'from 1 to 8'),
        (dict(name='share', kmeans='x'), 'unknown compress.kmeans'),
        (dict(name='share', layers="(('head', 0.5),)"), 'from 1 to 8'),
        (dict(name='huffman'), 'unknown compress'),
        (dict(name='factors', size=1.5), 'from 0 to 1'),
    ],
)
def test_bad_values_are_one_line(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        train.run(tiny(**{f'compress__{key}': value for key, value in {'name': 'prune', **more}.items()}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_does_not_go_together_is_said(tmp_path):
    with pytest.raises(UserError, match='moves equal weights differently'):
        train.run(tiny(compress__name='share', optimizer__name='muon'), tmp_path)
