"""The study of transfer: what is drawn, what is measured once, what is left out, and its table."""

import json

import numpy as np
import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from launch import transfer
from launch.transfer_cells import CELLS, METHODS, Cell

DIGITS = dict(name='digits', image_size=28)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of one cell: few digits, from LeNet-5 of a smoke run."""
    for seed in (0, 1, 2):
        workdir = tmp_path / 'runs' / f'source10_{seed}'
        if not seed:
            assert train.run(configs.load('configs/lenet5_fake.py:smoke', {'mesh.data': '1'}), workdir) == 0
        else:
            workdir.symlink_to(tmp_path / 'runs' / 'source10_0')
    monkeypatch.setattr(transfer, '_train', lambda *arguments: None)
    monkeypatch.setattr(transfer, 'STRENGTHS', (1.0,))
    cell = Cell('little, other', 'source10', 'digits', 'few', 10, DIGITS, ('linear',))
    monkeypatch.setattr(transfer, 'CELLS', {'digits_few': cell, 'stamps': CELLS['stamps']})
    return tmp_path


def test_record_goes_on_where_it_ended_and_the_table_has_means_over_seeds(study, capsys, monkeypatch):
    out = study / 'record.json'
    command = ['--workdir', str(study / 'runs'), '--out', str(out), '--cells', 'digits_few,stamps']
    monkeypatch.setattr(transfer, 'SEEDS', (0, 1))
    assert transfer.main(command) == 0
    assert 'stamps is left out: it needs --lite0 and --stamps' in capsys.readouterr().out
    rows = json.loads(out.read_text())['rows']
    assert [(row['seed'], row['n_train'], row['n_seen']) for row in rows] == [(seed, 100, 355) for seed in (0, 1)]
    monkeypatch.setattr(transfer, 'SEEDS', (0, 1, 2))
    assert transfer.main(command) == 0
    assert json.loads(out.read_text())['rows'][:2] == rows  # what is there is not made again
    head, _, line = transfer.table(json.loads(out.read_text())['rows']).splitlines()
    cells = dict(zip(*([part.strip() for part in text.split('|')] for text in (head, line)), strict=True))
    top1 = [row['top1'] for row in json.loads(out.read_text())['rows']]
    assert cells['linear'] == f'{np.mean(top1):.1f} ± {np.std(top1, ddof=1):.1f}' and cells['scratch'] == '-'
    assert cells['the notes advise'] == 'linear earlier' and cells['images'] == '100'


def test_seeds_draw_other_images_and_as_many_of_each_class(study):
    cell = transfer.CELLS['digits_few']
    setup = transfer.Setup({}, study / 'runs')
    pool, _ = transfer._features(cell, 0, setup)
    drawn = [transfer._drawn(cell, pool, seed) for seed in (0, 1)]
    assert all(np.bincount(pool.labels[each]).tolist() == [10] * 10 for each in drawn)
    assert 0 < (drawn[0] & drawn[1]).sum() < 50 and not (drawn[0] & (pool.splits == 'test')).any()


def test_unknown_cells_and_methods_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"unknown cell 'stamp'.*did you mean stamps"):
        transfer.main(['--workdir', str(tmp_path), '--cells', 'stamp'])
    with pytest.raises(UserError, match="unknown method 'everything'"):
        transfer.main(['--workdir', str(tmp_path), '--methods', 'everything'])
    with pytest.raises(UserError, match='--workdir is missing'):
        transfer.main([])


@pytest.mark.parametrize('name', CELLS)
def test_cells_name_methods_and_configurations_that_there_are(name):
    cell = CELLS[name]
    assert set(cell.methods) <= set(METHODS) and cell.advice
    if cell.target == 'stamps':
        return
    config = configs.load(f'configs/transfer.py:{",".join(filter(None, (cell.target, cell.amount, "lpft")))}')
    classes = len(cell.pool.get('classes', range(10)))
    assert config.data.name == cell.pool['name'] and config.data.labels == cell.per_class * classes
