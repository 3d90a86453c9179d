"""Scanned blocks compute what unrolled blocks compute, under the same names."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvresearch.base import trees
from cvresearch.nn.conv import Conv
from cvresearch.nn.norms import BatchNorm
from cvresearch.nn.stacked import repeat, stack, unstack

BLOCKS = 4
LAYOUTS = {
    'unrolled, remat': dict(remat=True),
    'scanned': dict(scan=True),
    'scanned, remat': dict(scan=True, remat=True),
    'stacked': dict(scan=True, stacked=True),
}


class Block(nn.Module):
    """What repeat has to cope with: a gain without axes, batch statistics, dropout, a number for each block."""

    train: bool

    @nn.compact
    def __call__(self, x, weight):
        y = Conv(x.shape[-1], 3, name='conv')(x)
        y = nn.relu(BatchNorm(train=self.train, name='norm')(y))
        y = nn.Dropout(0.5, deterministic=not self.train, name='dropout')(y)
        return x + y * weight * self.param('gain', nn.initializers.normal(1.0), ())


class Net(nn.Module):
    """Two stages: one of repeated blocks only, one that begins with a block of its own."""

    blocks: int = BLOCKS
    scan: bool = False
    remat: bool = False
    stacked: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        again = functools.partial(repeat, self, scan=self.scan, remat=self.remat, stacked=self.stacked)
        weights, block = jnp.linspace(0.5, 1.5, self.blocks), functools.partial(Block, train=train)
        x = again(block, 'stage1_block', range(self.blocks), x, weights)
        x = block(name='stage2_block0')(x, 1.0)
        x = again(block, 'stage2_block', range(1, self.blocks), x, weights[1:])
        return nn.Dense(3, name='head')(jnp.mean(x, (1, 2)))


IMAGES = np.random.default_rng(0).standard_normal((5, 8, 8, 4)).astype(np.float32)


@functools.cache
def variables_of(**layout):
    return Net(**layout).init(jax.random.key(3), IMAGES[:1])


def step(variables, **layout):
    """Returns (logits in training, gradients, statistics after it, logits in evaluation), per block."""

    @jax.jit
    def run(variables):
        def loss(params):
            logits, state = Net(**layout).apply(
                {**variables, 'params': params},
                IMAGES,
                train=True,
                mutable=['batch_stats'],
                rngs={'dropout': jax.random.key(7)},
            )
            return jnp.mean(jnp.square(logits - 1)), (logits, state)

        gradients, (logits, state) = jax.grad(loss, has_aux=True)(variables['params'])
        return logits, gradients, state['batch_stats'], Net(**layout).apply(variables, IMAGES)

    return jax.tree.map(np.asarray, unstack(run(variables)))


def assert_equal(left, right, tolerance):
    """Compares logits, gradients and statistics, each to `tolerance` of its largest number.

    Not of each array: the gradient of a bias before a norm is zero but for rounding. Nor relative to each number: the
    same sums are fused otherwise in another program and by another instruction set, and a small result of large terms
    that cancel is off by the rounding of those terms.
    """
    left, right = trees.named_leaves(left), trees.named_leaves(right)
    assert [name for name, _ in left] == [name for name, _ in right]
    largest = {}
    for name, b in right:
        part = name.split('/')[0]
        largest[part] = max(largest.get(part, 0.0), np.abs(b).max())
    for (name, a), (_, b) in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest[name.split('/')[0]], err_msg=name)


@functools.cache
def result_of(layout):
    return step(variables_of(**LAYOUTS[layout]), **LAYOUTS[layout])


@functools.cache
def unrolled():
    return step(variables_of())


@pytest.mark.parametrize('layout', LAYOUTS)
def test_initial_values_are_the_same_bit_for_bit(layout):
    other = unstack(variables_of(**LAYOUTS[layout]))
    assert 'stage1_block0' in other['params'] and 'stage2_block2' in other['batch_stats']
    assert trees.sha256(other) == trees.sha256(variables_of())


def test_blocks_and_stages_draw_different_values():
    kernels = [np.asarray(leaf) for path, leaf in trees.named_leaves(variables_of()['params']) if 'conv/kernel' in path]
    assert len({kernel.tobytes() for kernel in kernels}) == 2 * BLOCKS


@pytest.mark.parametrize('layout', LAYOUTS)
def test_logits_gradients_and_statistics_equal_the_unrolled(layout):
    assert_equal(result_of(layout), unrolled(), tolerance=1e-5)


def test_remat_changes_nothing():
    assert_equal(result_of('unrolled, remat'), unrolled(), tolerance=2e-6)
    assert_equal(result_of('scanned, remat'), result_of('scanned'), tolerance=2e-6)


def test_a_scanned_net_takes_the_variables_of_an_unrolled_one():
    assert_equal(step(variables_of(), scan=True), unrolled(), tolerance=1e-5)


def test_the_program_is_of_one_size_for_every_depth():
    def equations(blocks):
        net = Net(blocks=blocks, scan=True, stacked=True)
        variables = jax.eval_shape(net.init, jax.random.key(0), IMAGES)
        return str(jax.make_jaxpr(lambda v: net.apply(v, IMAGES))(variables)).count('\n')

    assert equations(40) == equations(BLOCKS)


def test_layouts_turn_into_each_other_with_the_optimizer():
    params = variables_of(stacked=True, scan=True)['params']
    state = {'params': params, 'opt_state': optax.adam(1.0).init(params)}
    per_block = {'params': unstack(params), 'opt_state': optax.adam(1.0).init(unstack(params))}
    assert jax.tree.structure(unstack(state)) == jax.tree.structure(per_block)
    assert trees.sha256(unstack(state)) == trees.sha256(per_block)
    assert trees.sha256(stack(per_block, like=state)) == trees.sha256(state)
    on_host = unstack(jax.device_get(state))
    assert trees.sha256(on_host) == trees.sha256(per_block)
    assert trees.sha256(stack(on_host, like=state)) == trees.sha256(state)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves((on_host, stack(on_host, like=state))))


def test_no_blocks_are_the_identity():
    class Empty(nn.Module):
        @nn.compact
        def __call__(self, x):
            return repeat(self, functools.partial(Block, train=False), 'block', range(1, 1), x)

    assert Empty().apply({}, IMAGES) is IMAGES
