"""What is recorded of data, how changes of it are told, and labels by the names of classes."""

import dataclasses
import hashlib
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import identity, sources
from cvresearch.data.examples import Arrays, Facts, Source
from cvresearch.data.files import Files
from cvresearch.data.imagenet import wnids
from cvresearch.data.preprocessing import imagenet_classes

NFC, NFD = 'caf\xe9', 'cafe\u0301'


def files(names, labels):
    """Returns a split of files that need not be there."""
    return Files(Path('nowhere'), ('',), np.zeros(len(names), np.int32), np.array(names, np.bytes_), np.array(labels))


def source(classes=('cat', 'dog'), **splits):
    return Source(Facts('mine', classes, (8, 8, 3), (0.5,) * 3, (0.2,) * 3), splits, True)


def test_the_record_of_files_is_counts_and_the_digest_of_the_sorted_list():
    found = identity.of(source(train=files([b'b.jpg', b'a.jpg', b'c.jpg'], [1, 1, 0])))
    expected = hashlib.sha256(b'0\tc.jpg\n1\ta.jpg\n1\tb.jpg\n').hexdigest()
    assert found['splits'] == {'train': dict(examples=3, per_class=[1, 2], sha256=expected)}
    assert found['class_names'] == ['cat', 'dog'] and json.loads(json.dumps(found)) == found


def test_of_several_labels_each_counts_and_names_that_are_no_text_are_escaped():
    labels = np.array([[0, 1], [-1, -1]], np.int32)
    found = identity.of_split(files([b'caf\xe9.jpg', b'b.jpg'], labels), 3)
    expected = hashlib.sha256(b'\tb.jpg\n0,1\tcaf\\xe9.jpg\n').hexdigest()
    assert found == dict(examples=2, per_class=[1, 1, 0], sha256=expected)


@pytest.mark.parametrize('change', ['pixel', 'label', 'order'])
def test_of_arrays_pixels_labels_and_their_order_count(change):
    images, labels = np.arange(5000 * 4, dtype=np.uint32).astype(np.uint8).reshape(5000, 2, 2, 1), np.arange(5000) % 3
    other, changed = images.copy(), labels.copy()
    if change == 'pixel':
        other[4999, 1, 1, 0] ^= 1
    elif change == 'label':
        changed[4998] = 0 if changed[4998] else 1
    else:
        other[[0, 3]] = other[[3, 0]]  # of one class
    was, is_now = (identity.of_split(Arrays(*pair), 3)['sha256'] for pair in ((images, labels), (other, changed)))
    assert was != is_now and was == identity.of_split(Arrays(images.copy(), labels.copy()), 3)['sha256']


@pytest.mark.parametrize('name', ['fake', 'fake_photographs'])
def test_images_that_are_made_on_demand_are_not_made_for_the_record(name):
    made = [sources.SOURCES[name](train=10**6, seed=seed) for seed in (0, 0, 1)]
    found = [identity.of_split(each.splits['train'], 10) for each in made]
    assert found[0] == found[1] != found[2]


def test_labels_become_the_nets_numbers_in_every_way_to_them():
    data = source(('dog', 'cat'), test=files([b'a.jpg', b'b.jpg'], [0, 1]))
    data = dataclasses.replace(data, facts=dataclasses.replace(data.facts, classes=(0,)))
    found = identity.mapped(data, ('ant', 'cat', 'dog'))
    assert found.facts.class_names == ('ant', 'cat', 'dog') and found.facts.classes == (2,)
    assert found.splits['test'].labels.tolist() == [2, 1]
    assert identity.of_split(found.splits['test'], 3)['per_class'] == [0, 1, 1]
    real = identity.mapped(source(test=files([b'a.jpg'], np.array([[1, -1]]))), ('dog', 'cat')).splits['test']
    assert real.labels.tolist() == [[0, -1]]
    arrays = identity.Relabelled(Arrays(np.zeros((2, 1, 1, 1), np.uint8), np.array([0, 1])), np.array([2, 1]))
    assert arrays[0].label == 2 and arrays.take(np.array([1, 0]))[1].tolist() == [1, 2]


