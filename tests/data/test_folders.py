"""Folders as people have them, each with the outcome that a person expects."""

import os
import shutil

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import folders, sources
from cvresearch.data.examples import ids
from cvresearch.data.stream import Stream
from tests.data.photographs import jpeg

TRANSFORM = dict(
    train=dict(crop=dict(name='random_resized_crop', size=16)), eval=dict(crop=dict(name='resize', size=16))
)
IMAGE = jpeg(0, 12, 16)


def lay(root, *paths):
    """Writes an image under each path, which may be bytes."""
    for path in paths:
        file = os.path.join(os.fsencode(root), os.fsencode(path))
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, 'wb') as out:
            out.write(IMAGE)
    return root


def classes(root, count=10, names=('cat', 'dog', 'horse'), prefix=''):
    return lay(root, *(f'{prefix}{name}/img{i:02d}.jpg' for name in names for i in range(count)))


def splits(root, prefix=''):
    """Lays train/ with 10 images a class and val/ with 4."""
    classes(root, 10, prefix=f'{prefix}train/')
    return classes(root, 4, prefix=f'{prefix}val/')


def load(root, **more):
    return folders.image_folder(str(root), **more)


def names(source, split):
    return ids(source.splits[split], np.arange(len(source.splits[split])))


def counts(source):
    return {name: len(split) for name, split in source.splits.items()}


def refused(root, **more):
    with pytest.raises(UserError) as error:
        load(root, **more)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_images_in_folders_below_a_class_are_of_that_class(tmp_path):
    splits(tmp_path)
    (tmp_path / 'train/cat/night/late').mkdir(parents=True)
    for number in range(5):
        file = tmp_path / f'train/cat/img{number:02d}.jpg'
        file.rename(tmp_path / ('train/cat/night' if number else 'train/cat/night/late') / file.name)
    source = load(tmp_path)
    assert source.facts.class_names == ('cat', 'dog', 'horse') and counts(source) == dict(train=30, test=12)
    assert [e.label for e in source.splits['train']][:10] == [0] * 10 and not source.notes
    assert {'cat/night/late/img00.jpg', 'cat/night/img01.jpg'} <= set(names(source, 'train'))


def test_what_macos_and_others_leave_behind_is_no_image_and_no_class_and_is_told(tmp_path):
    splits(tmp_path)
    lay(
        tmp_path,
        'train/cat/._img00.jpg',
        'train/.ipynb_checkpoints/x.jpg',
        'train/dog/__MACOSX/x.jpg',
        '__MACOSX/train/x.jpg',
        'train/__MACOSX/y.jpg',
        'train/cat/@eaDir/thumb.jpg',
    )
    (tmp_path / 'train/cat/.DS_Store').write_bytes(b'x')
    (tmp_path / 'train/dog/Thumbs.db').write_bytes(b'x')
    source = load(tmp_path)
    assert source.facts.num_classes == 3 and counts(source) == dict(train=30, test=12)
    (line,) = source.notes
    assert 'hidden or system entries: 7 (first: ' in line
    assert 'no images by their names: 1 (train/dog/Thumbs.db)' in line


def test_empty_class_folders_are_no_classes_and_are_told(tmp_path):
    splits(tmp_path)
    (tmp_path / 'train/aardvark/deep').mkdir(parents=True)
    source = load(tmp_path)
    assert source.facts.class_names == ('cat', 'dog', 'horse')
    assert source.notes == ('left out: class folders without an image: 1 (train/aardvark)',)


def test_validation_images_choose_the_checkpoint_where_there_are_test_images_too(tmp_path):
    classes(splits(tmp_path), 2, prefix='test/')
    assert counts(load(tmp_path)) == dict(train=30, test=6, minival=12)
    with pytest.raises(UserError, match='has validation images of its own'):
        sources.load(dict(name='image_folder', root=str(tmp_path)), 5, TRANSFORM)


