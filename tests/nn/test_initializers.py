"""Each initialiser against its formula, on a kernel large enough to measure."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.nn.initializers import INITIALIZERS, initializer

SHAPE = (3, 3, 64, 256)
IN, OUT = 3 * 3 * 64, 3 * 3 * 256
# Deviation of what remains of a standard normal variable cut at two: 1 - 2 * 2 phi(2) / (Phi(2) - Phi(-2)).
CUT = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def cut(deviation):
    """A cut normal of that deviation after the cut, and its bound."""
    return deviation, 2 * deviation / CUT


def flat(bound):
    """A uniform one within that bound."""
    return bound / math.sqrt(3), bound


# Standard deviation, and the bound that no value passes.
EXPECTED = {
    'glorot_uniform': flat(math.sqrt(6 / (IN + OUT))),  # Glorot & Bengio 2010, equation 16
    'glorot_normal': cut(math.sqrt(2 / (IN + OUT))),
    'he_uniform': flat(math.sqrt(6 / IN)),
    'he_normal': cut(math.sqrt(2 / IN)),
    'he_fan_in': (math.sqrt(2 / IN), None),  # He et al. 2015, arXiv:1502.01852, equation 10
    'he_fan_out': (math.sqrt(2 / OUT), None),  # equation 14
    'he_fan_out_truncated': cut(math.sqrt(2 / OUT)),
    'lecun_uniform': flat(math.sqrt(3 / IN)),
    'lecun_normal': cut(math.sqrt(1 / IN)),
    'lecun_fan_in': (math.sqrt(1 / IN), None),
    'lecun_1998': flat(2.4 / IN),
    'pytorch': flat(1 / math.sqrt(IN)),
    'uniform_fan_out': flat(1 / math.sqrt(OUT)),
    'normal_0.01': (0.01, None),
    'normal_0.05': (0.05, None),
    'normal_1.0': (1.0, None),
    'truncated_normal_0.001': cut(0.001 * CUT),
    'truncated_normal_0.01': cut(0.01 * CUT),
    'truncated_normal_0.09': cut(0.09 * CUT),
    'truncated_normal_0.1': cut(0.1 * CUT),
    'orthogonal': (math.sqrt(1 / IN), None),  # columns of length 1
    'zeros': (0.0, 0.0),
}


@pytest.mark.parametrize('name', INITIALIZERS)
def test_deviation_and_bound_are_those_of_the_formula(name):
    deviation, bound = EXPECTED[name]
    values = np.asarray(initializer(name)(jax.random.key(0), SHAPE, jnp.float32), np.float64)
    assert values.shape == SHAPE
    assert values.std() == pytest.approx(deviation, rel=0.01)
    assert abs(values.mean()) <= 4 * deviation / math.sqrt(values.size)
    if bound is None:
        assert 4 * deviation < np.abs(values).max() < 6 * deviation
    else:  # and it is nearly reached
        assert 0.99 * bound <= np.abs(values).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize('name', ['he_fan_out', 'he_fan_out_truncated'])
def test_the_fan_out_of_a_depthwise_kernel_is_its_window(name):
    values = initializer(name)(jax.random.key(0), (5, 5, 1, 4096), jnp.float32)
    assert float(values.std()) == pytest.approx(math.sqrt(2 / 25), rel=0.01)


@pytest.mark.parametrize('name', [name for name in INITIALIZERS if hasattr(jax.nn.initializers, name)])
def test_the_values_are_those_of_jax_under_that_name(name):
    theirs = getattr(jax.nn.initializers, name)
    theirs = theirs if name == 'zeros' else theirs()
    for shape in ((3, 3, 4, 8), (5, 7)):
        ours = initializer(name)(jax.random.key(1), shape, jnp.float32)
        np.testing.assert_allclose(ours, theirs(jax.random.key(1), shape, jnp.float32), rtol=1e-6)


@pytest.mark.parametrize('shape', [(3, 3, 2, 8), (1, 1, 4, 16)])
def test_orthogonal_kernels_preserve_lengths(shape):
    matrix = np.asarray(initializer('orthogonal')(jax.random.key(0), shape, jnp.float32)).reshape(-1, shape[-1])
    smaller = matrix.T @ matrix if matrix.shape[0] > matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(smaller, np.eye(len(smaller)), atol=1e-5)
