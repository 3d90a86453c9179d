"""A run that ends before its epochs are over: the beginning of the whole one, on the whole one's schedule."""

import pytest

from cvresearch import train
from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment, Plan
from cvresearch.evaluation.predictions import Predictions
from cvresearch.report import tables
from tests.engine.test_continuing import digest, rows


def test_steps_are_cut_and_the_schedules_are_not(smoke):
    assert Plan(100, 7, 5.0, 30).steps == 30 and Plan(100, 7, 5.0, 30).all_steps == 72
    assert Plan(100, 7, 5.0, 0).steps == Plan(100, 7, 5.0, 99).steps == 72
    whole, cut = (Experiment.from_config(smoke(max_steps=n, snapshot_every_epochs=0.125)) for n in (0, 5))
    assert [float(cut.schedule(step)) for step in range(8)] == [float(whole.schedule(step)) for step in range(8)]
    assert cut.snapshots == {step for step in whole.snapshots if step <= 5} and len(cut.snapshots) == 2
    with pytest.raises(UserError, match='max_steps is -1; expected at least 0'):
        Experiment.from_config(smoke(max_steps=-1))


def test_a_cut_run_is_the_beginning_of_the_whole_one_and_says_so(smoke, tmp_path):
    assert train.run(smoke(log_every_steps=1), tmp_path / 'whole') == 0
    path = tmp_path / 'run'
    assert train.run(smoke(log_every_steps=1, max_steps=3), path) == 0
    card = read_card(path)
    assert (card['status'], card['step'], card['images_seen']) == ('finished', 3, 3 * 64)
    early = card['stopped_early']
    assert (early['step'], early['of_steps'], early['why']) == (3, 8, 'config.max_steps=3')
    assert card['final']['test']['step'] == 3 and card['final']['test']['n_seen'] == 256
    assert Predictions.load(path / 'predictions/test.npz').record['step'] == 3
    assert Checkpoints(path / 'checkpoints', read_only=True).steps()[-1] == 3
    rates = [[row['learning_rate'] for row in rows(tmp_path / name, 'train')] for name in ('run', 'whole')]
    assert rates[0] == rates[1][:3]
    assert tables.results([path])[0]['epochs'] == round(3 / 16, 1) != tables.results([tmp_path / 'whole'])[0]['epochs']

    assert train.run(smoke(log_every_steps=1, max_steps=3), path) == 0 and read_card(path) == card
    with pytest.raises(UserError, match=r'max_steps: 3 -> 0\); add --extend to the command'):
        train.run(smoke(log_every_steps=1), path)
    with pytest.raises(UserError, match=r'max_steps: 3 -> 2\); a run cannot be shortened'):
        train.run(smoke(log_every_steps=1, max_steps=2), path, extend=True)
    assert train.run(smoke(log_every_steps=1), path, extend=True) == 0
    card = read_card(path)
    assert digest(path) == digest(tmp_path / 'whole') and card['step'] == 8
    assert 'stopped_early' not in card and 'extended_from' not in card
    (said,) = card['sessions'][-1]['continued_with']
    assert said.startswith('goes on from 3 to 8 of 8 steps')


def test_statistics_made_precise_at_the_cut_are_not_the_whole_run_s(smoke, tmp_path):
    given = dict(model__name='cnn_gap', precise_batches=2)
    config = smoke(**given, max_steps=2)
    assert train.run(config, tmp_path / 'run') == 0
    assert train.run(smoke(**given, max_steps=3), tmp_path / 'run', extend=True) == 0
    assert read_card(tmp_path / 'run')['extended_from'] == [0.125]