@pytest.mark.parametrize('name', ['val', 'valid', 'Validation', 'test', 'Testing'])
def test_split_folders_go_by_any_of_their_names_in_any_case(tmp_path, name):
    classes(classes(tmp_path, 10, prefix='Training/'), 3, prefix=f'{name}/')
    assert counts(load(tmp_path)) == dict(train=30, test=9)


def test_unlabelled_test_images_beside_val_are_left_out_and_told(tmp_path):
    source = load(lay(splits(tmp_path), 'test/1.jpg', 'test/2.jpg'))
    assert counts(source) == dict(train=30, test=12) and 'test/ has 2 images without folders' in source.notes[0]


def test_train_alone_is_split_by_the_hash_as_a_bare_folder_is(tmp_path):
    alone, bare = load(classes(tmp_path / 'a', 40, prefix='train/')), load(classes(tmp_path / 'b', 40))
    assert names(alone, 'test') == names(bare, 'test') and 'no test folder' in alone.notes[0]


def test_train_may_be_a_class(tmp_path):
    assert load(classes(tmp_path, 20, ('bus', 'tram', 'train'))).facts.class_names == ('bus', 'train', 'tram')


def test_test_folder_beside_class_folders_wins(tmp_path):
    classes(classes(tmp_path, 10), 3, prefix='test/')
    assert counts(load(tmp_path)) == dict(train=30, test=9)
    assert 'may be a class or a split' in refused(lay(classes(tmp_path / 'x'), 'test/1.jpg'))


def test_class_that_is_not_trained_on_is_refused_by_name(tmp_path):
    lay(splits(tmp_path), 'val/bird/1.jpg')
    assert "the class 'bird', which the train images have not ('cat', 'dog', 'horse')" in refused(tmp_path)
    shutil.move(tmp_path / 'val/bird', tmp_path / 'val/Cat')
    assert 'differ in case, blanks or the form of Unicode alone' in refused(tmp_path)


def test_class_without_test_images_is_told(tmp_path):
    lay(splits(tmp_path), 'train/bird/1.jpg')
    assert load(tmp_path).notes == ("the test split has no image of 'bird'",)


def test_other_endings_and_cases(tmp_path):
    endings = ('JPEG', 'Jpg', 'jfif', 'pgm', 'pbm', 'pnm', 'jpe', 'TIF', 'webp', 'PNG')
    lay(splits(tmp_path), *(f'train/cat/x y.{ending}' for ending in endings))
    assert counts(load(tmp_path))['train'] == 30 + len(endings)


def test_folder_of_one_folder_of_classes_is_refused_with_the_right_root(tmp_path):
    assert f'--config.data.root={tmp_path}/flowers' in refused(classes(tmp_path, prefix='flowers/'))


def test_links_to_classes_are_followed_and_those_that_lead_back_are_not(tmp_path):
    classes(tmp_path / 'elsewhere', names=('cat', 'horse'))
    root = classes(tmp_path / 'root', names=('dog',))
    (root / 'cat').symlink_to(tmp_path / 'elsewhere/cat')
    (root / 'dog/again').symlink_to(root / 'dog')
    (root / 'dog/self').symlink_to(root / 'dog/self')
    source = load(root, every=4)
    assert source.facts.class_names == ('cat', 'dog') and sum(counts(source).values()) == 20
    assert 'links that lead back to a folder above: 1 (dog/again)' in source.notes[0]


def test_pipe_named_as_an_image_is_left_out(tmp_path):
    os.mkfifo(splits(tmp_path) / 'train/cat/x.jpg')
    assert 'neither files nor folders: 1 (train/cat/x.jpg)' in load(tmp_path).notes[0]


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_folder_that_cannot_be_read_is_named(tmp_path):
    os.chmod(splits(tmp_path) / 'train/cat', 0)
    try:
        assert 'train/cat cannot be read (Permission denied)' in refused(tmp_path)
    finally:
        os.chmod(tmp_path / 'train/cat', 0o700)


