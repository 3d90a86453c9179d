"""Metrics of kept predictions against scikit-learn and hand arithmetic."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from cvresearch.base.errors import UserError
from cvresearch.objectives import metrics, scores, significance

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 7, 200)
LOGITS = RNG.normal(size=(200, 7)) + 2 * np.eye(7)[LABELS] * (RNG.random((200, 1)) < 0.7)
LOGITS[:, 5] -= 20  # a class that is never predicted
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
PREDICTED = LOGITS.argmax(1)
CONFUSION = scores.confusion_matrix(PREDICTED, LABELS, 7)


@pytest.mark.parametrize('k', [1, 2, 5])
def test_top_k_is_scikit_learns(k):
    assert scores.top_k(LOGITS, LABELS, k) == pytest.approx(
        100 * sk.top_k_accuracy_score(LABELS, LOGITS, k=k, labels=np.arange(7))
    )


def test_ranks_are_those_of_the_device():
    logits = np.array([[1.0, 1, 0], [1, 1, 0], [np.nan, 1, 2], [np.inf, 1, 2]], np.float32)
    labels = np.array([0, 1, 0, 0])
    assert scores.label_rank(logits, labels).tolist() == metrics.label_rank(logits, labels).tolist() == [0, 1, 3, 3]


def test_losses_are_scikit_learns():
    assert scores.nll(LOGITS, LABELS) == pytest.approx(sk.log_loss(LABELS, PROBABILITIES, labels=np.arange(7)))
    assert scores.softmax(LOGITS) == pytest.approx(PROBABILITIES)
    assert scores.brier(PROBABILITIES, LABELS) == pytest.approx(
        sk.brier_score_loss(LABELS, PROBABILITIES, labels=np.arange(7), scale_by_half=False)
    )


def test_confusion_and_averages_are_scikit_learns():
    assert (sk.confusion_matrix(LABELS, PREDICTED) == CONFUSION).all()
    names = ('precision', 'recall', 'f1')
    every = sk.precision_recall_fscore_support(LABELS, PREDICTED, zero_division=0)
    for c, row in enumerate(scores.per_class(CONFUSION)):
        assert [row[name] for name in names] == pytest.approx([100 * part[c] for part in every[:3]])
        assert row['accuracy'] == row['recall'] and row['images'] == every[3][c]
    for how in ('macro', 'micro'):
        expected = sk.precision_recall_fscore_support(LABELS, PREDICTED, average=how, zero_division=0)[:3]
        found = scores.averages(CONFUSION)
        assert [found[f'{how}_{name}'] for name in names] == pytest.approx([100 * value for value in expected])


def test_expected_calibration_error_by_hand():
    # Two bins. (0, 0.5]: 0.5 wrong, 0.4 right: accuracy 1/2, confidence 0.45. (0.5, 1]: 0.9 right, 0.7 right,
    # 0.8 wrong: accuracy 2/3, confidence 0.8. ECE = 2/5 * 0.05 + 3/5 * (0.8 - 2/3) = 0.02 + 0.08.
    probabilities = np.array([[0.5, 0.3, 0.2], [0.3, 0.4, 0.3], [0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    error, rows = scores.calibration(probabilities, np.array([1, 1, 0, 1, 0]), bins=2)
    assert error == pytest.approx(0.1)
    assert [row['count'] for row in rows] == [2, 3]
    assert rows[1]['accuracy'] == pytest.approx(2 / 3) and rows[0]['confidence'] == pytest.approx(0.45)


def test_empty_bins_and_full_confidence():
    error, rows = scores.calibration(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]), bins=10)
    assert error == pytest.approx(0.5) and rows[-1]['count'] == 2 and rows[0]['accuracy'] is None


def test_real_accuracy_by_hand():
    # Right, right with the second label, wrong; the image without labels does not count.
    assert scores.real_accuracy(np.array([3, 5, 7, 1]), [[3], [4, 5], [1, 2], []]) == (pytest.approx(200 / 3), 3)
    with pytest.raises(UserError, match='2 images'):
        scores.real_accuracy(np.array([1, 2]), [[1]])


def test_restricted_logits_choose_among_the_subset_only():
    assert scores.restricted(np.array([[9.0, 1, 2, 3]]), [1, 3]).argmax(1).tolist() == [1]


def test_mean_corruption_error_of_alexnet_is_100_and_of_half_its_errors_50():
    errors = {name: [error / 2] * 5 for name, error in scores.ALEXNET_ERRORS.items()}
    assert len(errors) == 15
    assert scores.mean_corruption_error(errors)[0] == pytest.approx(50)
    errors['fog'] = [0, 0, 0, 0, 5 * scores.ALEXNET_ERRORS['fog']]  # sums over severities, not a mean of ratios
    total, each = scores.mean_corruption_error(errors)
    assert each['fog'] == pytest.approx(100) and total == pytest.approx((14 * 50 + 100) / 15)
    del errors['fog']
    with pytest.raises(UserError, match='missing: fog'):
        scores.mean_corruption_error(errors)


def test_bootstrap_interval_of_a_share_is_the_binomials():
    right = np.arange(1000) < 900  # resampled means are binomial: deviation sqrt(0.9 * 0.1 / 1000)
    low, high = significance.bootstrap(right)
    assert (low, high) == pytest.approx(stats.binom.interval(0.95, 1000, 0.9) / np.array(1000), abs=2e-3)
    assert significance.bootstrap(right) == (low, high)


def test_mcnemar_by_hand():
    # Of 6 images that one alone got right, 1 and 5: p = 2 * (C(6,0) + C(6,1)) / 2^6 = 14 / 64.
    first = np.array([1, 0, 0, 0, 0, 0, 1, 1, 0], bool)
    second = np.array([0, 1, 1, 1, 1, 1, 1, 1, 0], bool)
    assert significance.mcnemar(first, second) == dict(only_first=1, only_second=5, p=pytest.approx(14 / 64))
    assert significance.mcnemar(first, first)['p'] == 1
