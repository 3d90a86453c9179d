"""Lists of images as people write them."""

import os

import numpy as np
import pytest

from cvresearch.data.folders import image_folder
from tests.data.test_folders import classes, counts, lay, names, refused


@pytest.fixture
def photos(tmp_path):
    return classes(tmp_path, 4, ('cat', 'dog'))


def write(root, text, name='labels.csv', encoding='utf-8'):
    (root / name).write_bytes(text.encode(encoding))
    return str(root / name)


def labels(source, split='train'):
    examples = source.splits[split]
    return [source.facts.class_names[examples[place].label] for place in range(len(examples))]


ROWS = 'cat/img00.jpg,red,train\ncat/img01.jpg,blue,train\ndog/img00.jpg,red,val\ndog/img01.jpg,blue,test\n'


@pytest.mark.parametrize(
    ('text', 'encoding'),
    [
        (ROWS, 'utf-8'),
        ('path,label,split\n' + ROWS, 'utf-8'),
        ('Path,Label,Split\r\n' + ROWS.replace('\n', '\r\n'), 'utf-8-sig'),
        (ROWS.replace(',', ';') + '\n\n', 'utf-8'),
        (ROWS.replace(',', '\t'), 'utf-16'),
        ('\n'.join(','.join(f'"{cell}"' for cell in row.split(',')) for row in ROWS.split()), 'utf-8'),
        (ROWS.replace('/', '\\').replace('val', 'Validation').replace(',', ' , '), 'utf-8'),
        (
            'n,split,x,class,file\n1,train,,red,cat/img00.jpg\n2,train,,blue,./cat/img01.jpg\n3,val,,red,dog/img00.jpg\n'
            '4,test,,blue,dog/img01.jpg\n',
            'utf-8',
        ),
    ],
)
def test_list_says_label_and_split_whatever_the_folders(photos, text, encoding):
    source = image_folder(list=write(photos, text, encoding=encoding))
    assert source.facts.class_names == ('blue', 'red') and counts(source) == dict(train=2, test=1, minival=1)
    assert names(source, 'train') == ['cat/img01.jpg', 'cat/img00.jpg'] and labels(source) == ['blue', 'red']
    assert names(source, 'minival') == ['dog/img00.jpg'] and labels(source, 'test') == ['blue']


def test_list_wins_over_split_folders(photos):
    lay(photos, 'train/cat/1.jpg', 'test/cat/2.jpg')
    source = image_folder(str(photos), list=write(photos, 'test/cat/2.jpg,cat,train\ntrain/cat/1.jpg,cat,test\n'))
    assert names(source, 'train') == ['test/cat/2.jpg'] and names(source, 'test') == ['train/cat/1.jpg']


def test_without_splits_the_hash_decides_as_in_a_folder(tmp_path):
    root = classes(tmp_path, 40)
    paths = sorted(str(p.relative_to(root)) for p in root.glob('*/*.jpg'))
    listed = image_folder(list=write(root, ''.join(f'{p},{p[:3]}\n' for p in paths)))
    assert names(listed, 'test') == names(image_folder(str(root)), 'test')


def test_list_may_lie_elsewhere_and_paths_may_be_absolute(photos, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    text = f'cat/img00.jpg,a,train\n{photos}/dog/img00.jpg,b,train\ncat/img01.jpg,a,test\n'
    for source in (
        image_folder(str(photos), list=write(elsewhere, text)),
        image_folder(str(photos), list=write(photos, text)),
        image_folder(str(photos), list=os.path.basename(write(photos, text))),
    ):
        assert names(source, 'train') == ['cat/img00.jpg', f'{photos}/dog/img00.jpg']
        assert source.splits['train'][1].image


def test_whole_numbers_are_in_their_own_order(photos):
    text = 'cat/img00.jpg,10\ncat/img01.jpg,9\ndog/img02.jpg,2\n'
    assert image_folder(list=write(photos, text), every=1).facts.class_names == ('2', '9', '10')


def test_line_said_twice_counts_once_and_names_of_any_encoding_are_found(photos):
    lay(photos, b'caf\xe9, x.jpg')
    (photos / 'l.csv').write_bytes(b'"caf\xe9, x.jpg",t\xeate\n"caf\xe9, x.jpg",t\xeate\ncat/img00.jpg,b\n')
    source = image_folder(list=str(photos / 'l.csv'), every=1)
    assert names(source, 'test') == ['cat/img00.jpg', r'caf\xe9, x.jpg']
    assert source.facts.class_names == ('b', r't\xeate')
    np.testing.assert_array_equal(source.splits['test'].labels, [0, 1])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('cat/img00.jpg,a\ncat/nowhere.jpg,b\n', '1 of the 2 files in'),
        ('cat/img00.jpg,a\n./x/../cat/nowhere.jpg,b\n', 'set config.data.root'),
        ('cat/img00.jpg,a,training\ncat/img01.jpg,a,tets\n', "line 2, has the split 'tets'; did you mean test"),
        ('cat/img00.jpg,a,train\ncat/img01.jpg,a,\n', 'none of them empty'),
        ('cat/img00.jpg,a\ncat/img01.jpg\n', 'line 2'),
        ('cat/img00.jpg,a\ncat/img00.jpg,b\n', "says two things of cat/img00.jpg: 'a' and 'b', in the lines 1 and 2"),
        ('cat/img00.jpg,a,train\n./cat/img00.jpg,a,test\n', 'says two things'),
        ('cat/img00.jpg,a,train\ncat/img01.jpg,b,test\n', "has the class 'b'"),
        ('path,name\ncat/img00.jpg,a\n', 'none is label'),
        ('cat/img00.jpg\n', '1 columns and no heading'),
        ('', 'lists no image'),
        ('cat,a\n', 'are not there'),
    ],
)
def test_mistakes_are_one_line_with_what_is_wrong(photos, text, message):
    assert message in refused('', list=write(photos, text))


def test_list_that_is_not_there(photos):
    assert "there is no list 'nowhere.csv'" in refused(str(photos), list='nowhere.csv')
