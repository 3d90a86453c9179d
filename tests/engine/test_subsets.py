"""Evaluations of a part of a split: which images, and what the record, the kept predictions and others say of it."""

import json
import shutil

import numpy as np
import pytest

from cvresearch import evaluate
from cvresearch.base.errors import UserError
from cvresearch.data import sources
from cvresearch.data.examples import Arrays, Facts, Source
from cvresearch.evaluation import score
from cvresearch.evaluation.predictions import Predictions, check_same_images
from tests.engine.test_datasets import finished, paint  # noqa: F401


def source(size):
    labels = np.arange(size) * 3 // size
    facts = Facts('x', ('a', 'b', 'c'), (1, 1, 1), (0.0,), (1.0,))
    return Source(facts, {'test': Arrays(np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1), labels)})


@pytest.mark.parametrize(
    'size, how, index',
    [
        (12, dict(limit=3), [0, 4, 8]),
        (12, dict(limit=5), [0, 2, 4, 7, 9]),
        (12, dict(every=5), [0, 5, 10]),
        (12, dict(limit=12), None),
        (12, dict(limit=99), None),
        (12, dict(every=1), None),
        (1, dict(every=7), None),
        (12, dict(limit=1), [0]),
        (12, dict(every=99), [0]),
    ],
)
def test_a_part_is_spread_evenly_over_the_split(size, how, index):
    part = sources.part_of(source(size), 'test', **how)
    seen = part.splits['test'].take(np.arange(len(part.splits['test'])))[0].ravel().tolist()
    assert seen == (list(range(size)) if index is None else index)
    assert part.subset == ({} if index is None else how | {'of': size})


def test_a_part_is_chosen_in_one_way_of_a_split_that_is_there():
    with pytest.raises(UserError, match='expected one of them'):
        sources.part_of(source(12), 'test', 2, 2)
    with pytest.raises(UserError, match="unknown split 'tset'"):
        sources.part_of(source(12), 'tset', 2)


def test_record_and_kept_predictions_say_the_part(finished, tmp_path, capsys):  # noqa: F811
    workdir = shutil.copytree(finished / 'run', tmp_path / 'run')
    assert evaluate.main([f'--workdir={workdir}']) == 0
    assert evaluate.main([f'--workdir={workdir}', '--every=2', '--batch_size=4']) == 0
    assert evaluate.main([f'--workdir={workdir}', '--limit=3']) == 0
    assert evaluate.main([f'--workdir={workdir}', '--limit=3', '--ensemble=runs', str(workdir), '--format=text']) == 0
    whole, half, three, *text = capsys.readouterr().out.splitlines()
    whole, half, three = map(json.loads, (whole, half, three))
    assert 'subset' not in whole and whole['n_seen'] == 12
    assert (half['n_seen'], half['subset']) == (6, {'every': 2, 'of': 12})
    assert (three['n_seen'], three['subset']) == (3, {'limit': 3, 'of': 12})
    assert len({record['images_sha256'] for record in (whole, half, three)}) == 3
    assert text[-1].startswith('3 images (of 12) of test')
    kept = [Predictions.load(path) for path in sorted((workdir / 'predictions').glob('test_*.npz'))]
    assert sorted(len(each.labels) for each in kept) == [3, 3, 6, 12]
    with pytest.raises(UserError, match='are of other images'):
        check_same_images(*kept[:1], max(kept, key=lambda each: len(each.labels)))
    assert score.score(min(kept, key=lambda each: len(each.labels)))['subset'] == three['subset']


def test_a_part_of_other_data(finished, tmp_path):  # noqa: F811
    paint(tmp_path / 'other')
    record = evaluate.run(finished / 'run', data='image_folder', root=str(tmp_path / 'other'), every=10)
    assert (record['n_seen'], record['subset'], record['top1']) == (3, {'every': 10, 'of': 30}, 100)


@pytest.mark.parametrize('flag', ['--limit=0', '--every=0', '--limit=-1', '--every=half'])
def test_numbers_are_checked(finished, flag):  # noqa: F811
    with pytest.raises(UserError, match='expected a whole number of at least 1'):
        evaluate.main([f'--workdir={finished}/run', flag])
