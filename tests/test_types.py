"""What annotations say is true: of shapes, while tests run, and of types, by the checker."""

import jax.numpy as jnp
import jaxtyping
import pytest

from cvresearch.objectives import losses


def test_an_array_of_another_shape_than_its_annotation_says_fails_in_tests():
    loss = losses.softmax_cross_entropy()
    loss(jnp.zeros((4, 10)), jnp.zeros((4, 10)))
    with pytest.raises(jaxtyping.TypeCheckError, match='target'):
        loss(jnp.zeros((4, 10)), jnp.zeros((4, 9)))
