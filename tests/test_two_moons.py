"""Six labels separate the moons by Meta Pseudo Labels and not alone: one seed always, all ten among the slow tests."""

import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base.records import read_card
from tests.two_moons import SEEDS, SEPARATED


def top1(method, seed, workdir):
    overrides = {'seed': str(seed), 'data.labels_seed': str(seed), 'mesh.data': '1'}
    overrides |= {'epochs': '1000', 'evaluate_every_epochs': '1000'} if seed == 0 else {}  # half: always run
    assert train.run(configs.load(f'configs/two_moons.py:{method}', overrides), workdir / method) == 0
    return read_card(workdir / method)['final']['test']['top1'] / 100


@pytest.mark.parametrize('seed', [pytest.param(seed, marks=[pytest.mark.slow] if seed else []) for seed in SEEDS])
def test_meta_pseudo_labels_separate_the_moons_and_six_labels_alone_do_not(tmp_path, seed):
    assert top1('meta_pseudo_labels', seed, tmp_path) >= SEPARATED > 0.9 > top1('supervised', seed, tmp_path)
