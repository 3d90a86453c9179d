"""What own data need, in whole runs: weights and shares of classes, a run that stops early, folds, several labels."""

import dataclasses
import json
import statistics

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from cvresearch import evaluate, train
from cvresearch.base import config as configs
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.engine.experiment import Experiment
from cvresearch.evaluation import ensemble_text, score
from cvresearch.evaluation.predictions import Predictions
from cvresearch.report import sweep_page, tables
from launch import plan, progress
from tests.data.test_folders import classes
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
        epochs=2.0,
        minival=128,
        evaluate_every_epochs=0.125,
        save_every_epochs=0.5,
        keep=1,
        average__name='ema',
        early_stopping__name='patience',
        early_stopping__patience=3,
        early_stopping__min_delta=1.0,
        **more,
    )


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
        (dict(precise_batches=2), 'does not know beforehand'),
    ],
)
def test_early_stopping_that_cannot_be_is_one_line(smoke, values, said):
    config = patient(smoke)
    for key, value in values.items():
        configs.override(config, key.replace('__', '.'), str(value))
    with pytest.raises(UserError, match=said):
        Experiment.from_config(config)


def test_a_sweep_over_folds_holds_each_image_out_once_and_reports_mean_and_deviation(tmp_path):
    classes(tmp_path / 'photos', 15, ('cat', 'dog'))
    spec, small = (
        'configs/folder.py:folds',
        {
            'data.root': str(tmp_path / 'photos'),
            'image_size': '8',
            'model.name': 'softmax_regression',
            'epochs': '1',
            'batch_size': '8',
            'eval_batch_size': '8',
            'mesh.data': '1',
            'schedule.warmup_epochs': '0.1',
        },
    )
    runs = plan.runs_of(spec, small, list(configs.sweep_of(spec)), tmp_path / 'folds')
    assert [run.name for run in runs] == [f'fold={fold}' for fold in range(5)]
    for run in runs:
        assert train.run(run.config, run.workdir) == 0
    final = [read_card(run.workdir)['final'] for run in runs]
    first = read_card(runs[0].workdir)['dataset']['splits']
    assert sum(row['minival']['n_seen'] for row in final) == sum(first[s]['examples'] for s in ('train', 'minival'))
    held = [row['minival']['top1'] for row in final]
    page = sweep_page.page(tmp_path / 'folds')
    assert f'{statistics.mean(held):.2f}' in page and f'{statistics.stdev(held):.2f}' in page and 'folds' in page
    (row,) = tables.results([run.workdir for run in runs])
    assert row['seeds'] == ', '.join(f'0 fold {fold}' for fold in range(5))
    assert row['mean'] == f'{statistics.mean([row["test"]["top1"] for row in final]):.2f}'


def test_another_number_of_folds_than_the_sweeps_is_refused(tmp_path):
    with pytest.raises(UserError, match='folds is given, but sweep'):
        spec = 'configs/folder.py:folds'
        plan.runs_of(spec, {'data.folds': '10'}, list(configs.sweep_of(spec)), tmp_path)


@pytest.fixture(scope='module')
def several(tmp_path_factory):
    """A folder of photographs with up to two labels each, which the colours of two channels tell; its list; a run."""
    root, rng = tmp_path_factory.mktemp('several'), np.random.default_rng(0)
    lines = ['path,labels,split']
    for i in range(96):
        red, blue = bool(i % 4 & 1), bool(i % 4 & 2)
        pixels = rng.integers(0, 40, (8, 8, 3)) + 200 * np.array([red, 0, blue])
        Image.fromarray(pixels.astype(np.uint8)).save(root / f'{i}.png')
        names = '|'.join(name for name, there in (('red', red), ('blue sky', blue)) if there)
        lines.append(f'{i}.png,{names},{("train", "train", "val", "test")[i // 4 % 4]}')
    (root / 'labels.csv').write_text('\n'.join(lines))
    config = several_config(root, **{'average.name': 'ema'})
    assert train.run(config, root / 'run') == 0
    return root


def several_config(root, **more):
    return configs.load(
        'configs/folder.py',
        {
            'data.root': str(root),
            'data.list': 'labels.csv',
            'image_size': '8',
            'model.name': 'softmax_regression',
            'epochs': '20',
            'batch_size': '16',
            'eval_batch_size': '16',
            'mesh.data': '1',
            'schedule.warmup_epochs': '0.1',
            'schedule.peak': '0.05',
            'loss.name': 'sigmoid_cross_entropy',
            **more,
        },
    )


