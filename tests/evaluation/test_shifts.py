"""Accuracy by the shift of the images, of a net that was trained."""

import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.evaluation import shifts


def test_the_middle_of_the_grid_is_the_plain_accuracy_and_far_shifts_are_worse(tmp_path):
    config = configs.load('configs/lenet5_digits.py', {
        'model.name': 'softmax_regression', 'epochs': '4', 'mesh.data': '1', 'save_every_epochs': '0',
        'evaluate_every_epochs': '4',
    })  # fmt: skip
    assert train.run(config, tmp_path / 'run') == 0
    side = shifts.Run.open(tmp_path / 'run').experiment.source.facts.image_shape[0]
    found = shifts.measure(tmp_path / 'run', reach=side // 2, step=side // 4)
    assert found['places'] == [side // 4 * place for place in (-2, -1, 0, 1, 2)]
    middle, corner = found['grid'][2][2], found['grid'][0][0]
    assert middle == found['as_given']['top1'] > 80 and corner < 30
    assert corner < found['shifted']['top1'] < middle and found['shifted']['n_seen'] == found['images_of_grid'] == 355
    with pytest.raises(UserError, match='less than the side'):
        shifts.measure(tmp_path / 'run', reach=side, step=1)