def test_names_that_are_not_utf8_have_ids_that_every_file_takes(tmp_path):
    lay(splits(tmp_path), b'train/caf\xe9/a\xff.jpg', b'train/caf\xe9/b\n.jpg', b'val/caf\xe9/c.jpg')
    source = sources.load(dict(name='image_folder', root=str(tmp_path)), 0, TRANSFORM)
    assert source.facts.class_names == (r'caf\xe9', 'cat', 'dog', 'horse')
    assert names(source, 'train')[:2] == [r'caf\xe9/a\xff.jpg', r'caf\xe9/b\x0a.jpg']
    assert source.splits['train'][0].image == IMAGE
    assert len(Stream(source.splits['train'], 0, 4).digest(0)) == 64
    sources.told(source)[0].encode('utf-8')


def test_classes_of_names_in_unicode(tmp_path):
    given = ('שלום', 'été', '猫 と 犬', 'naïve', '😀')
    source = load(classes(tmp_path, 10, given))
    assert source.facts.class_names == tuple(sorted(given))


def test_classes_that_look_alike_are_told(tmp_path):
    source = load(classes(tmp_path, 20, ('caf\u00e9', 'cafe\u0301', 'dog')))
    assert source.facts.num_classes == 3 and source.notes[-1].endswith('look alike')


def test_hash_of_a_name_never_changes():
    # BLAKE2b of 8 bytes under the stated key, by a transcription of RFC 7693, section 3.
    assert folders.position(b'img00.jpg') == 0x89605CEA9D1BC730
    assert folders.position(b'cat/img00.jpg') != folders.position(b'dog/img00.jpg')
    assert folders.position('é.jpg'.encode()) == folders.position('e\u0301.jpg'.encode())


def test_split_of_a_bare_folder_stays_when_images_and_classes_come_and_go(tmp_path):
    before = load(classes(tmp_path, 100))
    train, test = set(names(before, 'train')), set(names(before, 'test'))
    assert 30 < len(test) < 90  # 60 expected, with a deviation of 7
    for name in ('cat', 'dog', 'horse'):
        (tmp_path / name / 'img00.jpg').unlink()
    classes(lay(tmp_path, 'cat/new.jpg'), 20, ('ant', 'zebra'))
    after = load(tmp_path)
    assert not train & set(names(after, 'test')) and not test & set(names(after, 'train'))
    assert set(names(load(tmp_path, every=6), 'test')) < set(names(load(tmp_path, every=3), 'test'))


def test_every_is_a_share_and_1_is_for_evaluation(tmp_path):
    lay(tmp_path, *(f'cat/{i}.jpg' for i in range(3000)))
    assert abs(counts(load(tmp_path, every=5))['test'] - 600) < 4 * 22  # four deviations of a binomial
    everything = load(tmp_path, every=1)
    assert counts(everything) == dict(test=3000) and 'for evaluation only' in everything.notes[0]
    assert 'expected at least 1' in refused(tmp_path, every=0)


def test_split_that_comes_out_empty_is_refused_with_an_every_that_works(tmp_path):
    paths = (f'{label}/{number}.jpg' for number in range(99) for label in 'ab')
    lay(tmp_path, *[path for path in paths if folders.position(path.encode()) * 5 >= 2**64][:4])
    message = refused(tmp_path)
    assert 'leaves a split empty' in message
    every = int(message.split('config.data.every=')[2].split()[0])
    assert all(counts(load(tmp_path, every=every)).values())


def test_older_runs_have_their_split_by_rank(tmp_path):
    assert names(load(classes(tmp_path), by='rank'), 'test')[:2] == ['cat/img04.jpg', 'cat/img09.jpg']


def test_subset_of_the_classes_is_read_as_it_is(tmp_path):
    assert load(classes(tmp_path, names=('dog', 'horse')), every=1).facts.class_names == ('dog', 'horse')


def test_test_folder_alone_is_for_evaluation(tmp_path):
    assert counts(load(classes(tmp_path, 3, prefix='test/'))) == dict(test=9)


@pytest.mark.parametrize('paths', [(), ('a.jpg',), ('train/a.jpg',)])
def test_folder_without_class_folders_is_refused(tmp_path, paths):
    assert 'config.data.list' in refused(lay(tmp_path, *paths))
