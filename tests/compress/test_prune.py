"""Pruning against the papers' formulas."""

import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.compress import prune
from cvresearch.optim.kernels import kernels, with_kernels

RNG = np.random.default_rng(0)
PARAMS = {
    'C1': {'kernel': RNG.normal(size=(3, 3, 1, 4)).astype(np.float32), 'bias': np.ones(4, np.float32)},
    'head': {'kernel': 3 * RNG.normal(size=(64, 10)).astype(np.float32), 'bias': np.ones(10, np.float32)},
}
KERNELS = kernels(PARAMS)


@pytest.mark.parametrize('share', [0, 0.3, 0.777, 1])
def test_the_share_of_a_layer_is_exact_and_the_least_go(share):
    mask = prune.by_layer(KERNELS, share)['head']
    assert (~mask).sum() == round(share * 640)
    weights = np.abs(KERNELS['head'])
    assert weights[~mask].max(initial=0) <= weights[mask].min(initial=np.inf)


def test_ties_are_broken_by_place():
    assert prune.smallest(np.float32([1, -1, 1, 1]), 0.5).tolist() == [False, False, True, True]


def test_globally_the_least_of_the_net_go():
    """By PyTorch's definition: one threshold for all layers."""
    masks = prune.everywhere(KERNELS, 0.5)
    threshold = np.sort(np.abs(np.concatenate([k.reshape(-1) for k in KERNELS.values()])))[338]
    for layer, kernel in KERNELS.items():
        assert np.array_equal(masks[layer], np.abs(kernel) >= threshold)
    assert masks['C1'].mean() < masks['head'].mean()


def test_the_threshold_is_quality_times_the_deviation():
    mask = prune.by_deviation({'a': np.float32([3, -1, 1, -3])}, 0.5)['a']  # deviation sqrt(5)
    assert mask.tolist() == [True, False, False, True]


@pytest.mark.parametrize('share', [-0.1, 1.01, float('nan')])
def test_a_share_outside_0_to_1_is_an_error(share):
    with pytest.raises(UserError, match='from 0 to 1'):
        prune.by_layer(KERNELS, share)


def test_a_layer_that_does_not_exist_is_an_error():
    with pytest.raises(UserError, match=r"no layer 'heat'; did you mean head\?"):
        prune.by_layer(KERNELS, {'heat': 0.5})


def test_a_net_without_kernels_is_an_error():
    with pytest.raises(UserError, match='nothing can be compressed'):
        kernels({'norm': {'scale': np.ones(3)}})


def test_with_kernels_changes_nothing_else():
    changed = with_kernels(PARAMS, {'C1': KERNELS['C1'] * 2})
    assert np.array_equal(changed['C1']['kernel'], PARAMS['C1']['kernel'] * 2)
    assert changed['C1']['bias'] is PARAMS['C1']['bias'] and changed['head']['kernel'] is PARAMS['head']['kernel']
