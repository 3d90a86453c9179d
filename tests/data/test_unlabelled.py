"""Labels that are kept, images that lose theirs, and two streams in one."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from cvresearch.base.errors import UserError
from cvresearch.data import identity, sources, unlabelled
from cvresearch.data.examples import Arrays, ids, labels_of
from cvresearch.data.stream import Paired, Stream

FAKE = dict(name='fake', image_size=8, channels=1, classes=4, train=200, test=8)
TRANSFORM = {part: {'crop': {'name': 'resize_center_crop', 'size': 8, 'resize': 8}} for part in ('train', 'eval')}


def kept(labels, seed=0):
    source = sources.load({**FAKE, 'labels': labels, 'labels_seed': seed}, without_labels={'name': 'rest'})
    return source, set(ids(source.splits['train'], np.arange(labels)))


def test_every_class_keeps_its_share_and_the_rest_is_without_labels():
    source, chosen = kept(22)
    assert sorted(np.bincount(labels_of(source.splits['train'])).tolist()) == [5, 5, 6, 6]
    rest = source.unlabelled
    assert chosen | set(ids(rest, np.arange(len(rest)))) == set(map(str, range(200))) and len(rest) == 178
    assert labels_of(rest) is None and (rest.take(np.arange(3))[1] == -1).all() and rest[0].label == -1


def test_labels_are_a_function_of_the_seed_and_few_are_among_many():
    assert kept(8)[1] < kept(40)[1] and kept(8)[1] == kept(8)[1] != kept(8, seed=1)[1]


def test_labels_never_change():
    """By hand: blake2b('seed<newline>id') of 8 bytes, the lowest of each class."""
    from hashlib import blake2b

    def at(name):
        return int.from_bytes(blake2b(f'3\n{name}'.encode(), digest_size=8, key=unlabelled.KEY).digest(), 'big')

    labels = labels_of(sources.load(FAKE).splits['train'])
    expected = {min((str(i) for i in np.flatnonzero(labels == c)), key=at) for c in range(4)}
    assert kept(4, seed=3)[1] == expected


@pytest.mark.parametrize(
    ('data', 'without', 'words'),
    [
        ({'labels': 201}, {'name': 'none'}, ('201', '200 training images')),
        ({'labels': 3}, {'name': 'none'}, ('1 of 4 classes', 'at least 4')),
        ({'labels': -5}, {'name': 'none'}, ('labels is -5', '0 for all')),
        ({'labels': 200}, {'name': 'none'}, ("'class ", 'of 50)', 'expected at most')),
        ({}, {'name': 'rest'}, ('every training image keeps its label', 'config.data.labels')),
        ({}, {**FAKE, 'image_size': 9}, ('9 x 9 x 1', '8 x 8 x 1')),
        ({}, {**FAKE, 'channels': 3}, ('8 x 8 x 3', '8 x 8 x 1')),
        ({}, {'name': 'images', 'root': '/nothing/here'}, ('nothing is there',)),
        ({}, {'name': 'fake_photographs'}, ('encoded images', 'arrays')),
        ({}, {**FAKE, 'ratio': 0}, ('ratio is 0', 'at least 1')),
    ],
)
def test_what_does_not_fit_is_one_line(data, without, words):
    with pytest.raises(UserError) as error:
        sources.load({**FAKE, **data}, without_labels=without)
    assert all(word in str(error.value) for word in words) and '\n' not in str(error.value)


def test_a_folder_and_a_tar_of_photographs_need_no_classes(tmp_path):
    (tmp_path / 'photos/deep/er').mkdir(parents=True)
    for name in ('a.png', 'deep/b.png', 'deep/er/c.png'):
        Image.new('RGB', (12, 10), (200, 0, 0)).save(tmp_path / 'photos' / name)
    (tmp_path / 'photos/notes.txt').write_text('no image')
    with tarfile.open(tmp_path / 'photos.tar', 'w') as tar:
        tar.add(tmp_path / 'photos', 'photos')
    data = dict(name='fake_photographs', classes=2, train=4, test=2)
    expected = {'photos': ['a.png', 'deep/b.png', 'deep/er/c.png'], 'photos.tar': ['a.png', 'b.png', 'c.png']}
    for root, names in expected.items():
        without = dict(name='images', root=str(tmp_path / root))
        source = sources.load(data, transform=TRANSFORM, without_labels=without)
        assert ids(source.unlabelled, np.arange(3)) == names
        shown, labels = source.unlabelled.take(np.arange(3))
        assert shown.shape == (3, 8, 8, 3) and (labels == -1).all() and (shown[..., 0] > 190).all()
        assert identity.of(source)['unlabelled']['examples'] == 3


def test_the_record_of_the_data_knows_other_unlabelled_images():
    def record(seed):
        return identity.of(sources.load(FAKE, without_labels={**FAKE, 'seed': seed}))

    assert identity.differences(record(0), record(0)) == []
    assert 'unlabelled' in identity.differences(record(0), record(1))[0]
    assert identity.of(sources.load(FAKE)).keys() == record(0).keys() - {'unlabelled'}


def paired(host=0, hosts=1, batch_size=8, strong=None):
    labelled = Arrays(np.arange(20, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(20) % 2)
    other = unlabelled.Unlabelled(Arrays(np.arange(100, 150, dtype=np.uint8).reshape(-1, 1, 1, 1), np.zeros(50, int)))
    return Paired.of(Stream(labelled, 5, batch_size, host, hosts), other, 3, strong)


def test_hosts_hold_the_parts_of_one_batch_and_any_step_is_found_at_once():
    whole = paired().batch(11)
    parts = [paired(host, 2).batch(11) for host in range(2)]
    for key, at in (('image', whole), ('label', whole), ('image', whole['unlabelled']), ('index', whole['unlabelled'])):
        joined = np.concatenate([(part if at is whole else part['unlabelled'])[key] for part in parts])
        np.testing.assert_array_equal(joined, at[key])
    assert whole['unlabelled']['image'].shape == (24, 1, 1, 1) and (whole['unlabelled']['image'] >= 100).all()


def test_every_unlabelled_image_comes_once_before_any_comes_again():
    stream = paired(batch_size=5)  # 15 unlabelled a step: ten steps are three times all 50
    shown = np.concatenate([stream.batch(step)['unlabelled']['index'] for step in range(10)])
    assert all(sorted(shown[50 * turn : 50 * turn + 50]) == list(range(50)) for turn in range(3))


def test_the_digest_is_of_both():
    one, other = paired(), paired()
    assert one.digest(0) == other.digest(0) != one.digest(1)
    fewer = Paired(one.labelled, Stream(one.unlabelled.examples, 6, 24))
    assert fewer.labelled.digest(0) == one.labelled.digest(0) and fewer.digest(0) != one.digest(0)


def test_the_strong_view_is_of_the_same_image_and_a_function_of_its_key():
    source = sources.load(FAKE, without_labels=FAKE)
    spec = dict(policy=dict(name='rand_augment', layers=2, magnitude=20.0), cutout=4)
    strong = sources.strong_view(source.unlabelled, spec)
    stream = Paired.of(Stream(source.splits['train'], 0, 4), source.unlabelled, 2, strong)
    batch, again = (stream.batch(3)['unlabelled'] for _ in range(2))
    assert batch['strong'].shape == batch['image'].shape and (batch['strong'] != batch['image']).any()
    np.testing.assert_array_equal(batch['strong'], again['strong'])
    cut = sources.strong_view(source.unlabelled, dict(cutout=4)).take(batch['index'], np.arange(8, dtype=np.uint64))[0]
    differs = (cut != batch['image']).any(-1).sum((1, 2))
    assert (differs <= 16).all() and differs.max() > 4  # a square of four pixels, cut at the borders


def test_noise_of_the_strong_view_has_the_deviation_that_is_said():
    images = np.full((64, 16, 16, 1), 128, np.uint8)
    strong = sources.strong_view(Arrays(images, np.zeros(64, np.int32)), dict(noise=12.0))
    noise = strong.take(np.arange(64), np.arange(64, dtype=np.uint64))[0].astype(np.float64) - 128
    # 16,384 numbers: the deviation of a deviation is 12 / sqrt(2 n) = 0.07, rounding adds 1/12 to the variance.
    assert abs(noise.std() - 12) < 0.3 and abs(noise.mean()) < 0.4
    assert len({row.tobytes() for row in noise}) == 64


def test_moons_are_half_each_and_six_of_them_labelled():
    source = sources.load(dict(name='two_moons', labels=6), without_labels=dict(name='rest', ratio=1))
    assert len(source.splits['train']) == 6 and len(source.unlabelled) == 1994
    images, labels = source.splits['test'].take(np.arange(2000))
    assert images.shape == (2000, 1, 2, 1) and labels.sum() == 1000
    upper = images[labels == 0].reshape(-1, 2).astype(float)
    # scikit-learn's upper crescent is cos t, sin t for t in 0 to pi: it lies about its centre (0, 2 / pi).
    x, y = (upper[:, 0] - 128) / 45 + 0.5, (upper[:, 1] - 128) / 90 + 0.25
    assert abs(x.mean()) < 0.05 and abs(y.mean() - 2 / np.pi) < 0.02
