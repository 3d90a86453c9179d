"""Class weights against scikit-learn and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from cvresearch.base.errors import UserError
from cvresearch.objectives import class_weights, losses

# By hand, in 64 bits: the last bits of 32 are another processor's own.
pytestmark = pytest.mark.usefixtures('float64')
NAMES = ('ant', 'bee', 'c.d')
LABELS = np.array([0, 1, 1, 2, 2, 2, 2, 1, 1, 1], np.int32)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(10, 3))
WEIGHTS = np.array([0.5, 2.0, 1.25])


def test_balanced_is_scikit_learns():
    expected = compute_class_weight('balanced', classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(class_weights.resolve('balanced', NAMES, LABELS, 3), expected, rtol=1e-6)


def test_balanced_of_several_labels_is_scikit_learns_for_each_class_as_a_problem_of_its_own():
    labels = np.array([[0, -1], [0, 1], [1, 2], [-1, -1], [0, -1]], np.int32)
    found = class_weights.resolve('balanced', NAMES, labels, 3)
    for label in range(3):
        lacking, having = compute_class_weight('balanced', classes=np.array([False, True]), y=(labels == label).any(1))
        assert found[label] == pytest.approx(having / lacking, rel=1e-6)


# PyTorch 2.13.0, cross_entropy(weight=WEIGHTS, label_smoothing=...) of the first three logits, in float64.
@pytest.mark.parametrize(
    'smoothing, expected',
    [
        (0.0, [0.618585, 3.35436, 1.926969]),
        (0.1, [0.707116, 3.180509, 1.917543]),
    ],
)
def test_softmax_is_pytorchs(smoothing, expected):
    loss = losses.make({'name': 'softmax_cross_entropy', 'label_smoothing': smoothing}, WEIGHTS)
    np.testing.assert_allclose(loss(LOGITS[:3], jax.nn.one_hot(LABELS[:3], 3)), expected, rtol=1e-5)


def test_sigmoid_weighs_the_images_that_have_a_class_as_pytorchs_pos_weight():
    target = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]], np.float32)
    expected = [1.474591, 3.63003, 1.177567]  # PyTorch 2.13.0, binary_cross_entropy_with_logits(pos_weight=WEIGHTS)
    loss = losses.make({'name': 'sigmoid_cross_entropy'}, WEIGHTS)
    np.testing.assert_allclose(loss(LOGITS[:3], target), expected, rtol=1e-5)
    ones = losses.make({'name': 'sigmoid_cross_entropy'}, np.ones(3, np.float32))
    plain = losses.make({'name': 'sigmoid_cross_entropy'})
    np.testing.assert_allclose(ones(LOGITS[:3], target), plain(LOGITS[:3], target), rtol=1e-5)


@pytest.mark.parametrize('name', ['multiclass_hinge', 'maximum_a_posteriori'])
def test_other_losses_are_times_the_weight_of_the_class(name):
    target = jax.nn.one_hot(LABELS, 3)
    plain, weighted = losses.make({'name': name}), losses.make({'name': name}, WEIGHTS)
    np.testing.assert_allclose(weighted(jnp.array(LOGITS), target), plain(jnp.array(LOGITS), target) * WEIGHTS[LABELS])


def test_numbers_by_name_leave_the_others_at_one_and_further_logits_too():
    assert class_weights.resolve({'c.d': 3}, NAMES, None, 5).tolist() == [1, 1, 3, 1, 1]
    assert class_weights.resolve((1, 2.5, 0), NAMES, None, 3).tolist() == [1, 2.5, 0]
    assert class_weights.resolve(None, NAMES, None, 3) is None


@pytest.mark.parametrize(
    'spec, said',
    [
        ('balance', 'expected balanced'),
        ((1, 2), 'has 2 numbers; expected 3'),
        (2.0, 'has 1 numbers'),
        ({'be': 1.0}, "unknown class 'be'; did you mean bee"),
        ((1, -1, 1), "of 'bee' is -1"),
        ((1, float('nan'), 1), "of 'bee' is nan"),
        ((1, 'x', 1), "of 'bee' is 'x'"),
        ((0, 0, 0), 'all 0'),
    ],
)
def test_what_is_no_weight_is_refused(spec, said):
    with pytest.raises(UserError, match=said):
        class_weights.resolve(spec, NAMES, LABELS, 3)


def test_a_class_without_images_cannot_be_balanced():
    with pytest.raises(UserError, match="no training image of 'ant'"):
        class_weights.resolve('balanced', NAMES, LABELS[1:], 3)
