"""Pictures of how nets train: of the records and the kept predictions of runs, with numbers counted by hand."""

import numpy as np
import pytest
from PIL import Image

from cvresearch import look, train
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_metrics
from cvresearch.evaluation.predictions import Predictions
from cvresearch.report import look_training, runs
from tests.conftest import SMOKE


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Returns a folder with two runs: `slow`, and `fast` with ten times its learning rate, which is watched."""
    path = tmp_path_factory.mktemp('runs')
    base = {'mesh.data': '1', 'model.name': 'softmax_regression', 'data.noise': '4.0', 'log_every_steps': '2'}
    train.run(configs.load(SMOKE, base | {'schedule.peak': '0.001'}), path / 'slow')
    fast = {'schedule.peak': '0.01', 'watch.name': 'layers', 'watch.every_steps': '4'}
    train.run(configs.load(SMOKE, base | fast), path / 'fast')
    return path


def shown(folder, tmp_path, *words, ending='png', **flags):
    """Returns the arrays of a picture that is drawn."""
    out = tmp_path / f'out.{ending}'
    given = {'out': out, 'arrays': tmp_path / 'out.npz', **flags}
    assert look.main([*map(str, words), *(f'--{key}={value}' for key, value in given.items())]) == 0
    assert out.stat().st_size > 1000
    return dict(np.load(tmp_path / 'out.npz'))


def test_training_has_the_numbers_of_the_records(folder, tmp_path):
    found = shown(folder, tmp_path, 'training', folder / 'fast', ending='pdf')
    rows = [row for row in read_metrics(folder / 'fast' / 'metrics.jsonl') if row['split'] == 'layers']
    assert found['step'].tolist() == [0, 4, 8]
    layers, parameters = found['layer'].tolist(), found['parameter'].tolist()
    assert found['activations_std'][1][layers.index('head')] == rows[1]['activations']['head']['std']
    assert found['gradients_mean'][2][layers.index('head')] == rows[2]['gradients']['head']['mean']
    kernel = parameters.index('head/kernel')
    assert found['update_ratio'][0][kernel] == rows[0]['update_ratio']['head/kernel']
    assert np.isnan(found['update_ratio'][2][kernel])  # no update follows the last step


@pytest.mark.parametrize('kind', ['activations', 'gradients'])
def test_histograms_along_a_run_count_every_value(folder, tmp_path, kind):
    found = shown(folder, tmp_path, kind, folder / 'fast', ending='svg')
    assert found['moment'].tolist() == ['step 0', 'step 4', 'step 8']
    head = found['layer'].tolist().index('head')
    assert found['counts'][:, head].sum(-1).tolist() == [32 * 10] * 3


def test_curves_are_named_by_what_tells_the_runs_apart(folder, tmp_path, capsys):
    found = shown(folder, tmp_path, 'curves', folder / 'slow', folder / 'fast')
    assert [name for name in found if name.endswith('loss')] == [
        '0 learning rate 0.001 loss',
        '1 learning rate 0.01 loss',
    ]
    losses = [row['loss'] for row in read_metrics(folder / 'slow' / 'metrics.jsonl') if row['split'] == 'train']
    np.testing.assert_array_equal(found['0 learning rate 0.001 loss'], losses)
    assert f'learning rate 0.001: train loss {losses[0]:.4g} to {losses[-1]:.4g}' in capsys.readouterr().out


def test_equal_runs_are_named_by_their_folders(folder):
    record = runs.read(folder / 'slow')
    assert look_training._told_apart([record, record]) == ['slow (0)', 'slow (1)']


def test_answers_are_those_of_the_kept_predictions(folder, tmp_path):
    kept = Predictions.load(folder / 'fast/predictions/test.npz')
    said, labels = kept.logits.argmax(1), kept.labels
    counts = np.zeros((10, 10), int)
    for label, answer in zip(labels, said, strict=True):
        counts[label, answer] += 1
    assert 0 < (said != labels).sum() < len(labels)
    found = {
        kind: shown(folder, tmp_path / kind, kind, folder / 'fast', **flags)
        for kind, flags in (
            ('confusion', {}),
            ('classes', {}),
            ('calibration', dict(bins=5)),
            ('mistakes', dict(number=4)),
        )
    }
    np.testing.assert_array_equal(found['confusion']['confusion'], counts)
    np.testing.assert_allclose(found['classes']['accuracy'], 100 * counts.diagonal() / counts.sum(1))
    bins = found['calibration']
    filled = bins['count'] > 0
    gaps = np.abs(bins['accuracy'] - bins['confidence'])[filled]
    assert bins['count'].sum() == len(labels)
    assert bins['ece'] == pytest.approx((gaps * bins['count'][filled]).sum() / len(labels))
    wrong = found['mistakes']
    logits = kept.logits.astype(np.float64)
    sure = np.exp(logits - np.logaddexp.reduce(logits, 1)[:, None]).max(1)
    expected = sorted(np.flatnonzero(said != labels), key=lambda i: -sure[i])[:4]
    assert wrong['index'].tolist() == expected and wrong['predicted'].tolist() == said[expected].tolist()
    np.testing.assert_allclose(wrong['probability'], sure[expected])


def test_mistakes_of_other_images_are_refused(folder, tmp_path):
    kept = Predictions.load(folder / 'fast/predictions/test.npz')
    kept.save(tmp_path / 'alone.npz')
    with pytest.raises(UserError, match=r'alone.npz lies in no run.*give --data=fake, with --root for a folder'):
        look.main(['mistakes', str(tmp_path / 'alone.npz'), f'--out={tmp_path / "a.png"}'])
    with pytest.raises(UserError, match=r'alone.npz is of other images than digits test'):
        look.main(['mistakes', str(tmp_path / 'alone.npz'), '--data=digits', f'--out={tmp_path / "a.png"}'])


def test_the_middle_of_a_surface_is_the_loss_of_the_run(folder, tmp_path, capsys):
    found = shown(folder, tmp_path, 'surface', weights=f'run:{folder / "fast"}', points=5, split='test', limit=256)
    assert found['losses'].shape == (5, 5) and found['places'].tolist() == [-1, -0.5, 0, 0.5, 1]
    evaluated = [row for row in read_metrics(folder / 'fast' / 'metrics.jsonl') if row['split'] == 'test'][-1]
    assert evaluated['n_seen'] == 256 and found['losses'][2, 2] == pytest.approx(evaluated['loss'], rel=1e-4)
    assert '256 images of test; 25 places' in capsys.readouterr().out


def test_layers_of_a_net_for_images(folder, tmp_path):
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(tmp_path / 'a.png')
    weights = f'run:{folder / "fast"}'
    found = shown(folder, tmp_path / 'a', 'activations', tmp_path / 'a.png', weights=weights)
    assert found['layer'].tolist() == ['head'] and found['counts'].sum() == 10
    slopes = shown(folder, tmp_path / 'b', 'gradients', tmp_path / 'a.png', weights=weights, **{'class': 3})
    assert slopes['edges'].min() < 0 and slopes['mean'] == pytest.approx(0, abs=1e-7)  # softmax less one-hot sums to 0


@pytest.mark.parametrize(
    ('words', 'flags', 'message'),
    [
        (('training',), {}, 'no run is given; name the folder of one after training'),
        (('training', 'slow'), {}, 'has no record of its layers; train with --config.watch.name=layers'),
        (('training', 'slow', 'fast'), {}, 'training is of one run, and 2 are given'),
        (('curves', 'none'), {}, 'none has no runs in it'),
        (('curves', 'slow'), dict(split='minival'), "run slow has no loss of 'minival'; its splits: test, train"),
        (('confusion', 'none.npz'), {}, 'there is no'),
        (('confusion', 'slow'), dict(split='minival'), "unknown split 'minival'"),
        (('mistakes', 'slow'), dict(root='x'), '--root is the place of a --data'),
        (('calibration', 'slow'), dict(bins='none'), "--bins is 'none'; expected a whole number"),
        (('confusion',), dict(weights='run:slow'), 'confusion takes no --weights, but the folder of a run'),
        (('surface',), {}, '--weights is missing'),
        (('surface', 'slow'), dict(weights='run:slow'), 'surface takes no image'),
        (('surface',), dict(weights='run:slow', reach='-1'), "--reach is '-1'; expected a number above 0"),
        (('surface',), dict(weights='run:slow', split='validation'), "unknown split 'validation'"),
        (('gradcam', 'a.png'), dict(bins=3), 'gradcam takes no --bins; it is for calibration'),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder, tmp_path, monkeypatch, words, flags, message):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as raised:
        look.main([*words, f'--out={tmp_path / "out.png"}', *(f'--{key}={value}' for key, value in flags.items())])
    assert message in str(raised.value) and '\n' not in str(raised.value)
    assert not list(tmp_path.iterdir())
