"""Metrics of kept predictions as a program, and the table of ensembles over seeds."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from cvresearch.base.errors import UserError
from cvresearch.evaluation import score
from cvresearch.evaluation.predictions import Predictions
from cvresearch.report import ensembles


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 300).astype(np.int32)
    logits = rng.normal(size=(300, 10)) + 3 * np.eye(10)[labels]
    Predictions(logits.astype(np.float32), labels, {'split': 'test'}).save(tmp_path / 'a.npz')
    Predictions(logits[:, ::-1].astype(np.float32), labels, {'split': 'test'}).save(tmp_path / 'b.npz')
    return tmp_path / 'a.npz'


def test_score_prints_metrics_and_writes_tables_and_a_picture(file, tmp_path, capsys):
    flags = [f'--{name}={tmp_path}/{name}.csv' for name in ('confusion', 'classes', 'calibration')]
    assert score.main([str(file), str(tmp_path / 'b.npz'), *flags]) == 0
    values = json.loads(capsys.readouterr().out)
    found = Predictions.load(file)
    assert values['top1'] == pytest.approx(100 * found.right.mean()) and values['n_seen'] == 300
    low, high = values['interval_95%']
    assert low < values['top1'] < high and values['mcnemar']['only_first'] > values['mcnemar']['only_second']
    rows = list(csv.DictReader((tmp_path / 'confusion.csv').open()))
    counts = np.array([[int(row[str(c)]) for c in range(10)] for row in rows])
    assert counts.sum() == 300 and np.diag(counts).sum() == found.right.sum()
    assert len(list(csv.DictReader((tmp_path / 'classes.csv').open()))) == 10
    bins = list(csv.DictReader((tmp_path / 'calibration.csv').open()))
    assert sum(int(row['count']) for row in bins) == 300
    with Image.open(tmp_path / 'confusion.png') as picture:
        assert min(picture.size) > 500 and len(set(picture.convert('L').resize((64, 64)).tobytes())) > 20


def test_of_several_labels_any_is_right_and_images_without_do_not_count():
    logits = np.eye(4, dtype=np.float32)
    labels = np.array([[0, -1], [0, 1], [3, 0], [-1, -1]], np.int32)
    values = score.score(Predictions(logits, labels, {}))
    assert values['real'] == pytest.approx(200 / 3) and (values['n_labelled'], values['n_seen']) == (3, 4)


@pytest.mark.parametrize(('name', 'message'), [('c.npz', 'there is no'), ('text', 'holds no predictions')])
def test_a_file_that_is_none_is_one_line(tmp_path, name, message):
    (tmp_path / 'text').write_text('nothing')
    with pytest.raises(UserError, match=message):
        Predictions.load(tmp_path / name)


def test_other_images_are_not_compared(file, tmp_path):
    found = Predictions.load(file)
    with pytest.raises(UserError, match='other images'):
        score.score(found, Predictions(found.logits[:10], found.labels[:10], {}))


def result(top1, nll=0.2, **more):
    return dict(top1=top1, nll=nll, ece=0.01, n_seen=1000, **more)


def record(seed, ours, cosine, constant):
    mcnemar = dict(only_first=1, only_second=1, p=0.5)
    pairs = dict(disagreement=[[0, 0.1], [0.1, 0]], correlation=[[1, 0.9], [0.9, 1]])
    own = result(constant, mcnemar=mcnemar, **pairs)
    controls = [
        result(cosine, mcnemar=mcnemar, control='cosine', same_cost=True),
        result(constant, mcnemar=mcnemar, control='constant', same_cost=True, snapshots=own),
    ]
    members = [result(ours - 1, seed=seed), result(ours, seed=seed)]
    return dict(members=members, curve=[result(ours), result(ours, 0.1)], controls=controls, **pairs)


@pytest.mark.parametrize(
    ('gains', 'verdict'),
    # Three differences with mean 1 and deviation 0.1: t = 1 / (0.1 / sqrt 3) = 17. With deviation 1: 1.7 < 4.30.
    [((0.9, 1.0, 1.1), 'is better, with 95'), ((0, 1, 2), 'no proof'), ((-0.9, -1, -1.1), 'is worse')],
)
def test_the_verdict_goes_by_the_interval_over_seeds(tmp_path, gains, verdict, capsys):
    for seed, gain in enumerate(gains):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / 'ensemble.json').write_text(json.dumps(record(seed, 95 + gain, 95, 95)))
        (folder / 'average.json').write_text(json.dumps(result(90)))
    assert ensembles.main([str(tmp_path / str(seed)) for seed in range(3)]) == 0
    page = capsys.readouterr().out
    assert verdict in page and '| ensemble of the last 2 |' in page and '10.00 % of the images' in page


def test_controls_of_another_cost_are_refused(tmp_path):
    other = record(0, 95, 95, 95)
    other['controls'][0]['same_cost'] = False
    (tmp_path / 'ensemble.json').write_text(json.dumps(other))
    (tmp_path / 'average.json').write_text('{}')
    with pytest.raises(UserError, match='another cost'):
        ensembles.read([tmp_path])


@pytest.mark.parametrize('keys', [('controls', 1), ('controls', 1, 'snapshots')], ids=['one control', 'no snapshots'])
def test_a_control_that_is_missing_or_kept_no_snapshots_is_named(tmp_path, keys):
    for seed in (0, 1):
        one = record(seed, 95, 95, 95)
        holder = one
        for key in keys[:-1]:
            holder = holder[key]
        del holder[keys[-1]]
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / 'ensemble.json').write_text(json.dumps(one))
        (tmp_path / str(seed) / 'average.json').write_text(json.dumps(result(90)))
    with pytest.raises(UserError, match='a constant rate that keeps snapshots'):
        ensembles.read([tmp_path / '0', tmp_path / '1'])
