"""What annotations say is true: of shapes, while tests run, and of types, by the checker."""

import jax.numpy as jnp
import jaxtyping
import pytest

from cvresearch.nn.conv import conv2d
from cvresearch.objectives import losses


def test_an_array_of_another_shape_than_its_annotation_says_fails_in_tests():
    loss = losses.softmax_cross_entropy()
    loss(jnp.zeros((4, 10)), jnp.zeros((4, 10)))
    with pytest.raises(jaxtyping.TypeCheckError, match='target'):
        loss(jnp.zeros((4, 10)), jnp.zeros((4, 9)))


def test_so_does_a_layer_of_a_net():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 4))
    conv2d(x, kernel)
    with pytest.raises(jaxtyping.TypeCheckError, match='batch height width channels'):
        conv2d(x[0], kernel)
