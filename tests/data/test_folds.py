"""k folds: exact shares of every class, each image held out once, and stable when images come and go."""

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import sources
from cvresearch.data.examples import ids
from cvresearch.data.folds import fold_of
from tests.data.test_folders import classes, lay

TRANSFORM = {part: {'crop': {'name': 'resize_center_crop', 'size': 8, 'resize': 8}} for part in ('train', 'eval')}


class Images:
    def __init__(self, labels, names):
        self.labels, self.names = np.array(labels, np.int32), names

    def __len__(self):
        return len(self.names)

    def ids(self, index):
        return [self.names[place] for place in index]


def images(counts):
    named = [(label, f'{"abcd"[label]}/{i}.jpg') for label, count in enumerate(counts) for i in range(count)]
    return Images(*map(list, zip(*named, strict=True)))


@pytest.mark.parametrize('counts', [(10, 7, 23), (5, 5, 5), (6, 101, 9)])
def test_every_fold_has_its_share_of_every_class(counts):
    data = images(counts)
    table = np.zeros((3, 5), int)
    np.add.at(table, (data.labels, fold_of(data, 'abc', 5)), 1)
    assert (table.sum(1) == counts).all() and (np.ptp(table, axis=1) <= 1).all()


def test_an_image_that_comes_moves_few_of_its_class_and_none_of_another():
    before, after = (
        dict(zip(d.names, fold_of(d, 'abcd', 5), strict=True)) for d in (images((40, 33)), images((41, 33, 6, 1)))
    )
    moved = [name for name in before if before[name] != after[name]]
    assert len(moved) <= 4 and all(name[0] == 'a' for name in moved)


def test_classes_of_few_images_are_spread_over_the_folds():
    """Each of 200 classes has one image: were the first fold theirs, it would have all of them."""
    names = [f'class {label}' for label in range(200)]
    data = Images(range(200), [f'{name}/0.jpg' for name in names])
    assert np.bincount(fold_of(data, names, 5), minlength=5).max() < 70


def test_folds_never_change():
    """Digests by hand: blake2b(id, key=KEY, digest_size=8); a fold that moves is another experiment."""
    from hashlib import blake2b

    from cvresearch.data.folds import KEY

    data, at = images((10,)), lambda s: int.from_bytes(blake2b(s.encode(), digest_size=8, key=KEY).digest(), 'big')
    order = sorted(data.names, key=at)
    expected = {name: (rank // 2 + at('a')) % 5 for rank, name in enumerate(order)}
    assert dict(zip(data.names, fold_of(data, 'a', 5).tolist(), strict=True)) == expected
    assert KEY == b'cvresearch: the folds of a training split'


def test_each_training_image_is_held_out_once_and_the_test_images_stay(tmp_path):
    classes(tmp_path, 20)
    load = lambda **more: sources.load({'name': 'image_folder', 'root': str(tmp_path), **more}, 0, TRANSFORM)  # noqa: E731
    names = lambda source, split: ids(source.splits[split], range(len(source.splits[split])))  # noqa: E731
    whole, runs = load(), [load(folds=4, fold=fold) for fold in range(4)]
    held = [name for run in runs for name in names(run, 'minival')]
    assert sorted(held) == sorted(names(whole, 'train')) and len(set(held)) == len(held)
    for run in runs:
        assert names(run, 'test') == names(whole, 'test')
        assert not set(names(run, 'train')) & set(names(run, 'minival'))
    assert 'fold 2 of 4' in ' '.join(runs[2].notes)


def test_arrays_have_folds_too():
    parts = [sources.load(dict(name='fake', train=100, test=10, folds=5, fold=fold)).splits for fold in range(5)]
    assert sum(len(part['minival']) for part in parts) == 100 and all(len(part['test']) == 10 for part in parts)


@pytest.mark.parametrize(
    ('more', 'minival', 'message'),
    [
        (dict(folds=1), 0, 'expected at least 2'),
        (dict(folds=5, fold=5), 0, 'expected 0 to 4'),
        (dict(fold=2), 0, 'both'),
        (dict(folds='5'), 0, 'expected int'),
        (dict(folds=5), 3, 'of its own, or of a fold'),
        (dict(folds=100, fold=0), 0, 'fewer folds'),
    ],
)
def test_mistakes_are_one_line(tmp_path, more, minival, message):
    lay(tmp_path, 'train/a/1.jpg', 'train/a/2.jpg', 'train/b/1.jpg', 'test/a/1.jpg')
    if more == dict(folds=100, fold=0):
        from cvresearch.data.folds import fold_of

        data = sources.load({'name': 'image_folder', 'root': str(tmp_path)}, 0, TRANSFORM)
        taken = set(fold_of(data.splits['train'], 'ab', 100).tolist())
        more = more | {'fold': next(fold for fold in range(100) if fold not in taken)}
    with pytest.raises(UserError, match=message):
        sources.load({'name': 'image_folder', 'root': str(tmp_path), **more}, minival, TRANSFORM)


def test_validation_images_of_its_own_and_folds_exclude_each_other(tmp_path):
    lay(tmp_path, *(f'{split}/{name}/{i}.jpg' for split in ('train', 'val', 'test') for name in 'ab' for i in range(4)))
    with pytest.raises(UserError, match='validation images of its own'):
        sources.load({'name': 'image_folder', 'root': str(tmp_path), 'folds': 2}, 0, TRANSFORM)


def test_a_class_with_fewer_images_than_folds_is_told(tmp_path):
    lay(tmp_path, *(f'train/{name}/{i}.jpg' for name, n in (('a', 9), ('b', 3)) for i in range(n)), 'test/a/1.jpg')
    source = sources.load({'name': 'image_folder', 'root': str(tmp_path), 'folds': 5}, 0, TRANSFORM)
    assert any("'b' (3)" in note and "'a'" not in note for note in source.notes)
