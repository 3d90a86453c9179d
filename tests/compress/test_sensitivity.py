"""The scan of layers against the same net pruned by hand and evaluated."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from cvresearch.base.errors import UserError
from cvresearch.compress import sensitivity
from cvresearch.report import figures
from tests.compress.test_command import net, photos  # noqa: F401


def test_one_layer_at_a_time_is_pruned_and_measured(net, photos, tmp_path):  # noqa: F811
    out, shares = tmp_path / 'scan.json', (0.5, 1.0)
    flags = ['--weights', 'run:x', '--data', 'image_folder', '--root', str(photos), '--shares', '1.0,0.5']
    assert sensitivity.main([*flags, '--layer', 'head', '--layer', 'C1', '--out', str(out)]) == 0
    record = json.loads(out.read_text())
    assert (record['layers'], record['shares'], record['n_seen']) == (['C1', 'head'], [0.5, 1.0], 12)
    assert record['whole'] == 100  # the folders are named by the net's own answers
    for layer, values in zip(record['layers'], record['top1'], strict=True):
        for share, value in zip(shares, values, strict=True):
            params = jax.tree.map(np.array, net.variables['params'])
            kernel = params[layer]['kernel']
            order = np.argsort(np.abs(kernel).reshape(-1), kind='stable')[: round(share * kernel.size)]
            kernel.reshape(-1)[order] = 0
            assert value == pytest.approx(_top1(net, {**net.variables, 'params': params}, photos))
    with pytest.raises(UserError, match='nothing is overwritten'):
        sensitivity.main([*flags, '--out', str(out)])
    assert figures.main(['sensitivity', '--curve', str(out), '--out', str(tmp_path / 'scan.svg')]) == 0
    assert 'head' in (tmp_path / 'scan.svg').read_text()


def _top1(net, variables, photos):  # noqa: F811
    files = sorted(photos.rglob('*.png'))
    pixels = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    logits = net.module.apply(variables, np.asarray(net.normalize(pixels)), train=False)
    names = [net.class_names[answer] for answer in np.asarray(logits).argmax(-1)]
    return 100 * np.mean([name == file.parent.name for name, file in zip(names, files, strict=True)])


@pytest.mark.parametrize(('shares', 'message'), [('0.5,1.5', 'from 0 to 1'), ('much', 'such as 0.5,0.9')])
def test_shares_out_of_range_are_an_error(net, photos, tmp_path, shares, message):  # noqa: F811
    flags = ['--weights', 'run:x', '--data', 'image_folder', '--root', str(photos), '--shares', shares]
    with pytest.raises(UserError, match=message):
        sensitivity.main([*flags, '--out', str(tmp_path / 'scan.json')])
    assert not (tmp_path / 'scan.json').exists()
