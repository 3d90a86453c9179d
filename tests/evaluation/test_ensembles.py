"""Snapshots, ensembles, protocols of a run, and choosing a checkpoint."""

import dataclasses
import json
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from cvresearch import evaluate, train
from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.data.examples import Arrays
from cvresearch.engine.experiment import Experiment, Plan
from cvresearch.evaluation import ensemble, ensemble_text, predictions, protocols, robustness, totals
from cvresearch.evaluation.predictions import Predictions, classes_of
from cvresearch.evaluation.runs import Run, variables_of
from cvresearch.nn.norms import BatchNorm, Normalization
from cvresearch.nn.overrides import Net
from cvresearch.objectives import metrics

SGDR = {'schedule.name': 'sgdr', 'schedule.warmup_epochs': 0.0, 'epochs': 1, 'minival': 128}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run of 14 steps and four cycles, of 3.5 steps each; all its checkpoints are kept."""
    from tests.conftest import SMOKE, configs

    config = configs.load(
        SMOKE,
        {
            'mesh.data': '1',
            'model.name': 'softmax_regression',
            'schedule.t_0_epochs': '0.25',
            'keep': '100',
        }
        | {key: str(value) for key, value in SGDR.items()},
    )
    path = tmp_path_factory.mktemp('snapshots') / 'run'
    assert train.run(config, path) == 0
    return path


@pytest.fixture(scope='module')
def of_mlp(tmp_path_factory):
    """A run of another architecture on the same images."""
    from tests.conftest import SMOKE, configs

    overrides = {'mesh.data': '1', 'model.name': 'mlp', 'minival': '128', 'epochs': '0.5'}
    path = tmp_path_factory.mktemp('mlp') / 'run'
    assert train.run(configs.load(SMOKE, overrides), path) == 0
    return path


@pytest.mark.parametrize('warmup', [0.0, 0.1])
@pytest.mark.parametrize('t_mult', [1, 1.5, 2, 3])
@pytest.mark.parametrize('t_0', [0.15, 0.25, 1 / 3, 0.5, 1.0])
def test_snapshots_are_after_the_last_update_before_each_restart(smoke, t_0, t_mult, warmup):
    experiment = Experiment.from_config(
        smoke(
            schedule__name='sgdr',
            schedule__t_0_epochs=t_0,
            schedule__t_mult=float(t_mult),
            epochs=3,
            schedule__warmup_epochs=warmup,
        )
    )
    # The rate of the update that is made after `step` updates. It rises where a cycle begins, and in the warm-up.
    rates = [float(experiment.schedule(step)) for step in range(experiment.plan.steps)]
    restarts = {step for step in range(1, len(rates)) if rates[step] > rates[step - 1]}
    restarts -= set(range(round(warmup * experiment.plan.steps_per_epoch) + 1))
    assert len(restarts) >= 1 and {rates[step] for step in restarts} == {max(rates)}
    assert experiment.snapshots - {experiment.plan.steps} == restarts


@pytest.mark.parametrize(('examples', 'batch', 'every'), [(100, 10, 0.5), (103, 10, 0.3), (64, 64, 2)])
def test_snapshots_every_so_many_epochs_are_when_they_are_over(examples, batch, every):
    plan = Plan(examples, batch, 5)
    period = round(every * examples)
    expected = {s for s in range(1, plan.steps + 1) if s * batch // period > (s - 1) * batch // period}
    assert plan.steps_every(every) == expected and plan.steps_every(0) == frozenset()


def test_snapshots_are_the_states_of_their_steps_and_apart_from_checkpoints(workdir):
    of = Run.open(workdir)
    states = of.snapshots()
    steps = [int(state.step) for state in states]
    assert steps == sorted(of.experiment.snapshots) and len(steps) == 4
    both = set(steps) & {int(p.name) for p in (workdir / 'checkpoints').iterdir()}
    assert both
    for step in both:
        checkpoint = of.checkpoint(step)
        assert trees.sha256(jax.device_get(checkpoint.params)) == trees.sha256(
            jax.device_get(states[steps.index(step)].params)
        )


def test_a_damaged_member_is_not_left_out(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / 'run')
    files = [path for path in (tmp_path / 'run' / 'snapshots' / '7').rglob('*') if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(UserError, match='damaged snapshot'):
        Run.open(tmp_path / 'run').snapshots()


def test_ensemble_of_snapshots(workdir):
    how = evaluate.How(keep=True)
    record = evaluate.run_ensemble(workdir, 'snapshots', controls=(workdir,), how=how)
    assert [row['m'] for row in record['curve']] == [1, 2, 3, 4]
    assert record['curve'][0]['nll'] == pytest.approx(record['members'][-1]['nll'])  # the last m, not the first
    assert record['curve'][-1]['top1'] == record['top1'] and record['n_seen'] == 256 and record['crops'] == 4
    assert np.diag(record['correlation']) == pytest.approx(1) and np.diag(record['disagreement']).tolist() == [0] * 4
    (control,) = record['controls']
    assert control['same_cost'] and control['snapshots']['mcnemar']['p'] == 1
    kept = Predictions.load(workdir / 'predictions' / 'test_snapshots.npz')
    assert predictions.summary(kept)['nll'] == record['nll']
    assert 'last m members' in ensemble_text.as_text(record)


def test_controls_may_stand_between_commas_as_they_did_before(tmp_path):
    for name in ('a', 'b', 'x,y'):
        (tmp_path / name).mkdir()
    a, b, one = tmp_path / 'a', tmp_path / 'b', tmp_path / 'x,y'
    assert evaluate._between_commas(Path(f'{a},{b}')) == [a, b] and evaluate._between_commas(one) == [one]
    assert evaluate._between_commas(Path(f'{a},nowhere')) == [Path(f'{a},nowhere')]


def test_probabilities_are_averaged_not_logits():
    one = Predictions(np.log(np.array([[0.9, 0.1]], np.float32)), np.array([0]), {})
    other = Predictions(np.log(np.array([[0.2, 0.8]], np.float32)), np.array([0]), {})
    assert ensemble.average([one, other]).probabilities == pytest.approx(np.array([[0.55, 0.45]]))
    assert ensemble.disagreement([one, other]).tolist() == [[0, 1], [1, 0]]
    assert ensemble.correlation([one, other]) == pytest.approx(np.array([[1, -1], [-1, 1]]))


def test_members_in_one_pass_answer_as_one_after_another(workdir):
    of = Run.open(workdir)
    states, protocol = of.snapshots(), of.protocol('test')
    together = of.predictions(states, 'test', protocol, stacked=True)
    apart = of.predictions(states, 'test', protocol, stacked=False)
    for a, b in zip(together, apart, strict=True):
        # Sums of 784 products, fused otherwise where members are stacked: off by the rounding of the largest.
        np.testing.assert_allclose(a.logits, b.logits, rtol=0, atol=1e-5 * np.abs(b.logits).max())
        assert (a.predicted == b.predicted).all() and a.record == b.record
    assert not np.array_equal(apart[0].logits, apart[1].logits)


def test_ensemble_of_architectures_and_average_of_weights(workdir, of_mlp):
    record = evaluate.run_ensemble(of_mlp, 'runs', (workdir,))
    assert [row['model'] for row in record['members']] == ['mlp', 'softmax_regression']
    one = evaluate.run_ensemble(workdir, 'weights')
    states = Run.open(workdir).snapshots()
    found = ensemble.average_weights([variables_of(state) for state in states])
    expected = np.mean([np.asarray(state.params['head']['kernel'], np.float64) for state in states], 0)
    np.testing.assert_allclose(found['params']['head']['kernel'], expected, atol=1e-6)
    assert one['weights'] == 'average' and one['averaged_steps'] == [int(state.step) for state in states]
    with pytest.raises(UserError, match='one architecture'):
        evaluate.run_ensemble(of_mlp, 'weights', (workdir,))


class Normalized(nn.Module):
    """Images, normalized by what their batch or the past says."""

    @nn.compact
    def __call__(self, x, train):
        return BatchNorm(train=train, unbiased=True, name='norm')(x).mean((1, 2))


def test_averaged_weights_get_the_statistics_of_the_training_images():
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 3, 2), np.uint8)
    variables = Normalized().init(jax.random.key(0), np.zeros((1, 3, 3, 2), np.float32), train=False)
    for model in (Normalized(), Net(Normalized(), Normalization(group_size=8))):
        found = ensemble.reestimate(model, variables, Arrays(images, np.zeros(64, np.int32)), 16, (0.5,), (0.25,))
        pixels = (images / 255 - 0.5) / 0.25
        assert found['params'] == variables['params']
        norm = found['batch_stats']['norm']
        # A sum of 576 float32 numbers up to 2, in an order that is the compiler's.
        np.testing.assert_allclose(norm['mean'], pixels.mean((0, 1, 2)), rtol=0, atol=2e-5)
        np.testing.assert_allclose(norm['var'], pixels.var((0, 1, 2)), rtol=2e-2)


@pytest.mark.parametrize(
    ('name', 'crops', 'scales'),
    [
        ('centre', 1, [32]),
        ('alexnet_10', 10, [32]),
        ('resnet_10', 10, [32]),
        ('googlenet_144', 144, [32, 36, 40, 44]),
        ('vgg_150', 150, [32, 48, 64]),
        ('inception', 1, []),
        ('centre_flip', 2, [32]),
    ],
)
def test_protocols_of_a_run_state_what_they_did_and_see_every_image(workdir, name, crops, scales):
    of = Run.open(workdir)
    small = dataclasses.replace(of.experiment.source, splits={'test': of.examples('minival')})
    of = dataclasses.replace(of, experiment=dataclasses.replace(of.experiment, source=small))
    protocol = of.protocol('test', name)
    (found,) = of.predictions([of.checkpoint()], 'test', protocol)
    record = of.metrics(found)
    assert (record['protocol'], record['crops'], record['scales']) == (name, crops, scales)
    assert record['n_seen'] == 128 and record['resolution'] == 28 and record['weights'] == 'raw'


def test_views_are_averaged_as_the_protocol_says():
    logits = np.array([[[2.0, 0], [0, 1]]])
    logit = protocols.make('alexnet_10', 224, average='logits').averaged(logits)
    assert logit.tolist() == [[1, 0.5]]
    mean = protocols.make('alexnet_10', 224).averaged(logits)
    first, second = (np.exp(row) / np.exp(row).sum() for row in logits[0])
    assert np.exp(mean[0]) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(name='alexnet_11', resolution=224), 'did you mean alexnet_10'),
        (dict(name='vgg_150', resolution=224, scales=(256,)), 'has 3 scales'),
        (dict(name='centre', resolution=224, scales=(200,)), 'hold no crop of 224'),
        (dict(name='centre', resolution=224, interpolation='cubic'), 'did you mean bicubic'),
    ],
)
def test_mistakes_in_protocols_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        protocols.make(**arguments)


def test_the_checkpoint_is_chosen_by_minival_and_not_by_what_is_reported(workdir):
    best = evaluate.run(workdir, step='best')
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    rows = [row for row in rows if row['split'] == 'minival']
    assert best['step'] == max(rows, key=lambda row: (row['top1'], -row['step']))['step']
    assert best['selected_by'] == 'minival' and best['selected_on_reported_split'] is False
    with pytest.raises(UserError, match='also reported'):
        evaluate.run(workdir, step='best', select_by='test')
    assert evaluate.run(workdir, step='best', select_by='test', force=True)['selected_on_reported_split'] is True


def test_predictions_of_the_last_evaluation_are_kept(workdir):
    kept = Predictions.load(workdir / 'predictions' / 'test.npz')
    final = read_card(workdir)['final']['test']
    values = predictions.summary(kept)
    assert values['top1'] == final['top1'] and values['nll'] == pytest.approx(final['loss'], abs=1e-5)
    assert kept.record['step'] == final['step'] and values['n_seen'] == final['n_seen'] == 256


@pytest.mark.parametrize('batch_size', [56, 200])
def test_partial_batches_on_one_and_eight_devices_give_identical_numbers(workdir, batch_size):
    """Metrics of logits do not depend on devices; the sums on the device count each image once on both."""
    found = []
    for devices in (1, 8):
        of = Run.open(workdir)
        with of.config.unlocked():
            of.config.mesh.data = devices
        of = dataclasses.replace(of, experiment=Experiment.from_config(of.config))
        (one,) = of.predictions([of.checkpoint()], 'test', of.protocol('test'), batch_size)
        step, state = of.experiment.eval_step(), of.checkpoint()
        sums = totals.evaluate(step, state, of.examples('test'), batch_size, of.experiment.mesh)
        found.append((of.metrics(one), sums))
    (alone, alone_sums), (spread, spread_sums) = found
    assert alone == spread and alone['n_seen'] == 256
    assert alone_sums['n_seen'] == spread_sums['n_seen'] == 256
    for name in metrics.NAMES:
        # A sum of 256 numbers without a sign in another order: each addition rounds by 2**-24 of the sum at most.
        assert alone_sums[name] == pytest.approx(spread_sums[name], rel=256 * 2**-24)


def test_errors_under_corruptions_are_of_every_severity(tmp_path, smoke):
    colour = smoke(data__image_size=24, data__channels=3, data__train=128, data__test=32, eval_batch_size=32)
    assert train.run(colour, tmp_path / 'run') == 0
    found = robustness.measure(tmp_path / 'run', ('contrast', 'impulse_noise'))
    assert {name: len(errors) for name, errors in found['errors'].items()} == {'contrast': 5, 'impulse_noise': 5}
    assert found['n_seen'] == 32 and 'mce' not in found
    assert found['errors']['impulse_noise'][4] >= found['clean']
    with pytest.raises(UserError, match='three colours'):
        robustness.measure(workdir_grey(tmp_path, smoke), ('contrast',))


def workdir_grey(tmp_path, smoke):
    assert train.run(smoke(data__train=128, data__test=32, eval_batch_size=32), tmp_path / 'grey') == 0
    return tmp_path / 'grey'


def test_a_run_is_evaluated_on_another_data_set(workdir):
    record = evaluate.run(workdir, data='mnist500')
    assert (record['data'], record['n_seen']) == ('mnist500', 1000)
    with pytest.raises(UserError, match=r"'class 10' .* 'class 11' .* that the net does not know"):
        Run.open(workdir).on('fake', image_size=28, channels=1, classes=12)


def test_where_a_set_has_some_classes_only_the_others_cannot_be_chosen(workdir):
    of = Run.open(workdir)
    (found,) = of.predictions([of.checkpoint()], 'test', of.protocol('test'))
    facts = dataclasses.replace(of.experiment.source.facts, classes=(2, 7))
    masked = classes_of(facts, found)
    assert set(masked.predicted) == {2, 7}
    chosen = np.array([2, 7])[found.logits[:, [2, 7]].argmax(1)]
    assert (masked.predicted == chosen).all() and np.isfinite(predictions.summary(masked)['brier'])
