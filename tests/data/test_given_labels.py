"""Which images are used of those that a net has labelled, and files that do not fit."""

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import identity, sources
from cvresearch.data.given_labels import LabelFile, chosen, counts

# Images 0 to 5: of classes 0, 0, 0, 1, 1, 2, at these confidences.
SAID = np.array([
    [0.9, 0.1, 0.0], [0.6, 0.2, 0.2], [0.7, 0.3, 0.0], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4],
], np.float32)  # fmt: skip


@pytest.mark.parametrize(
    ('selection', 'expected'),
    [
        (dict(), [0, 2, 1, 3, 4, 5]),  # class by class, the surest first
        (dict(threshold=0.65), [0, 2, 3]),
        (dict(per_class=2), [0, 2, 3, 4, 5, 5]),  # the top two; the only one of its class twice
        (dict(per_class=4), [0, 2, 1, 0, 3, 4, 3, 4, 5, 5, 5, 5]),
        (dict(best=0.5), [0, 2, 3, 5]),  # half of three, rounded up; half of two; half of one, rounded up
    ],
)
def test_the_selection_by_hand(selection, expected):
    assert chosen(SAID, **selection).tolist() == expected


def test_counts_by_confidence():
    assert counts(SAID).tolist() == [3, 2, 1] and counts(SAID, 0.65).tolist() == [2, 1, 0]


FAKE = dict(name='fake', image_size=4, channels=1, classes=3, train=6, test=3)


@pytest.fixture
def file(tmp_path):
    images = sources.load(FAKE, without_labels=FAKE).unlabelled
    names = tuple(f'class {c}' for c in (2, 0, 1))  # the teacher's order
    LabelFile(SAID[:, [2, 0, 1]], names, identity.images_sha256(images), 'run:teacher').save(tmp_path / 'labels.npz')
    return str(tmp_path / 'labels.npz')


def test_labels_come_in_the_students_order_with_their_images(file):
    source = sources.load(FAKE, without_labels={**FAKE, 'labels': file, 'per_class': 2})
    shown, targets = source.unlabelled.take(np.arange(6))
    np.testing.assert_array_equal(targets, SAID[[0, 2, 3, 4, 5, 5]])
    np.testing.assert_array_equal(shown, sources.load(FAKE).splits['train'].take(np.array([0, 2, 3, 4, 5, 5]))[0])
    hard = sources.load(FAKE, without_labels={**FAKE, 'labels': file, 'hard': True}).unlabelled
    np.testing.assert_array_equal(hard.take(np.arange(6))[1].argmax(1), [0, 0, 0, 1, 1, 2])
    assert identity.of(source)['unlabelled'] != identity.of(sources.load(FAKE, without_labels=FAKE))['unlabelled']


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(threshold=0.45), ("leaves no image of 'class 2'", '0 to 3 of 6')),
        (dict(train=7), ('other images',)),
        (dict(seed=1), ('other images',)),
        (dict(labels='/nothing/labels.npz'), ('holds no labels',)),
        (dict(threshold=1.5), ('threshold is 1.5',)),
    ],
)
def test_what_does_not_fit_is_one_line(file, change, words):
    with pytest.raises(UserError) as error:
        sources.load(FAKE, without_labels={**FAKE, 'labels': file, **change})
    assert all(word in str(error.value) for word in words) and '\n' not in str(error.value)


def test_a_teacher_of_other_classes_is_refused(file, tmp_path):
    images = sources.load(FAKE, without_labels=FAKE).unlabelled
    LabelFile(SAID, ('a', 'b', 'c'), identity.images_sha256(images), 'run:teacher').save(tmp_path / 'other.npz')
    with pytest.raises(UserError, match='teacher of other classes'):
        sources.load(FAKE, without_labels={**FAKE, 'labels': str(tmp_path / 'other.npz')})


def test_photographs_keep_their_distributions(tmp_path):
    data = dict(name='fake_photographs', classes=3, train=6, test=3)
    transform = {part: {'crop': {'name': 'resize_center_crop', 'size': 8, 'resize': 8}} for part in ('train', 'eval')}
    images = sources.load(data, transform=transform, without_labels=data).unlabelled.encoded
    names = tuple(f'class {c}' for c in range(3))
    LabelFile(SAID, names, identity.images_sha256(images), 'run:teacher').save(tmp_path / 'labels.npz')
    without = {**data, 'labels': str(tmp_path / 'labels.npz')}
    source = sources.load(data, transform=transform, without_labels=without)
    np.testing.assert_array_equal(source.unlabelled.take(np.arange(6))[1], SAID[[0, 2, 1, 3, 4, 5]])
