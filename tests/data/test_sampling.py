"""Classes by shares of an epoch: exact counts, every image in turn, and a function of the position alone."""

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import sampling, sources
from cvresearch.data.permutation import permute
from cvresearch.data.stream import Stream

COUNTS = (7, 60, 133)  # 200 images, shuffled among each other
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), COUNTS)).astype(np.int32)
EXAMPLES = sources.Arrays(np.arange(200, dtype=np.uint8).reshape(-1, 1, 1, 1), LABELS)


def stream(batch_size, name='balanced', host=0, hosts=1, **spec):
    drawn = sampling.make({'name': name, **spec}, 200, LABELS)
    return Stream(EXAMPLES, 5, batch_size, host, hosts, drawn)


@pytest.mark.parametrize('name, power', [('balanced', {}), ('power', {'power': 0.5}), ('power', {'power': 1.0})])
def test_every_epoch_has_each_class_within_one_of_its_share(name, power):
    weights = np.array(COUNTS) ** power.get('power', 0.0)
    aim = 200 * weights / weights.sum()
    for epoch in range(4):
        _, index = stream(8, name, **power).drawn(200 * epoch, 200 * (epoch + 1))
        assert (abs(np.bincount(LABELS[index]) - aim) < 1).all()


def test_a_class_shows_all_its_images_before_one_comes_again_also_over_epochs():
    turn, index = stream(8).drawn(0, 200 * 30)
    for label, count in enumerate(COUNTS):
        shown = np.bincount(index[LABELS[index] == label], minlength=200)[label == LABELS]
        assert shown.max() - shown.min() <= 1 and len(shown) == count
    assert len(set(zip(turn.tolist(), index.tolist(), strict=True))) == 200 * 30  # no copy has another's random numbers


def test_the_order_differs_by_epoch_by_seed_and_by_turn_of_a_class():
    first, second = (stream(8).drawn(200 * e, 200 * (e + 1))[1] for e in (0, 1))
    assert (first != second).mean() > 0.9
    turn, index = stream(8).drawn(0, 1000)
    small = LABELS[index] == 0
    orders = [index[small & (turn == t)].tolist() for t in range(6)]
    assert len({tuple(order) for order in orders}) == 6


def test_batches_do_not_depend_on_batch_size_hosts_or_where_one_begins():
    whole = stream(8).drawn(0, 6000)[1]
    assert np.array_equal(np.concatenate([stream(12).batch(step)['index'] for step in range(500)]), whole)
    parts = [stream(8, host=host, hosts=4).batch(749)['index'] for host in range(4)]
    assert np.array_equal(np.concatenate(parts), whole[749 * 8 :])


def test_digest_is_of_the_sampling():
    digests = [stream(8, name).digest(1) for name in ('shuffle', 'balanced', 'power')]
    assert len(set(digests)) == 3 and digests[0] == Stream(EXAMPLES, 5, 16).digest(1)


def test_shares_are_rounded_by_largest_remainders():
    # 10 positions: 10 / 3 each, the first class gets the one left over; by hand with power 1/2 of 1, 4, 5.
    assert sampling.quotas(np.array([1, 4, 5]), 0.0).tolist() == [4, 3, 3]
    # sqrt: 1, 2, 2.2361 of 5.2361: 1.910, 3.820, 4.271.
    assert sampling.quotas(np.array([1, 4, 5]), 0.5).tolist() == [2, 4, 4]


def test_a_class_without_images_has_no_share_and_the_smallest_always_has_one():
    labels = np.array([0] * 1000 + [2], np.int32)
    drawn = sampling.make({'name': 'power', 'power': 0.9}, 1001, labels)
    assert set(drawn.counts()) == {0, 2} and drawn.counts()[2] >= 1 and sum(drawn.counts().values()) == 1001


def test_a_size_for_each_position_permutes_as_each_size_does_alone():
    sizes = np.repeat([1, 2, 5, 64, 100, 4097], 5)
    place = np.arange(30) * 7919 % sizes
    alone = [permute(np.array([p]), int(n), 3, np.array([9]))[0] for p, n in zip(place, sizes, strict=True)]
    assert permute(place, sizes, 3, np.full(30, 9)).tolist() == alone


@pytest.mark.parametrize('labels, said', [(None, 'does not know'), (np.zeros((200, 2), np.int32), 'several labels')])
def test_what_has_not_one_label_an_image_is_refused(labels, said):
    with pytest.raises(UserError, match=f'needs one label an image.*{said}'):
        sampling.make({'name': 'balanced'}, 200, labels)


def test_a_power_outside_is_refused():
    with pytest.raises(UserError, match=r'config\.sampling\.power is 1\.5; expected 0'):
        sampling.make({'name': 'power', 'power': 1.5}, 200, LABELS)
