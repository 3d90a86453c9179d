"""Compound scaling: candidates counted from the traced program, chosen from what was trained."""

import csv
import io
import json

import pytest

from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from launch import compound


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Steps of a coefficient that leave a grid of few nets to count."""
    monkeypatch.setattr(compound, 'STEP', 0.2)


@pytest.fixture(scope='module')
def lab():
    return compound.Laboratory(configs.load('configs/resnet8_mnist5k.py', {'data.image_size': '28'}))


def test_the_grid_is_within_the_budget_as_counted(lab):
    grid = lab.grid(2.0, 0.1)
    assert grid and all(1.8 <= c.macs / lab.base.macs <= 2.2 for c in grid)
    assert all(0.6 < c.alpha * c.beta**2 * c.gamma**2 / 2 < 1.6 for c in grid)
    assert all(sum(x > 1 for x in (c.alpha, c.beta, c.gamma)) >= 2 for c in grid)


def test_one_dimension_alone_reaches_the_same_cost(lab):
    for kind, place in (('depth', 'alpha'), ('width', 'beta'), ('resolution', 'gamma')):
        net = lab.single(kind, 2.0)
        assert [name for name in ('alpha', 'beta', 'gamma') if getattr(net, name) != 1] == [place]
        assert 1.5 < net.macs / lab.base.macs < 2.6, kind


def test_mobilenets_are_scaled_by_their_repeats_and_width():
    lab = compound.Laboratory(configs.load('configs/mobilenet025_mnist5k.py', {'data.image_size': '32'}))
    net = lab.candidate('compound', 1.5, 2.0, 1.0)
    assert net.setting['model.repeats'] == (2, 3, 3, 9, 3) and net.setting['model.width'] == 2 * lab.candidate(
        'base', 1, 1, 1).setting['model.width']  # fmt: skip
    assert net.macs > 3 * lab.base.macs  # about beta^2 where channels are many


def test_efficientnets_are_scaled_by_their_multipliers():
    lab = compound.Laboratory(configs.load('configs/efficientnet_mnist5k.py', {'data.image_size': '32'}))
    own = lab.candidate('base', 1.0, 1.0, 1.0).setting
    net = lab.candidate('compound', 1.2, 1.1, 1.25)
    assert net.setting['model.depth'] == own['model.depth'] * 1.2 and net.setting['data.image_size'] == 40
    assert net.macs > lab.base.macs


def test_resnets_are_scaled_by_their_layers_and_width(lab):
    net = lab.candidate('compound', 2.0, 1.5, 1.0)
    assert net.setting == {'model.depth': 14, 'model.width': 1.5, 'data.image_size': 28}
    # Twice the blocks and 1.5^2 the channels, but for the first convolution and the head.
    assert 2.2 * 1.5**2 / 1.5 < net.macs / lab.base.macs < 2.5 * 1.5**2


def test_a_compound_that_rounds_to_another_net_is_left_out(lab):
    alone, rounded = lab.candidate('resolution', 1.0, 1.0, 1.4), lab.candidate('compound', 1.1, 1.0, 1.4)
    assert rounded.setting == alone.setting and compound.distinct([lab.base, alone, rounded]) == [lab.base, alone]
    # 8 layers and 16 channels at first, whether 1.0 or 1.02 times as wide.
    wider = lab.candidate('compound', 1.0, 1.02, 1.4)
    assert wider.setting != alone.setting and compound.distinct([lab.base, alone, wider]) == [lab.base, alone]


def test_the_best_compound_is_chosen_and_scaled(tmp_path, capsys, monkeypatch):
    """The runs are written by hand: the second candidate is the best."""
    monkeypatch.setattr(
        compound.Laboratory,
        'grid',
        lambda self, *_: [self.candidate('compound', 1.2, 1.1, 1.1), self.candidate('compound', 1.0, 1.2, 1.2)],
    )
    scores = iter([90.0, 91.0, 92.0, 93.0, 94.0, 95.5])

    class Finished:
        def __init__(self, runs, jobs):
            for run in runs:
                run.workdir.mkdir(parents=True)
                (run.workdir / 'config.json').write_text('{}')
                (run.workdir / 'run.json').write_text(json.dumps({'status': 'finished'}))
                row = {'step': 1, 'split': 'test', 'top1': next(scores)}
                (run.workdir / 'metrics.jsonl').write_text(json.dumps(row) + '\n')

        def go(self):
            return 0

    monkeypatch.setattr(compound.local, 'Local', Finished)
    arguments = ['--config', 'configs/resnet8_mnist5k.py', '--config.data.image_size=28', '--format', 'csv']
    out = tmp_path / 'compound.json'
    assert compound.main([*arguments, '--workdir', str(tmp_path / 's'), '--phi', '2', '--out', str(out)]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert [(r[0], r[6]) for r in rows[1:7]] == [
        ('base', '90.00'),
        ('depth', '91.00'),
        ('width', '92.00'),
        ('resolution', '93.00'),
        ('compound', '95.50'),
        ('compound', '94.00'),
    ]
    assert [r[1:4] for r in rows[8:]] == [['1.0', '1.2', '1.2'], ['1.0', '1.44', '1.44']]
    assert [row['top-1'] for row in json.loads(out.read_text())['rows']] == [r[6] for r in rows[1:7]]


@pytest.mark.parametrize(
    ('spec', 'message'),
    [('configs/lenet5_mnist5k.py', 'no multipliers'), ('configs/mobilenetv2_100.py', 'no multipliers')],
)
def test_nets_without_multipliers_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        compound.Laboratory(configs.load(spec))
