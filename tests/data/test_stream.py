"""The stream is a function of (examples, seed, step) alone."""

import numpy as np
import pytest

from cvresearch.data import sources
from cvresearch.data.permutation import permute
from cvresearch.data.stream import Stream, in_order, prefetch

EXAMPLES = sources.Arrays(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), np.arange(100, dtype=np.int32))


def indices(batch_size, steps, seed=0, hosts=1):
    streams = [Stream(EXAMPLES, seed, batch_size, host, hosts) for host in range(hosts)]
    return np.concatenate([stream.batch(step)['index'] for step in range(steps) for stream in streams])


@pytest.mark.parametrize('n', [1, 2, 3, 10, 64, 100, 1000, 4097])
@pytest.mark.parametrize('epoch', [0, 1, 77])
def test_permutation_is_a_bijection_and_differs_by_epoch_and_seed(n, epoch):
    everything = np.arange(n)
    image = permute(everything, n, 3, np.full(n, epoch))
    assert sorted(image) == list(everything)
    if n >= 10:
        assert not np.array_equal(image, permute(everything, n, 3, np.full(n, epoch + 1)))
        assert not np.array_equal(image, permute(everything, n, 4, np.full(n, epoch)))


def test_permutation_is_spread_evenly():
    # Where 2,000 permutations of 10 send each number: chi-square with 81 degrees of freedom has
    # mean 81 and deviation 13; 5 deviations above would be 145.
    counts = np.zeros((10, 10))
    for epoch in range(2000):
        counts[np.arange(10), permute(np.arange(10), 10, 0, np.full(10, epoch))] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 145


def test_permutation_of_a_million_needs_no_table():
    # One position of a huge range is answered alone: no memory in the number of examples.
    assert 0 <= permute(np.array([10**12]), 10**13, 0, np.array([5]))[0] < 10**13


def test_every_epoch_shows_every_example_once():
    drawn = indices(16, 25).reshape(-1)[:400].reshape(4, 100)
    assert all(sorted(epoch) == list(range(100)) for epoch in drawn)


@pytest.mark.parametrize('hosts', [2, 4])
def test_the_sequence_does_not_depend_on_batch_size_or_hosts(hosts):
    expected = indices(20, 20)
    np.testing.assert_array_equal(indices(80, 5), expected)
    np.testing.assert_array_equal(indices(20, 20, hosts=hosts), expected)


def test_labels_and_images_belong_to_the_index():
    batch = Stream(EXAMPLES, 1, 32).batch(9)
    np.testing.assert_array_equal(batch['label'], batch['index'])
    np.testing.assert_array_equal(batch['image'].reshape(-1), batch['index'])


@pytest.mark.parametrize('batch_size', [1, 7, 64, 100, 256])
@pytest.mark.parametrize('hosts', [1, 2])
def test_in_order_counts_every_example_once(batch_size, hosts):
    batch_size *= hosts
    seen = []
    for parts in zip(*(in_order(EXAMPLES, batch_size, host, hosts) for host in range(hosts)), strict=True):
        for batch in parts:
            assert len(batch['mask']) == batch_size // hosts
            seen.extend(batch['label'][batch['mask'] > 0])
    assert sorted(seen) == list(range(100))


def test_prefetch_gives_all_in_order_and_hands_on_errors():
    assert list(prefetch(lambda step: step, 3, 8)) == [3, 4, 5, 6, 7]

    def broken(step):
        raise OSError(f'disk, step {step}')

    with pytest.raises(OSError, match='disk, step 0'):
        list(prefetch(broken, 0, 3))


def test_prefetch_ends_its_thread_when_closed():
    import threading

    batches = prefetch(lambda step: step, 0, 10**9)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == 'prefetch']
