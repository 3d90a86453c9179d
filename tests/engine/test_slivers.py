"""Whole runs with images that resizing or decoding could not take: handled, or named; a lack of memory is no damage."""

import errno

import cv2
import numpy as np
import pytest
from PIL import Image

from cvresearch import evaluate, train
from cvresearch.base.errors import RunError
from cvresearch.base.records import read_card
from cvresearch.data import sources
from cvresearch.data.transforms import Transform
from tests.engine.test_datasets import COLOURS, images, training


@pytest.mark.parametrize('shape', [(2, 20_000), (1, 60_000), (60_000, 1)], ids=str)
def test_a_run_with_a_sliver_among_its_images_trains_and_is_evaluated_to_the_end(tmp_path, shape):
    root = images(tmp_path / 'images')
    for split in ('train', 'val'):
        sliver = np.full((*shape, 3), COLOURS['cat'], np.uint8)
        Image.fromarray(sliver).save(root / split / 'cat/sliver.png')
    config = training(root, epochs='2')
    assert train.run(config, tmp_path / 'run') == 0
    card = read_card(tmp_path / 'run')
    assert (card['damaged'], card['final']['test']['n_seen']) == ([], 13)  # it is no damage: it is one of them
    assert evaluate.run(tmp_path / 'run', protocol='resnet_10')['n_seen'] == 13


def run_into(error, root, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(Transform, '__call__', fail)
    spec = dict(name='image_folder', root=str(root), most_damaged=1.0)
    source = sources.load(spec, 0, training(root).transform)
    return source.splits['train'], source.splits['test']


class LackError(cv2.error):
    code = cv2.Error.StsNoMem


@pytest.mark.parametrize('error', [MemoryError(), OSError(errno.ENOMEM, 'no memory'), LackError('no memory')], ids=repr)
def test_lack_of_memory_ends_a_run_by_its_name_and_is_no_damage(tmp_path, monkeypatch, error):
    for examples in run_into(error, images(tmp_path), monkeypatch):
        with pytest.raises(RunError, match=r'memory is lacking at the image cat/img\d\d.png, which takes up to .* MB'):
            examples.take(np.arange(3))
        assert not (examples.damage and examples.damage.found)


def test_what_opencv_refuses_is_damage_and_named(tmp_path, monkeypatch):
    train_images, test = run_into(cv2.error('assertion failed'), images(tmp_path), monkeypatch)
    with pytest.raises(RunError, match=r'the image cat/img50.png cannot be decoded .assertion failed'):
        test.take(np.arange(1))
    with pytest.raises(RunError, match='no replacement was found for the damaged image'):
        train_images.take(np.arange(1))
    assert train_images.damage.found
