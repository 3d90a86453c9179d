"""Layers that are watched while a run trains: what is recorded is right, and the run is the same bit for bit."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from cvresearch import train
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card, read_metrics, scalars
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.trained import TrainedRun
from cvresearch.evaluation.layers import Watcher
from cvresearch.inspect.training import BINS
from cvresearch.report import layers
from tests import seams

WATCHED = dict(watch__name='layers', watch__every_steps=3)


def rows(path):
    return [row for row in read_metrics(path / 'metrics.jsonl') if row['split'] == 'layers']


def test_a_watched_run_is_the_same_and_has_rows_and_a_picture(smoke, tmp_path):
    train.run(smoke(), tmp_path / 'plain')
    train.run(smoke(**WATCHED), tmp_path / 'watched')
    digests = [read_card(tmp_path / name)['params_sha256'] for name in ('plain', 'watched')]
    assert digests[0] == digests[1]
    found = rows(tmp_path / 'watched')
    assert [row['step'] for row in found] == [0, 3, 6, 8] and not rows(tmp_path / 'plain')
    first = found[0]
    assert list(first['activations']) == list(first['gradients']) and first['n_seen'] == 32
    assert first['loss'] == pytest.approx(np.log(10), rel=0.2)  # of a new net
    for what in ('activations', 'gradients'):
        assert all(len(one['counts']) == BINS and one['finite'] == 1 for one in first[what].values())
    assert sum(first['activations']['head']['counts']) == 32 * 10
    assert scalars(first)['layers/activations/head/std'] == first['activations']['head']['std']  # for TensorBoard
    assert Image.open(tmp_path / 'watched' / layers.PICTURE).size[0] > 1000
    assert not (tmp_path / 'plain' / layers.PICTURE).exists()


def test_the_update_is_the_one_that_the_run_makes(smoke, tmp_path):
    config = smoke(**WATCHED, max_steps=1)
    start = Experiment.from_config(config).initial_state().params['head']['kernel']
    before = np.asarray(start, np.float64)
    train.run(config, tmp_path / 'run')
    after = np.asarray(TrainedRun.open(tmp_path / 'run').checkpoint(1).params['head']['kernel'], np.float64)
    (row, last) = rows(tmp_path / 'run')
    expected = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert row['update_ratio']['head/kernel'] == pytest.approx(expected, rel=1e-6) and 'update_ratio' not in last


def test_without_a_request_nothing_is_computed_and_the_update_is_the_same_program(smoke, tmp_path, monkeypatch):
    def texts(config):
        experiment = Experiment.from_config(config)
        batch = {'image': (64, 28, 28, 1), 'label': (64,), 'epoch': (64,), 'index': (64,)}
        batch = {k: np.zeros(shape, np.uint8 if k == 'image' else np.int32) for k, shape in batch.items()}
        return experiment.train_step().lower(experiment.abstract_state(), batch).as_text()

    assert texts(smoke()) == texts(smoke(**WATCHED))
    monkeypatch.setattr(Watcher, 'record', lambda *_: pytest.fail('layers were looked at'))
    assert train.run(smoke(max_steps=2), tmp_path / 'run') == 0


def test_a_run_that_was_stopped_has_the_rows_of_one_that_was_not(smoke, tmp_path, monkeypatch):
    train.run(smoke(**WATCHED), tmp_path / 'whole')
    with monkeypatch.context() as patch:
        seams.at_step(patch, 4)
        assert train.run(smoke(**WATCHED), tmp_path / 'run') == 75
    assert train.run(smoke(**WATCHED), tmp_path / 'run') == 0
    assert json.dumps(rows(tmp_path / 'run')) == json.dumps(rows(tmp_path / 'whole'))


@pytest.mark.parametrize('keys', [dict(mesh__data=2), dict(mesh__data=1, mesh__shard=2, mesh__least=1)])
def test_rows_are_the_same_on_several_devices(smoke, tmp_path, keys):
    if jax.device_count() < 2:
        pytest.skip('needs two devices')
    train.run(smoke(**WATCHED, max_steps=1), tmp_path / 'one')
    train.run(smoke(**WATCHED, max_steps=1, **keys), tmp_path / 'two')
    one, two = (rows(tmp_path / name)[0] for name in ('one', 'two'))
    assert two['gradients'] == one['gradients']  # before the first update, nothing has been added up in another order
    assert two['update_ratio'] == pytest.approx(one['update_ratio'], rel=1e-4)


def test_watching_may_begin_when_a_run_is_continued(smoke, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        seams.at_step(patch, 4)
        train.run(smoke(), tmp_path / 'run')
    assert train.run(smoke(**WATCHED), tmp_path / 'run') == 0
    assert [row['step'] for row in rows(tmp_path / 'run')] == [6, 8]


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (dict(watch__names=('C9',)), "MLP has no layer 'C9'"),
        (dict(watch__every_steps=0), r'config.watch.every_steps is 0; expected a whole number, at least 1'),
        (dict(watch__examples=0), r'config.watch.examples is 0'),
        (dict(watch__name='layer'), "unknown watch 'layer'; did you mean layers"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(smoke, tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        train.run(smoke(**{**WATCHED, **keys}), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
