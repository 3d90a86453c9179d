"""Image files in folders and tars, read as they lie."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import files, idx, imagenet, small, sources
from cvresearch.data.stream import Stream
from tests.data.photographs import ilsvrc, jpeg, unpacked

TRANSFORM = dict(
    train=dict(crop=dict(name='random_resized_crop', size=32), flip=0.5),
    eval=dict(crop=dict(name='resize_center_crop', size=32, resize=36), fast=False, antialias=True),
)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def examples(split):
    return [split[number] for number in range(len(split))]


def test_tars_are_read_in_place_and_equal_the_unpacked_folders(tmp_path):
    images = ilsvrc(tmp_path / 'tars')
    unpacked(tmp_path / 'tars', tmp_path / 'folders')
    both = [imagenet.imagenet(str(tmp_path / kind)).splits for kind in ('tars', 'folders')]
    for split, count in (('train', 12), ('test', 6)):
        ours, theirs = (examples(splits[split]) for splits in both)
        assert len(ours) == count and [tuple(e) for e in ours] == [tuple(e) for e in theirs]
        assert all(example.image == images[example.id] for example in ours)
        assert [example.id for example in ours] == files_ids(both[0][split])
    # Twice: the second time the listing comes from the cache.
    again = imagenet.imagenet(str(tmp_path / 'tars')).splits['train']
    assert [tuple(e) for e in examples(again)] == [tuple(e) for e in examples(both[0]['train'])]
    specs = [dict(name='imagenet', root=str(tmp_path / kind)) for kind in ('tars', 'folders')]
    loaded = [sources.load(spec, 0, TRANSFORM) for spec in specs]
    batches = [Stream(source.splits['train'], 5, 12).batch(3) for source in loaded]
    assert all(np.array_equal(batches[0][key], batches[1][key]) for key in batches[0])
    assert len({Stream(source.splits['train'], 5, 12).digest(2) for source in loaded}) == 1


def files_ids(split):
    return split.ids(np.arange(len(split)))


def test_labels_are_of_the_alphabetical_classes_and_of_the_validation_list(tmp_path):
    ilsvrc(tmp_path)
    splits = imagenet.imagenet(str(tmp_path)).splits
    for example in examples(splits['train']):
        assert example.id.startswith(imagenet.wnids()[example.label])
    # ILSVRC2012_val_00000001.JPEG is a sea snake (n01751748), 2 an alp (n09193705), 3 a Shetland sheepdog (n02105855).
    expected = [imagenet.wnids().index(wnid) for wnid in ('n01751748', 'n09193705', 'n02105855')]
    assert [example.label for example in examples(splits['test'])[:3]] == expected
    assert len(imagenet.wnids()) == 1000 and list(imagenet.wnids()) == sorted(imagenet.wnids())
    assert np.bincount(imagenet.validation_labels()).tolist() == [50] * 1000


def test_tar_that_ends_early_gives_what_it_holds_and_says_so(tmp_path):
    ilsvrc(tmp_path)
    path = tmp_path / imagenet.TRAIN_TAR
    whole = files.list_tar(path)
    assert whole.cut == () and len(whole.names) == 12
    path.write_bytes(path.read_bytes()[: int(whole.offsets[7]) + 100])  # in the middle of the eighth image
    cut = files.list_tar(path)
    assert cut.cut and 7 <= len(cut.names) <= 8
    test = tmp_path / imagenet.VALIDATION_TAR
    test.write_bytes(test.read_bytes()[:3000])
    with pytest.raises(UserError, match='ends early; evaluation leaves no image out'):
        imagenet.imagenet(str(tmp_path))
    test.write_bytes(b'no tar' * 1000)
    with pytest.raises(UserError, match='is not a tar'):
        imagenet.imagenet(str(tmp_path))


def test_real_v2_a_and_r_have_the_labels_of_imagenet(tmp_path):
    ilsvrc(tmp_path / 'imagenet')
    answers = [[n, 999 - n] if n % 2 else [] for n in range(50_000)]
    (tmp_path / 'imagenet' / 'real.json').write_text(json.dumps(answers))
    real = imagenet.imagenet_real(str(tmp_path / 'imagenet')).splits['test']
    assert [example.label.tolist() for example in examples(real)[:3]] == [[-1, -1], [1, 998], [-1, -1]]
    v2 = tmp_path / 'v2' / 'imagenetv2-matched-frequency-format-val'
    for number in (0, 2, 10):
        (v2 / str(number)).mkdir(parents=True)
        (v2 / str(number) / 'a.jpeg').write_bytes(jpeg(number))
    assert [e.label for e in examples(imagenet.imagenet_v2(str(tmp_path / 'v2')).splits['test'])] == [0, 2, 10]
    for make in (imagenet.imagenet_a, imagenet.imagenet_r):
        for label in (6, 11):
            folder = tmp_path / make.__name__ / imagenet.wnids()[label]
            folder.mkdir(parents=True)
            (folder / 'x.jpg').write_bytes(jpeg(label))
        source = make(str(tmp_path / make.__name__))
        assert source.facts.classes == (6, 11) and source.facts.num_classes == 1000
        assert [e.label for e in examples(source.splits['test'])] == [6, 11]


@pytest.mark.parametrize('split', [True, False])
def test_image_folder_takes_its_classes_from_the_folders(tmp_path, split):
    for part in ('train', 'val') if split else ('',):
        for name in ('cat', 'dog'):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(5):
                (tmp_path / part / name / f'{number}.jpg').write_bytes(jpeg(number))
    source = sources.load(dict(name='image_folder', root=str(tmp_path)), 0, TRANSFORM)
    assert source.facts.class_names == ('cat', 'dog') and source.facts.image_shape == (32, 32, 3)
    lengths = [len(part) for part in source.splits.values()]
    assert lengths == [10, 10] if split else sum(lengths) == 10 and all(lengths)
    images, labels = source.splits['train'].take(np.arange(len(source.splits['train'])))
    assert images.shape[1:] == (32, 32, 3) and sorted(set(labels)) == [0, 1]
    assert not set(files_ids(source.splits['train'])) & set(files_ids(source.splits['test'])) or split


def test_cifars_binary_and_pickled_files_give_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(small, '_check_count', lambda what, got, expected: None)
    random = np.random.default_rng(0)
    rows, labels = random.integers(0, 256, (12, 3072), np.uint8), random.integers(0, 10, 12)
    parts = {f'data_batch_{n}': slice(2 * n - 2, 2 * n) for n in range(1, 6)} | {'test_batch': slice(10, 12)}
    binary, pickled = tmp_path / 'a' / 'cifar-10-batches-bin', tmp_path / 'b' / 'cifar-10-batches-py'
    for folder in (binary, pickled):
        folder.mkdir(parents=True)
    for name, part in parts.items():
        table = np.concatenate([labels[part, None].astype(np.uint8), rows[part]], axis=1)
        (binary / f'{name}.bin').write_bytes(table.tobytes())
        (pickled / name).write_bytes(pickle.dumps({b'data': rows[part], b'labels': labels[part].tolist()}, protocol=2))
    ours, theirs = (small.cifar10(str(tmp_path / name)).splits for name in 'ab')
    for split in ('train', 'test'):
        np.testing.assert_array_equal(ours[split].images, theirs[split].images)
        np.testing.assert_array_equal(ours[split].labels, theirs[split].labels)
    # The first 1,024 bytes are the red plane, row by row.
    np.testing.assert_array_equal(ours['train'].images[0, :, :, 0].reshape(-1), rows[0, :1024])


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ('touch /tmp/should-not-be',)

    folder = tmp_path / 'cifar-10-batches-py'
    folder.mkdir()
    (folder / 'data_batch_1').write_bytes(pickle.dumps(Evil()))
    for name in ('data_batch_2', 'data_batch_3', 'data_batch_4', 'data_batch_5', 'test_batch'):
        (folder / name).write_bytes(b'')
    with pytest.raises(UserError, match='it is not the original'):
        small.cifar10(str(tmp_path))


def test_svhn_from_its_original_format(tmp_path, monkeypatch):
    from scipy.io import savemat

    monkeypatch.setattr(small, '_check_count', lambda what, got, expected: None)
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
    for name in ('train', 'test'):
        savemat(tmp_path / f'{name}_32x32.mat', {'X': images, 'y': np.array([[1], [10], [9], [2]])})
    test = small.svhn(str(tmp_path)).splits['test']
    assert test.labels.tolist() == [1, 0, 9, 2]
    np.testing.assert_array_equal(test.images[2], images[..., 2])


HERE = {'mnist5k', 'mnist500', 'digits', 'fake', 'fake_photographs', 'two_moons', 'tfds'}
ELSEWHERE = sorted({*sources.SOURCES} - HERE)


@pytest.mark.parametrize('name', ELSEWHERE)
def test_a_run_without_its_data_says_where_it_looked_and_what_runs_now(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('CVRESEARCH_DATA', '/nowhere')
    monkeypatch.setattr(idx, 'DEBIAN', tmp_path / 'not installed')
    with pytest.raises(UserError) as error:
        sources.load(dict(name=name), 0, TRANSFORM)
    text = '\n'.join((str(error.value), *error.value.details))
    assert f'/nowhere/{name.removesuffix("_real")}' in text and ':smoke' in text and 'lenet5_mnist5k' in text
    assert len(text.splitlines()) < 24 and 'CVRESEARCH_DATA' in text


def test_command_line_shows_all_of_that(tmp_path):
    code = (
        'from cvresearch.base import cli; from cvresearch.data import sources; '
        'cli.run(lambda argv: sources.load({"name": "cifar10"}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=os.getcwd())
    assert done.returncode == 2 and done.stderr.count('\n') > 8 and done.stderr.startswith('error: the data of')


@pytest.mark.parametrize(
    ('spec', 'transform', 'message'),
    [
        (dict(name='fake_photographs'), {}, "config.transform has no 'train'"),
        (dict(name='fake'), TRANSFORM, 'is one of arrays'),
        (dict(name='fake', threads=2), {}, "takes no argument 'threads'"),
    ],
)
def test_mistakes(spec, transform, message):
    with pytest.raises(UserError) as error:
        sources.load(spec, 0, transform)
    assert message in str(error.value)
