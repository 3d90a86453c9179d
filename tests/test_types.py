"""What annotations say is true: of shapes, while tests run, and of types, by the static checker."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from cvresearch.inspect import class_activation
from cvresearch.nn.conv import conv2d
from cvresearch.objectives import losses

ROOT = Path(__file__).parent.parent


def test_the_checker_finds_no_wrong_type_in_the_library():
    command = [sys.executable, '-m', 'basedpyright', '--pythonpath', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f'{done.stdout[-4000:]}\n{done.stderr[-1000:]}'


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


def test_so_does_one_of_another_kind_and_a_field():
    with pytest.raises(jaxtyping.TypeCheckError, match='classes'):
        class_activation.ClassMap(np.zeros((2, 3, 3)), 'C3', np.zeros((2, 10)), np.zeros(2))


def test_outside_of_the_tests_nothing_is_checked():
    code = (
        'import jax.numpy as jnp; from cvresearch.objectives import losses; '
        'losses.softmax_cross_entropy()(jnp.zeros((4, 1)), jnp.zeros((4, 9)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
