"""What is said of a folder of images before a run: each case laid by hand, the numbers counted by hand."""

import contextlib
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cvresearch.base.errors import RunError, UserError
from cvresearch.data import decode, folders, prepare, survey
from tests.data.photographs import ilsvrc, jpeg, unpacked


def lay(root, classes=('cat', 'dog'), train=6, test=2):
    number = 0
    for split, count in (('train', train), ('test', test)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for place in range(count):
                number += 1
                (root / split / name / f'{place}.jpg').write_bytes(jpeg(number, 12, 16))
    return root


def report(root, code=0, *flags):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert prepare.main([str(root), '--format=json', *flags]) == code
    return json.loads(out.getvalue())


def test_a_sound_folder(tmp_path, capsys):
    found = report(lay(tmp_path))
    assert found['would_run'] and not found['problems'] + found['warnings'] + found['notes'] + found['duplicates']
    assert found['splits']['train']['per_class'] == {'cat': 6, 'dog': 6}
    assert found['splits']['test']['width'] == [16, 16, 16] and found['splits']['test']['height'] == [12, 12, 12]
    assert found['splits']['test']['modes'] == {'RGB': 4}
    assert prepare.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith('A run would start.\n')


def test_duplicates_across_splits_and_within_one_and_under_two_classes(tmp_path):
    root = lay(tmp_path)
    for source, target in (
        ('train/cat/0.jpg', 'test/dog/copy.jpg'),
        ('train/dog/1.jpg', 'train/dog/1 again.jpg'),
        ('train/dog/2.jpg', 'train/cat/2 too.jpg'),
    ):
        shutil.copy(root / source, root / target)
    found = report(root)
    assert found['duplicates'] == [
        {'files': {'train': ['cat/0.jpg'], 'test': ['dog/copy.jpg']}, 'several_classes': True}
    ]
    within = found['splits']['train']['duplicates']
    assert sorted((sorted(group['files']), group['several_classes']) for group in within) == [
        (['cat/2 too.jpg', 'dog/2.jpg'], True),
        (['dog/1 again.jpg', 'dog/1.jpg'], False),
    ]
    across, inside = found['warnings']
    assert '1 (1 under several classes): train: cat/0.jpg; test: dog/copy.jpg' in across
    assert inside.startswith('train: images there more than once: 2, 1 of them under several classes')


def test_unreadable_files_are_named_and_stop_what_they_would_stop(tmp_path):
    root = lay(tmp_path, train=600)
    (root / 'train/cat/5.jpg').write_bytes(b'')
    found = report(root)  # one of 1,200 is within the share that training goes on with
    assert found['splits']['train']['unreadable'] == {'cat/5.jpg': 'the file is empty'}
    assert found['warnings'] == ['train: 1 unreadable, replaced in training and counted: cat/5.jpg (the file is empty)']
    (root / 'train/dog/7.jpg').write_bytes(jpeg(1)[:300])
    assert 'train: 2 of 1,200 unreadable, above the share' in report(root, 1)['problems'][0]
    (root / 'train/dog/7.jpg').unlink()
    (root / 'test/dog/gone.jpg').symlink_to('nowhere')
    (problem,) = report(root, 1)['problems']
    assert problem == (
        'test: 1 unreadable, and evaluation leaves no image out: dog/gone.jpg (No such file or directory)'
    )


def test_sizes_modes_slivers_orientations_and_other_formats(tmp_path):
    root = lay(tmp_path)
    Image.new('L', (400, 2)).save(root / 'train/cat/sliver.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (30, 40), (9, 0, 0)).save(root / 'train/cat/turned.jpg', exif=exif)
    Image.new('RGBA', (16, 12)).save(root / 'train/cat/other.jpg', 'PNG')
    found = report(root)['splits']['train']
    assert found['width'] == [16, 16, 400] and found['height'] == [2, 12, 40]
    assert found['modes'] == {'RGB': 13, 'L': 1, 'RGBA': 1}
    assert found['slivers'] == {'cat/sliver.png': '400 x 2'} and found['turned'] == ['cat/turned.jpg']
    assert found['named_wrong'] == {'cat/other.jpg': 'PNG'}


@pytest.mark.parametrize(
    'laid, said',
    [
        ({'owl': 1}, "train: one image in 'owl'"),
        ({'owl': 130}, "train: 'owl' has 130 images and 'cat' 6"),
        ({'Cat': 6}, "names that differ only in case, blanks or the form of Unicode: 'Cat', 'cat'"),
        ({'dog ': 6}, "names that differ only in case, blanks or the form of Unicode: 'dog', 'dog '"),
        ({'New folder': 6, 'thumbs': 6}, "are they classes? 'New folder', 'thumbs'"),
    ],
)
def test_suspicious_classes(tmp_path, laid, said):
    root = lay(tmp_path)
    for name, count in laid.items():
        (root / 'train' / name).mkdir()
        for number in range(count):
            (root / 'train' / name / f'{number}.jpg').write_bytes(jpeg(1000 + number, 12, 16))
    assert said in ' '.join(report(root)['warnings'])


def test_names_equal_in_unicode_are_a_problem_and_what_systems_leave_behind_is_told(tmp_path):
    root = lay(tmp_path, ('caf\u00e9', 'cafe\u0301'))
    (root / 'train/__MACOSX').mkdir()
    (root / 'train/__MACOSX/x.jpg').write_bytes(jpeg(0))
    found = report(root, 1)
    assert 'one name in two of Unicode' in found['problems'][0]
    assert found['notes'][0] == 'left out: hidden or system entries: 1 (train/__MACOSX)'


def test_folder_for_evaluation_alone_starts_no_run(tmp_path):
    shutil.rmtree(lay(tmp_path) / 'train')
    assert report(tmp_path, 1)['problems'] == ['there are no training images: evaluation alone can use this folder']


def test_a_list_and_one_in_so_many(tmp_path):
    lay(tmp_path / 'images')
    rows = [f'train/{name}/{k}.jpg,{name},train' for name in ('cat', 'dog') for k in range(6)]
    (tmp_path / 'my list.csv').write_text('\n'.join([*rows, 'test/cat/0.jpg,cat,test']))
    found = report(tmp_path / 'my list.csv', 0, '--root', str(tmp_path / 'images'), '--every=3')
    assert (found['splits']['train']['images'], found['splits']['train']['looked_at']) == (12, 4)
    assert found['notes'] == ["the test split has no image of 'dog'"]


def test_name_that_is_no_utf8_is_written_as_text(tmp_path):
    lay(tmp_path)
    with open(os.fsencode(tmp_path / 'train/cat') + b'/caf\xe9.jpg', 'wb') as file:
        file.write(b'')
    assert report(tmp_path, 1)['splits']['train']['unreadable'] == {r'cat/caf\xe9.jpg': 'the file is empty'}


def test_lack_of_memory_is_no_damaged_image(tmp_path, monkeypatch):
    def lacking(*_):
        raise MemoryError

    monkeypatch.setattr(decode, 'decode', lacking)
    with pytest.raises(RunError, match='memory is lacking at the image cat/'):
        survey.survey(folders.image_folder(str(lay(tmp_path))))


def test_own_images_with_classes_of_imagenet_are_no_copy_of_it(tmp_path):
    ilsvrc(tmp_path / 'tars', classes=2)
    unpacked(tmp_path / 'tars', tmp_path / 'own')
    shutil.rmtree(tmp_path / 'own/val')
    shutil.copytree(tmp_path / 'own/train', tmp_path / 'own/val')
    assert not prepare.is_ilsvrc(tmp_path / 'own') and prepare.is_ilsvrc(tmp_path / 'tars')
    assert report(tmp_path / 'own')['classes'] == sorted(path.name for path in (tmp_path / 'own/train').iterdir())


@pytest.mark.parametrize(
    'flags, said',
    [
        (['nowhere'], 'there is no folder or list'),
        (['.', '--root=x'], '--root is of a list'),
        (['.', '--format=csv'], "unknown format 'csv'"),
        (['.', '.'], 'expected one folder or list'),
        (['.'], 'has no image in a folder of its class'),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        prepare.main(flags)


def test_sizes_of_an_even_number_of_images(tmp_path):
    for split in ('train', 'test'):
        (tmp_path / split / 'a').mkdir(parents=True)
        for side in (10, 20, 31, 40):
            image = Image.fromarray(np.full((side, side, 3), side, np.uint8))
            image.save(tmp_path / split / 'a' / f'{side}.png')
    found = report(tmp_path)
    assert found['splits']['train']['width'] == [10, 26, 40]  # of 20 and 31: 25.5
    assert "there is one class, 'a'" in found['warnings'][0]
