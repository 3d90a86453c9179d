"""What own data need, in whole runs: weights and shares of classes, a run that stops early, folds, several labels."""


import pytest

from cvresearch import evaluate, train
from cvresearch.base import config as configs
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.engine.experiment import Experiment
from cvresearch.evaluation.predictions import Predictions
from tests.seams import at_step


def rows(workdir):
    """Returns the metrics without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in SPEED} for row in read_metrics(workdir / 'metrics.jsonl')]


def of(workdir, split, weights):
    return [row for row in rows(workdir) if (row['split'], row.get('weights')) == (split, weights)]


def test_balanced_run_is_resumed_bit_for_bit_and_records_every_epoch(smoke, tmp_path, monkeypatch):
    config = smoke(epochs=2.0, batch_size=96, sampling__name='balanced', loss__class_weights='balanced')
    assert train.run(config, tmp_path / 'alone') == 0
    with monkeypatch.context() as patch:
        at_step(patch, (7,), once=True)
        assert train.run(config, tmp_path / 'run') == PREEMPTED
    assert train.run(config, tmp_path / 'run') == 0
    assert rows(tmp_path / 'run') == rows(tmp_path / 'alone')
    assert len({read_card(tmp_path / name)['params_sha256'] for name in ('alone', 'run')}) == 1
    data = [row for row in rows(tmp_path / 'run') if row['split'] == 'data']
    assert [row['n_seen'] for row in data] == [1024, 1024] and data[0]['sha256'] != data[1]['sha256']


def patient(smoke, **more):
    """A run of 32 steps with an evaluation at every second, which nothing can gain three times in a row."""
    return smoke(
        epochs=2.0, minival=128, evaluate_every_epochs=0.125, save_every_epochs=0.5, keep=1, average__name='ema',
        early_stopping__name='patience', early_stopping__patience=3, early_stopping__min_delta=1.0, **more,
    )  # fmt: skip


def stop_step(rows, metric, patience, least):
    """The rule anew: the end of the first `patience` rows none of which is better than the best before by more."""
    sign = -1 if metric == 'loss' else 1
    values, best, since = [sign * row[metric] for row in rows], None, 0
    for number, value in enumerate(values):
        if best is None or value > best + least:
            best, since = value, number
        if number - since == patience:
            return rows[number]['step']


def test_a_run_stops_early_and_wherever_it_is_interrupted_at_the_same_step(smoke, tmp_path, monkeypatch):
    config = patient(smoke)
    assert train.run(config, tmp_path / 'alone') == 0
    card, held = read_card(tmp_path / 'alone'), of(tmp_path / 'alone', 'minival', 'ema')
    end = stop_step(held, 'top1', 3, 1.0)
    assert card['status'] == 'finished' and card['step'] == end == held[-1]['step'] < 28
    assert card['stopped_early']['of_steps'] == 28 and card['images_seen'] == 64 * end
    assert {row['step'] for row in card['final'].values()} == {end}
    for split in ('test', 'minival_ema'):
        assert Predictions.load(tmp_path / f'alone/predictions/{split}.npz').record['step'] == end
    for stops in ([end], [end - 1, end], [end - 2]):
        with monkeypatch.context() as patch:
            at_step(patch, (*stops,), once=True)
            for _ in stops:
                assert train.run(config, tmp_path / f'run{stops}') == PREEMPTED
        assert train.run(config, tmp_path / f'run{stops}') == 0
        assert rows(tmp_path / f'run{stops}') == rows(tmp_path / 'alone')
        again = read_card(tmp_path / f'run{stops}')
        assert all(again[key] == card[key] for key in ('params_sha256', 'stopped_early', 'step'))
    best = max(held, key=lambda row: (row['top1'], -row['step']))['step']
    assert evaluate.run(tmp_path / 'alone', step='best')['step'] == best == card['stopped_early']['best_step']
    assert train.run(config, tmp_path / 'alone') == 0 and read_card(tmp_path / 'alone') == card


def test_best_follows_the_metric_of_early_stopping(smoke, tmp_path):
    config = patient(smoke, early_stopping__metric='loss', schedule__peak=0.3)
    assert train.run(config, tmp_path / 'run') == 0
    held = of(tmp_path / 'run', 'minival', 'ema')
    assert held[-1]['step'] == (stop_step(held, 'loss', 3, 1.0) or 28)
    assert evaluate.run(tmp_path / 'run', step='best')['step'] == min(held, key=lambda row: row['loss'])['step']


@pytest.mark.parametrize(
    'values, said',
    [
        (dict(minival=0), 'set config.minival to how many'),
        (dict(evaluate_every_epochs=0.0), 'evaluate_every_epochs is 0'),
        (dict(early_stopping__patience=0), r'patience is 0; expected at least 1'),
        (dict(early_stopping__metric='top5'), "metric is 'top5'; expected top1 or loss"),
        (dict(batch_norm__precise_batches=2), 'does not know beforehand'),
    ],
)
def test_early_stopping_that_cannot_be_is_one_line(smoke, values, said):
    config = patient(smoke)
    for key, value in values.items():
        configs.override(config, key.replace('__', '.'), str(value))
    with pytest.raises(UserError, match=said):
        Experiment.from_config(config)