def test_several_labels_are_trained_evaluated_kept_and_scored(several, capsys):
    run = several / 'run'
    final = read_card(run)['final']
    kept = Predictions.load(run / 'predictions/test.npz')
    has = np.stack([(kept.labels == c).any(1) for c in range(2)], 1)
    assert kept.class_names == ('blue sky', 'red') and has.sum(0).tolist() == [12, 12] and not has[0].any()
    expected = 100 * average_precision_score(has, kept.logits, average='macro')
    assert final['test']['mAP'] == pytest.approx(expected) and expected > 95
    for row in (final['test'], final['minival_ema'], *rows(run)):
        assert 'top1' not in row and 'top5' not in row
    assert evaluate.run(run)['mAP'] == pytest.approx(final['test_ema']['mAP'])
    assert evaluate.run(run, weights='raw')['loss'] == pytest.approx(final['test']['loss'], rel=1e-6)
    assert score.main([str(run / 'predictions/test.npz'), '--classes', str(several / 'classes.csv')]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said['mAP'] == pytest.approx(expected) and 'exact_match_interval_95%' in said and 'top1' not in said
    assert (several / 'classes.csv').read_text().startswith('class,number,images,ap,')


def test_the_best_checkpoint_of_several_labels_is_of_map_and_training_stops_by_it(several, tmp_path, capsys):
    config = several_config(
        several,
        **{
            'early_stopping.name': 'patience',
            'early_stopping.patience': '2',
            'evaluate_every_epochs': '1',
            'keep': '30',
            'early_stopping.min_delta': '1',
            'save_every_epochs': '1',
        },
    )
    assert train.run(config, tmp_path / 'run') == 0
    held = of(tmp_path / 'run', 'minival', 'raw')
    assert read_card(tmp_path / 'run')['stopped_early']['step'] == stop_step(held, 'mAP', 2, 1.0) == held[-1]['step']
    best = max(held, key=lambda row: (row['mAP'], -row['step']))['step']
    assert evaluate.run(tmp_path / 'run', step='best')['step'] == best
    said = capsys.readouterr().err
    assert 'mAP' in said and 'top-1' not in said


def test_an_ensemble_of_several_labels_and_the_page_of_a_sweep(several, tmp_path, capsys):
    for seed in (1, 2):
        config = several_config(several, seed=str(seed), epochs='5', **{'mixing.mixup': '0.2'})
        assert train.run(config, tmp_path / f'sweep/{seed}') == 0
    whole = evaluate.run_ensemble(tmp_path / 'sweep/1', 'runs', (tmp_path / 'sweep/2',))
    assert whole['curve'][-1]['mAP'] == pytest.approx(whole['mAP']) and 'mAP' in ensemble_text.as_text(whole)
    page = sweep_page.page(tmp_path / 'sweep')
    assert 'mAP' in page and 'top-1' not in page
    with pytest.raises(UserError, match='mAP and no top-1'):
        tables.results([tmp_path / 'sweep/1'])
    (run, _) = plan.runs_of('configs/folder.py', {}, [{'seed': 1}, {'seed': 2}], tmp_path / 'other')
    run = dataclasses.replace(run, name='1', folder=tmp_path / 'sweep')
    assert run.metric() == 'mAP' and 'mAP' in progress.table([run])


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        ({'loss.name': 'softmax_cross_entropy'}, 'expected --config.loss.name=sigmoid_cross_entropy'),
        ({'sampling.name': 'balanced'}, 'several labels each: use shuffle'),
        ({'distillation.teacher': 'x'}, 'teaches one class an image'),
        ({'schedule.name': 'plateau'}, "metric is 'top1'; expected mAP or loss"),
        ({'early_stopping.name': 'patience', 'early_stopping.metric': 'top1'}, 'expected mAP or loss'),
    ],
)
def test_what_several_labels_do_not_go_with_is_one_line(several, more, said):
    with pytest.raises(UserError, match=said):
        Experiment.from_config(several_config(several, **more))


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        (['--confusion', 'x.csv'], 'no confusion matrix'),
        (['--calibration', 'x.csv'], 'no calibration'),
    ],
)
def test_what_scores_of_several_labels_have_not_is_one_line(several, argv, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        score.main([str(several / 'run/predictions/test.npz'), *argv])


def test_views_are_averaged_as_logits_and_other_labels_refused(several):
    with pytest.raises(UserError, match='set --average=logits'):
        evaluate.run(several / 'run', protocol='centre_flip')
    assert evaluate.run(several / 'run', protocol='centre_flip', average='logits')['crops'] == 2
    with pytest.raises(UserError, match='one label an image'):
        classes(several / 'photos', 2, ('red', 'blue sky'))
        evaluate.run(several / 'run', data='image_folder', root=several / 'photos')


def test_balanced_weights_of_several_labels_are_negatives_over_positives(several):
    config = several_config(several, **{'loss.class_weights': 'balanced'})
    logits, target = np.zeros((1, 2), np.float32), np.array([[1.0, 0.0]], np.float32)
    loss = Experiment.from_config(config).loss(logits, target)
    assert float(loss[0]) == pytest.approx(2 * np.log(2))  # half have each: 1
