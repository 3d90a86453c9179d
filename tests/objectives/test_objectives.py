"""Losses and metrics against hand arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from cvresearch.objectives import losses, metrics, mixing

# By hand, in 64 bits: the last bits of 32 are another processor's own.
pytestmark = pytest.mark.usefixtures('float64')
LOGITS = np.array([[math.log(0.7), math.log(0.2), math.log(0.1)]])
TARGET = np.array([[0.0, 1.0, 0.0]])


def test_cross_entropy_by_hand():
    assert losses.make({'name': 'softmax_cross_entropy'})(LOGITS, TARGET)[0] == pytest.approx(-math.log(0.2))


def test_label_smoothing_by_hand():
    # 0.1 of the mass goes evenly to all three classes: 1/30, 0.9 + 1/30, 1/30.
    expected = -(math.log(0.7) / 30 + (0.9 + 1 / 30) * math.log(0.2) + math.log(0.1) / 30)
    loss = losses.make({'name': 'softmax_cross_entropy', 'label_smoothing': 0.1})
    assert loss(LOGITS, TARGET)[0] == pytest.approx(expected, rel=1e-9)


def test_maximum_a_posteriori_by_hand():
    # Equation 9: y_D + log(e^-j + sum e^-y_i), with distances y = 1, 2, 4 and class 1.
    loss = losses.make({'name': 'maximum_a_posteriori', 'penalty': 0.5})
    expected = 2 + math.log(math.exp(-0.5) + math.exp(-1) + math.exp(-2) + math.exp(-4))
    assert loss(-jnp.array([[1.0, 2.0, 4.0]]), TARGET)[0] == pytest.approx(expected, rel=1e-9)


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
    assert values['loss'] == pytest.approx(log_loss(kept_labels, probabilities, labels=np.arange(12)), rel=1e-9)


def test_ties_go_to_the_smaller_class_and_nothing_is_right_by_being_infinite():
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [jnp.nan, 1.0, 2.0], [jnp.inf, 1.0, 2.0]])
    assert metrics.label_rank(logits, jnp.array([0, 1, 0, 0])).tolist() == [0, 1, 3, 3]


def test_sigmoid_cross_entropy_and_hinge_by_hand():
    logits, target = jnp.array([[3.2, 5.1, -1.7]]), jnp.array([[1.0, 0.0, 0.0]])
    # CS231n's cat: max(0, 5.1 - 3.2 + 1) + max(0, -1.7 - 3.2 + 1) = 2.9 + 0.
    assert losses.make({'name': 'multiclass_hinge'})(logits, target)[0] == pytest.approx(2.9, rel=1e-9)
    expected = math.log1p(math.exp(-3.2)) + math.log1p(math.exp(5.1)) + math.log1p(math.exp(-1.7))
    assert losses.make({'name': 'sigmoid_cross_entropy'})(logits, target)[0] == pytest.approx(expected, rel=1e-9)


def test_distillation_by_hand():
    # Softened by 2, the teacher's (log 9, 0) is (3/4, 1/4) and the net's (0, 0) is (1/2, 1/2).
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    distil = losses.Distillation(weight=0.3, temperature=2.0)
    found = distil(jnp.array([5.0]), jnp.zeros((1, 2)), jnp.array([[math.log(9), 0.0]]))
    assert found[0] == pytest.approx(0.7 * 5 + 0.3 * 4 * divergence, rel=1e-9)


MIXINGS = [dict(mixup=0.4), dict(cutmix=1.0), dict(mixup=0.4, cutmix=1.0)]


@pytest.mark.parametrize('per_example', [False, True])
@pytest.mark.parametrize('knobs', MIXINGS)
def test_mixing_conserves_the_mass_of_the_labels_and_the_images_follow_it(knobs, per_example):
    # Images of one value, so that a mixed one tells how much of which is in it: class k has the value 2 ** k.
    labels = jnp.arange(6)
    images = jnp.broadcast_to(2.0 ** labels[:, None, None, None], (6, 8, 12, 1))
    target = jax.nn.one_hot(labels, 6)
    mix = mixing.Mixing(**knobs, per_example=per_example)
    weights = []
    for seed in range(4):
        mixed, soft = mix(images, target, jax.random.key(seed))
        np.testing.assert_allclose(jnp.sum(soft, -1), 1, rtol=1e-9)
        np.testing.assert_allclose(jnp.mean(mixed, (1, 2, 3)), soft @ 2.0**labels, rtol=1e-9)
        if knobs == dict(cutmix=1.0):
            assert set(np.unique(mixed)) <= set((2.0**labels).tolist())
        weights.append(jnp.diagonal(soft))
    weights = np.array(weights)
    assert weights.std(0).min() > 0 and (weights.std(1).max() > 1e-3) == per_example
    smoothed = losses.make({'name': 'softmax_cross_entropy', 'label_smoothing': 0.1})(jnp.zeros((6, 6)), soft)
    np.testing.assert_allclose(smoothed, math.log(6), rtol=1e-9)


def test_the_box_of_cutmix_has_the_area_that_the_weight_leaves():
    # sqrt(1 - 0.75) = half of each side, wherever the border does not cut it off.
    inside = np.asarray(mixing.boxes(jax.random.key(0), jnp.full(200, 0.75), (8, 12)))
    assert inside.sum((1, 2)).max() == 4 * 6 and inside.sum((1, 2)).min() >= 2 * 3
    rows, columns = inside.any(2), inside.any(1)
    np.testing.assert_array_equal(inside, rows[:, :, None] & columns[:, None])
    assert np.abs(np.diff(rows.astype(int), axis=1)).sum(1).max() <= 2  # in one piece
