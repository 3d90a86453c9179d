"""Losses and metrics against hand arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from cvresearch.objectives import losses, metrics

LOGITS = jnp.array([[math.log(0.7), math.log(0.2), math.log(0.1)]])
TARGET = jnp.array([[0.0, 1.0, 0.0]])


def test_cross_entropy_by_hand():
    assert losses.make({'name': 'softmax_cross_entropy'})(LOGITS, TARGET)[0] == pytest.approx(-math.log(0.2))


def test_label_smoothing_by_hand():
    # 0.1 of the mass goes evenly to all three classes: 1/30, 0.9 + 1/30, 1/30.
    expected = -(math.log(0.7) / 30 + (0.9 + 1 / 30) * math.log(0.2) + math.log(0.1) / 30)
    loss = losses.make({'name': 'softmax_cross_entropy', 'label_smoothing': 0.1})
    assert loss(LOGITS, TARGET)[0] == pytest.approx(expected, rel=1e-6)


def test_maximum_a_posteriori_by_hand():
    # Equation 9: y_D + log(e^-j + sum e^-y_i), with distances y = 1, 2, 4 and class 1.
    loss = losses.make({'name': 'maximum_a_posteriori', 'penalty': 0.5})
    expected = 2 + math.log(math.exp(-0.5) + math.exp(-1) + math.exp(-2) + math.exp(-4))
    assert loss(-jnp.array([[1.0, 2.0, 4.0]]), TARGET)[0] == pytest.approx(expected, rel=1e-6)


def test_metrics_equal_scikit_learn_and_leave_filling_out():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((40, 12)), rng.integers(0, 12, 40)
    logits[30:] = np.nan  # filling may hold anything
    mask = (np.arange(40) < 30).astype(np.float32)
    loss = losses.make({'name': 'softmax_cross_entropy'})(jnp.array(logits), jax.nn.one_hot(labels, 12))
    values = metrics.means(metrics.total(None, metrics.of_batch(jnp.array(logits), jnp.array(labels), loss, mask)))
    kept, kept_labels = logits[:30], labels[:30]
    assert values['n_seen'] == 30
    for k in (1, 5):
        expected = 100 * top_k_accuracy_score(kept_labels, kept, k=k, labels=np.arange(12))
        assert values[f'top{k}'] == pytest.approx(expected)
    probabilities = np.exp(kept) / np.exp(kept).sum(1, keepdims=True)
    assert values['loss'] == pytest.approx(log_loss(kept_labels, probabilities, labels=np.arange(12)), rel=1e-5)


def test_ties_go_to_the_smaller_class_and_nothing_is_right_by_being_infinite():
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [jnp.nan, 1.0, 2.0], [jnp.inf, 1.0, 2.0]])
    assert metrics.label_rank(logits, jnp.array([0, 1, 0, 0])).tolist() == [0, 1, 3, 3]
