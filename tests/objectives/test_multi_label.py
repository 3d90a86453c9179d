"""Metrics of images with any number of labels, beside scikit-learn's."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn

from cvresearch.evaluation import ensemble
from cvresearch.evaluation.predictions import Predictions, summary
from cvresearch.objectives import multi_label, tasks

RNG = np.random.default_rng(0)
LOGITS = np.round(RNG.normal(size=(200, 6)), 1).astype(np.float32)  # rounded: many are equal
LABELS = np.array([sorted(RNG.permutation(6)[:n]) + [-1] * (3 - n) for n in RNG.integers(0, 4, 200)], np.int32)
HAS = multi_label.targets(LABELS, 6)


def test_targets_by_hand():
    expected = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    labels = np.array([[2, 0], [-1, -1], [1, -1]], np.int32)
    assert multi_label.targets(labels, 3).astype(int).tolist() == expected
    assert np.asarray(tasks.of_several(jnp.array(labels), 3)).astype(int).tolist() == expected


def test_map_and_f1_are_scikit_learns():
    found, said = multi_label.summary(LOGITS, LABELS), LOGITS > 0
    each = [sklearn.average_precision_score(HAS[:, c], LOGITS[:, c]) for c in range(6)]
    assert [row['ap'] for row in multi_label.per_class(LOGITS, LABELS)] == pytest.approx([100 * ap for ap in each])
    assert found['mAP'] == pytest.approx(100 * sklearn.average_precision_score(HAS, LOGITS, average='macro'))
    for average in ('micro', 'macro'):
        assert found[f'{average}_f1'] == pytest.approx(100 * sklearn.f1_score(HAS, said, average=average))
    assert found['exact_match'] == pytest.approx(100 * sklearn.accuracy_score(HAS, said))


def test_a_class_that_no_image_has_is_not_in_the_mean():
    logits = np.concatenate([LOGITS, np.ones((200, 1), np.float32)], 1)
    found = multi_label.summary(logits, LABELS)
    assert found['mAP'] == multi_label.summary(LOGITS, LABELS)['mAP'] and found['classes_with_images'] == 6
    assert multi_label.per_class(logits, LABELS)[6]['ap'] is None


def test_what_is_no_number_ranks_last():
    assert multi_label.average_precision(np.array([np.nan, 1.0, 0.0]), np.array([True, False, False])) == 1 / 3


def test_training_adds_up_the_same_over_batches():
    parts = [
        tasks.MULTI.of_batch(jnp.array(LOGITS[s]), jnp.array(LABELS[s]), jnp.ones(len(LOGITS[s])))
        for s in (slice(0, 70), slice(70, 200))
    ]
    found = tasks.MULTI.means({name: float(parts[0][name]) + float(parts[1][name]) for name in parts[0]})
    whole = multi_label.summary(LOGITS, LABELS)
    assert found == pytest.approx({'loss': 1.0, **{k: whole[k] for k in ('exact_match', 'micro_f1', 'n_seen')}})


def test_an_ensemble_averages_the_probability_of_each_class():
    record = {'task': 'multi_label'}
    members = [Predictions(LOGITS, LABELS, record), Predictions(-2 * LOGITS, LABELS, record)]
    whole = ensemble.average(members, **record)
    np.testing.assert_allclose(whole.probabilities, np.mean([m.probabilities for m in members], 0), rtol=1e-5)
    np.testing.assert_allclose(members[0].probabilities, 1 / (1 + np.exp(-LOGITS.astype(np.float64))))
    assert 'top1' not in summary(whole)
