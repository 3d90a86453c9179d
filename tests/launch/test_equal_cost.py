"""Ensembles of one cost: which runs are set beside which, and one table of runs that were trained."""

import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from launch import equal_cost

SETTINGS = [(4.0, 4.0, 0), (4.0, 2.0, 0), (2.0, 2.0, 100), (2.0, 2.0, 101), (1.0, 1.0, 100)]  # epochs, cycle, seed


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """A folder of runs: one cosine, two cycles, two nets half as long, and one of four nets a quarter as long."""
    folder = tmp_path_factory.mktemp('study')
    for epochs, cycle, seed in SETTINGS:
        overrides = {
            'model.name': 'softmax_regression', 'data.name': 'digits', 'epochs': str(epochs), 'seed': str(seed),
            'schedule.t_0_epochs': str(cycle), 'mesh.data': '1', 'evaluate_every_epochs': '4',
        }  # fmt: skip
        config = configs.load('configs/snapshots_mnist500.py', overrides)
        assert train.run(config, folder / f'{epochs:g}-{cycle:g}-{seed}') == 0
    return folder


def test_ensembles_stand_beside_the_cosine_of_their_seed_and_cost(study):
    rows = equal_cost.plan(equal_cost.read(sorted(study.iterdir())))
    kinds = [(row['nets'], row['M'], [path.name for path in row['folders']]) for row in rows]
    assert kinds == [
        ('one cosine', 1, ['4-4-0']), ('snapshots', 2, ['4-2-0']), ('weights', 2, ['4-2-0']),
        ('runs', 2, ['2-2-100', '2-2-101']),
    ]  # fmt: skip
    assert all(row['cosine'].name == '4-4-0' for row in rows)
    with pytest.raises(UserError, match='no run of one cosine'):
        equal_cost.plan(equal_cost.read([study / '4-2-0']))


def test_all_have_seen_as_many_images_and_are_tested_against_the_cosine(study):
    rows = [equal_cost.measured(row) for row in equal_cost.plan(equal_cost.read(sorted(study.iterdir())))]
    assert len({row['images'] for row in rows}) == 1 and all(row['n_seen'] == 355 for row in rows)
    cosine, *others = rows
    assert cosine['mcnemar_p'] is None
    for row in others:
        assert float(row['against the cosine']) == pytest.approx(float(row['top1']) - float(cosine['top1']), abs=0.011)
        assert 0 < float(row['mcnemar_p']) <= 1
