"""Residual nets whose blocks begin as the identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.inspect import cost, features
from cvresearch.models import registry
from cvresearch.nn.stacked import unstack

# Two blocks in the first stage; the second keeps the shape of the map.
NETS = {
    'resnet18': dict(stage_sizes=(2,)),
    'resnet50': dict(stage_sizes=(2,)),
    'legacy_seresnet50': dict(stage_sizes=(2,)),
    'resnet20_cifar10': dict(depth=14),
    'resnext29_8x64d_cifar10': dict(depth=20, cardinality=2, group_width=4),
    'preact_resnet110_cifar10': dict(stage_sizes=(2,)),
    'preact_resnet164_cifar10': dict(stage_sizes=(2,)),
    'wide_resnet16_8_cifar10': dict(widen=1),
}
IMAGES = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)


def test_the_nets_that_have_the_knob_are_all_here():
    modules = {variant.module for variant in registry.catalogue().values()}
    having = {module for module in modules if hasattr(module, 'zero_init_last')}
    assert having == {registry.variant(name).module for name in NETS}


@pytest.mark.parametrize('name', NETS)
def test_a_block_whose_last_layer_starts_at_zero_is_the_identity_and_learns(name):
    model = registry.build(name, zero_init_last=True, **NETS[name])
    variables = jax.jit(lambda key: model.init(key, IMAGES))(jax.random.key(0))

    @jax.jit
    def run(variables):
        def loss(params):
            return jnp.sum(model.apply({**variables, 'params': params}, IMAGES) ** 2)

        found = features.features(model, variables, IMAGES, ['stage1_block0', 'stage1_block1'])
        return found, unstack(jax.grad(loss)(variables['params']))

    found, gradients = run(variables)
    np.testing.assert_array_equal(found['stage1_block1'], found['stage1_block0'])
    weights = dict(trees.named_leaves(variables['params']['stage1_block1']))
    zeroed = [path for path, leaf in weights.items() if path.endswith(('kernel', 'scale')) and not np.any(leaf)]
    assert len(zeroed) == 1 and np.any(dict(trees.named_leaves(gradients['stage1_block1']))[zeroed[0]])


@pytest.mark.parametrize(('depth', 'channels', 'count'), [(20, 1, 272_186), (20, 3, 272_474), (56, 3, 855_770)])
def test_projections_have_the_parameters_of_public_reruns(depth, channels, count):
    # 272,474 and 855,770: printed by reruns on CIFAR-10. One channel: two planes of 16 kernels of 3x3 less.
    model = registry.build('resnet20_cifar10', depth=depth, shortcut='projection')
    assert trees.count(cost.shapes(model, (28, 28, channels))['params']) == count
    with pytest.raises(UserError, match='unknown shortcut'):
        cost.shapes(registry.build('resnet20_cifar10', shortcut='B'), (28, 28, 3))
