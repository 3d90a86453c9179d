"""Weight sharing against the paper's example, scikit-learn, and all partitions."""

import itertools

import numpy as np
import pytest
from sklearn.cluster import KMeans

from cvresearch.base.errors import UserError
from cvresearch.optim import sharing

# Deep Compression, figure 3.
WEIGHTS = np.array(
    [[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0, -1.03], [1.87, 0, 1.53, 1.49]]
)
GRADIENT = np.array(
    [[-0.03, -0.01, 0.03, 0.02], [-0.01, 0.01, -0.02, 0.12], [-0.01, 0.02, 0.04, 0.01], [-0.07, -0.02, 0.01, -0.02]]
)


def test_the_papers_example():
    """Figure 3: codes, centroids, their gradients, the centroids after a step of rate 1, and 3.2 times smaller."""
    shared = sharing.share(WEIGHTS, 2, keep_zeros=False)
    assert shared.codes.tolist() == [[3, 0, 2, 1], [1, 1, 0, 3], [0, 3, 1, 0], [3, 1, 2, 2]]
    np.testing.assert_allclose(shared.codebook, [-1.0, 0.0, 1.5, 2.0], atol=0.005)
    gradient = np.asarray(sharing.codebook_gradient(GRADIENT, shared.codes, 4))
    np.testing.assert_allclose(gradient, [-0.03, 0.04, 0.02, 0.04], atol=1e-6)
    np.testing.assert_allclose(shared.codebook - gradient, [-0.97, -0.04, 1.48, 1.96], atol=0.005)
    assert sharing.compression_rate(16, 4) == pytest.approx(3.2)


def test_lloyds_algorithm_ends_where_scikit_learns_does():
    weights = np.random.default_rng(0).normal(size=3000).clip(-2.5, 2.5).astype(np.float32)
    shared = sharing.share(weights, 4)
    start = sharing.linear(weights, 16)[:, None]
    theirs = KMeans(16, init=start, n_init=1, max_iter=500, tol=0).fit(weights[:, None].astype(float))
    np.testing.assert_allclose(shared.codebook, np.sort(theirs.cluster_centers_[:, 0]), rtol=1e-5)
    assert sharing.sum_of_squares(weights, shared) == pytest.approx(theirs.inertia_, rel=1e-6)


@pytest.mark.parametrize('clusters', [1, 2, 3, 5])
def test_the_optimum_is_the_best_of_all_partitions(clusters):
    values = np.sort(np.random.default_rng(clusters).standard_t(2, size=11))
    counts = np.random.default_rng(1).integers(1, 4, 11)

    def cost(cuts):
        return sum(
            (counts[a:b] * (values[a:b] - np.average(values[a:b], weights=counts[a:b])) ** 2).sum()
            for a, b in itertools.pairwise([0, *cuts, 11])
        )

    least = min(cost(cuts) for cuts in itertools.combinations(range(1, 11), clusters - 1))
    centroids = sharing.optimal(values, counts, clusters)
    found = (counts * (values - centroids[sharing.nearest_code(values, centroids)]) ** 2).sum()
    assert found == pytest.approx(least)


def test_the_optimum_is_no_worse_than_the_best_of_scikit_learns_restarts():
    weights = np.random.default_rng(0).laplace(size=2000).astype(np.float32)
    theirs = KMeans(15, n_init=20, random_state=0).fit(weights[:, None].astype(float)).inertia_
    assert len(sharing.share(weights, 4, 'optimal').codebook) == 16
    values, counts = np.unique(weights, return_counts=True)
    fifteen = np.float32(sharing.optimal(values, counts, 15))
    codes = sharing.nearest_code(weights, fifteen)
    assert np.square(weights.astype(float) - fifteen[codes]).sum() <= theirs * (1 + 1e-9)


def test_no_code_is_wasted_on_a_cluster_that_lost_its_weights():
    weights = np.append(np.random.default_rng(0).normal(size=3000), 50).astype(np.float32)
    assert len(sharing.share(weights, 4).codebook) == 16


def test_zeros_stay_zero_and_count_as_a_value():
    weights = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    weights[::2] = 0
    found = sharing.share(weights, 3).weights()
    assert np.array_equal(found == 0, weights == 0)
    assert len(np.unique(found)) == 8


def test_few_distinct_values_are_kept_as_they_are():
    weights = np.float32([0.1, 0.2, 0.1, -7])
    assert np.array_equal(sharing.share(weights, 2).weights(), weights)


def test_a_gradient_leaves_zeros_out():
    gradient = sharing.codebook_gradient(np.float32([1, 2, 4, 8]), np.int32([0, -1, 1, 0]), 2)
    assert np.asarray(gradient).tolist() == [9, 4]


@pytest.mark.parametrize('bits', [0, 9, 2.5])
def test_bits_out_of_range_are_an_error(bits):
    with pytest.raises(UserError, match='from 1 to 8'):
        sharing.share(WEIGHTS, bits)


def test_weights_that_are_not_finite_are_an_error():
    with pytest.raises(UserError, match='not finite'):
        sharing.share(np.float32([1, np.nan]), 2)
