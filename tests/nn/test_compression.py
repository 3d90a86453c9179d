"""What a net computes while it is made small: dropout at another rate, and rounded numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.compress import int8
from cvresearch.nn import dropout, fake_quantised
from cvresearch.nn.stored import Stored


class Net(nn.Module):
    """Two dense layers with dropout after each."""

    num_classes: int = 1000

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(1000, name='a')(x)))
        y = nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(nn.Dense(1000, name='b')(x)))
        return x, y


def test_the_rate_after_a_layer_shrinks_and_the_mean_stays():
    net, x = Net(), jnp.ones((8, 3))
    variables = net.init(jax.random.key(0), x, train=False)

    @jax.jit
    def run(factor):
        with dropout.scaled({'b': factor}):
            return net.apply(variables, x, rngs={'dropout': jax.random.key(1)})

    plain = net.apply(variables, x, rngs={'dropout': jax.random.key(1)})
    first, second = run(jnp.float32(0.2))  # 0.5 * 0.2: a tenth is dropped
    np.testing.assert_allclose(first, plain[0], rtol=1e-6)
    assert abs(float((second == 0).mean()) - 0.1) < 0.02 and set(np.unique(second)) == {0, np.float32(1 / 0.9)}
    assert (run(jnp.float32(0))[1] == 1).all()
    with dropout.scaled({'b': jnp.float32(0.2)}):
        assert (net.apply(variables, x, train=False)[1] == 1).all()


def test_rounded_numbers_are_those_that_int8_computes_with():
    """A dense layer that trains rounded gives what the stored integers give."""
    layer = nn.Dense(5)
    x = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    params = jax.device_get(layer.init(jax.random.key(0), x)['params'])
    kernel, scale = int8.quantised_kernel(params['kernel'])
    input_scale, zero_point = int8.affine((x.min(), x.max()))
    stored = {'kernel': kernel, 'kernel_scale': scale, 'input_scale': input_scale, 'input_zero_point': zero_point}

    class One(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(5, name='dense')(x)

    expected = Stored(One()).apply({'params': {'dense': {**stored, 'bias': params['bias']}}}, x)
    with fake_quantised.of_inputs():
        got = layer.apply({'params': {**params, 'kernel': fake_quantised.kernel(params['kernel'])}}, x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(got - layer.apply({'params': params}, x)).max() > 1e-4


def test_the_gradient_passes_straight_through():
    weights = jnp.array(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    gradient = jax.grad(lambda w: (fake_quantised.kernel(w) * jnp.arange(3)).sum())(weights)
    np.testing.assert_array_equal(gradient, np.broadcast_to(np.arange(3, dtype=np.float32), (6, 3)))
    assert (jax.grad(lambda x: fake_quantised.activations(x).sum())(weights) == 1).all()
