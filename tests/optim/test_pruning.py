"""Pruning on the way against the papers' formulas, and against the same done on the host."""

import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.compress import prune
from cvresearch.optim import pruning

RNG = np.random.default_rng(0)
WEIGHTS = {'a': RNG.normal(size=(3, 3, 1, 4)).astype(np.float32), 'b': 3 * RNG.normal(size=(64, 10)).astype(np.float32)}


def test_the_cubic_schedule_is_equation_1():
    schedule = pruning.cubic(0.8, begin=100, end=200, first=0.2)
    found = [schedule(step) for step in (99, 100, 150, 199, 200, 999)]
    np.testing.assert_allclose(found, [0, 0.2, 0.8 - 0.6 / 8, 0.8 - 0.6e-6, 0.8, 0.8])
    assert pruning.cubic(0.8, 0, 100, every=25)(49) == pytest.approx(0.8 * (1 - 0.75**3))


def test_iterations_keep_equal_shares_of_what_is_left():
    schedule = pruning.iterative(0.91, [10, 20])
    np.testing.assert_allclose([schedule(step) for step in (9, 10, 20)], [0, 0.7, 0.91])
    assert [pruning.one_shot(0.5, 3)(step) for step in (2, 3)] == [0, 0.5]


def test_dropout_is_equation_2():
    assert pruning.dropout_rate(0.5, 100, 9) == pytest.approx(0.15)


def test_rounds_count_what_is_away():
    rounds = pruning.SCHEDULES['cubic'](100, 200, 4)
    assert rounds.steps == (125, 150, 175, 200)
    np.testing.assert_allclose(rounds.numbers(0.8, 1000), [0, 462, 700, 788, 800], atol=0.5)  # 0.8 (1 - (1 - p)^3)
    assert [int(rounds.made(step)) for step in (0, 124, 125, 199, 200, 999)] == [0, 0, 1, 3, 4, 4]
    assert pruning.SCHEDULES['iterative'](10, 20, 3).steps == (10, 15, 20)
    assert pruning.SCHEDULES['one_shot'](10, 0, 3).steps == (10,)
    with pytest.raises(UserError, match='an end after the begin'):
        pruning.SCHEDULES['iterative'](10, 10, 3)


@pytest.mark.parametrize('share', [0, 0.3, 0.777, 1])
def test_the_least_go_as_on_the_host(share):
    whole = {name: jnp.ones(weights.shape, bool) for name, weights in WEIGHTS.items()}
    for name, weights in WEIGHTS.items():
        found = pruning.without_smallest(jnp.array(weights), whole[name], jnp.int32(round(share * weights.size)))
        assert np.array_equal(found, prune.smallest(weights, share))
    of_all = pruning.without_smallest_of_all(
        list(map(jnp.array, WEIGHTS.values())), list(whole.values()), jnp.int32(round(share * 676))
    )
    for found, expected in zip(of_all, prune.everywhere(WEIGHTS, share).values(), strict=True):
        assert np.array_equal(found, expected)


def test_what_is_away_stays_away_and_ties_go_by_place():
    mask = jnp.array([True, True, False, True, True])
    found = pruning.without_smallest(jnp.array([1.0, -1, 9, 1, 5]), mask, jnp.int32(3))
    assert found.tolist() == [False, False, False, True, True]
    assert pruning.without_smallest(jnp.array([1.0, -1, 9, 1, 5]), mask, jnp.int32(0)).tolist() == mask.tolist()


def test_the_deviation_is_of_what_is_left():
    weights, mask = jnp.array([3.0, -1, 1, -3, 100]), jnp.array([True, True, True, True, False])
    assert pruning.above_deviation(weights, mask, 0.5).tolist() == [True, False, False, True, False]  # 0.5 sqrt(5)
