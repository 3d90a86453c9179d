"""A rematerialised block computes its convolutions anew, and keeps what it summed over images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.nn import devices, overrides
from cvresearch.nn.conv import Conv
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.squeeze_excitation import SqueezeExcitation


class Block(nn.Module):
    """A convolution, a norm, and gates."""

    train: bool

    @nn.compact
    def __call__(self, x):
        x = nn.relu(BatchNorm(self.train, name='norm')(Conv(4, 3, name='conv')(x)))
        return SqueezeExcitation(2, lambda features, name: Conv(features, 1, name=name), name='se')(x)


class Small(nn.Module):
    """One block."""

    num_classes: int = 4

    @nn.compact
    def __call__(self, x, train=False):
        return Block(train, name='block')(x).mean((1, 2))


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
def test_sums_over_images_are_kept_and_convolutions_are_not(monkeypatch, platform):
    monkeypatch.setattr(devices, 'platform', lambda: platform)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5, 5, 3)), jnp.float32)
    variables = Small().init(jax.random.key(0), x)

    def gradient(net):
        def loss(params):
            logits, state = net.apply(variables | {'params': params}, x, train=True, mutable=['batch_stats'])
            return jnp.sum(logits**2), state

        return jax.grad(loss, has_aux=True)

    nets = Small(), overrides.Net(Small(), remat=True)
    plain, remat = (str(jax.make_jaxpr(gradient(net))(variables['params'])) for net in nets)
    assert remat.count('reduce_sum') == plain.count('reduce_sum')
    assert remat.count(' conv2d[') > plain.count(' conv2d[')
    for a, b in zip(*(jax.tree.leaves(gradient(net)(variables['params'])) for net in nets), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