@pytest.mark.parametrize(
    ('names', 'net', 'numbers'),
    [
        (('cat', 'dog'), ('cat', 'dog'), [0, 1]),
        (('dog', 'horse'), ('cat', 'dog', 'horse'), [1, 2]),
        ((NFD, 'cafz'), ('cafz', NFC), [1, 0]),
        (('cat', 'Cat'), ('Cat', 'cat'), [1, 0]),
    ],
)
def test_classes_are_mapped_by_name_whatever_the_form_of_unicode(names, net, numbers):
    assert identity.mapping(names, net).tolist() == numbers


@pytest.mark.parametrize(
    ('names', 'net', 'message'),
    [
        (('dog', 'zcat'), ('cat', 'dog'), r"class 'zcat' \(did you mean 'cat'\?\) that the net does not know"),
        (('Cat', 'dog'), ('cat', 'dog'), r"class 'Cat' \(did you mean 'cat'\?\)"),
        ((NFC, NFD), (NFC, 'dog'), "two of Unicode's normal forms"),
        (('crane', 'cat'), ('cat', 'crane', 'crane'), "two of the net's classes are called 'crane'"),
    ],
)
def test_classes_that_cannot_be_mapped_are_named(names, net, message):
    with pytest.raises(UserError, match=message):
        identity.mapping(names, net)


def test_wordnet_ids_and_numbers_name_imagenets_classes_too():
    net = imagenet_classes()
    for names in (wnids()[7:9], ('7', '8'), net[7:9]):
        assert identity.mapping(names, net, *sources.namings(net)).tolist() == [7, 8]


def test_outputs_without_a_name_stay_where_they_are():
    assert identity.permutation(('a', 'b'), ('b', 'a'), 4).tolist() == [1, 0, 2, 3]
    with pytest.raises(UserError, match="without class 'b', with the new class 'c'"):
        identity.permutation(('a', 'b'), ('a', 'c'), 2)


def record(classes=('cat', 'dog'), counts=(2, 1), prefix='i'):
    labels = np.repeat(np.arange(len(counts)), counts)
    return identity.of(source(classes, train=files([f'{prefix}{i}'.encode() for i in range(sum(counts))], labels)))


@pytest.mark.parametrize(
    ('now', 'words'),
    [
        (
            record(('dog', 'zcat')),
            "2 classes ('cat', 'dog'), now 2 ('dog', 'zcat'): without class 'cat', with the new "
            "class 'zcat' (did you mean 'cat'?)",
        ),
        (record(('dog', 'cat')), "in another order (class 0 was 'cat' and is 'dog')"),
        (record(counts=(2, 4)), "train had 3 images, now 6; 'dog' 1 -> 4; sha256 "),
        (record(counts=(1, 2)), "train has as many images as before (3) but other ones; 'cat' 2 -> 1, 'dog' 1 -> 2"),
        (record(prefix='j'), 'train has as many images as before (3) but other ones; sha256 '),
        (record() | {'splits': {}}, 'train is gone'),
    ],
)
def test_what_has_changed_is_said_with_names_and_numbers(now, words):
    (found,) = identity.differences(record(), now)
    assert words in found
    assert identity.differences(now, now) == []


def test_a_record_is_the_same_in_another_form_of_unicode():
    assert identity.differences(record((NFC, 'dog')), record((NFD, 'dog'))) == []


def test_two_classes_of_one_name_are_refused_at_the_start():
    with pytest.raises(UserError, match='normal forms'):
        record((unicodedata.normalize('NFD', NFC), NFC))


def test_shown_names_are_printable_and_no_two_are_the_same():
    names = identity.shown(('crane', 'crane', 'a\nb', 'c\udce9'), 5)
    assert names == ['crane (0)', 'crane (1)', 'a\\nb', 'c\\udce9', '4']


def test_the_facts_of_a_record_are_those_of_the_source():
    data = source(train=files([b'a', b'b'], [0, 1]))
    again = identity.without_images(json.loads(json.dumps(identity.of(data))))
    assert again.facts == data.facts and again.encoded and len(again.splits['train']) == 2
