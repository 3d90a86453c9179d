"""Meshes from a configuration, and which arrays are divided over them, against hand arithmetic."""

import jax
import jax.numpy as jnp
import pytest

from cvresearch.base.errors import UserError
from cvresearch.base.mesh import Layout, bytes_per_device

# Of a small net, with the divisions over 4 devices written out: the longest axis that 4 divides, the last of equals.
ARRAYS = {
    'conv/kernel': ((3, 3, 8, 16), (None, None, None, 'shard')),
    'wide/kernel': ((3, 3, 32, 6), (None, None, 'shard')),
    'square/kernel': ((12, 12), (None, 'shard')),
    'odd/kernel': ((5, 7, 30, 18), ()),  # nothing that 4 divides
    'head/bias': ((16,), ()),  # fewer than `least`
    'stage1_block1-8/conv/kernel': ((8, 3, 3, 4, 8), (None, None, None, None, 'shard')),  # never the axis of blocks
    'stage1_block1-64/norm/scale': ((64, 16), ()),  # 16 numbers a block
}
SHAPES = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, (shape, _) in ARRAYS.items()}


def layout(**spec):
    return Layout.of(dict(data=2, shard=4, least=64) | spec, devices=8)


def specs(**spec):
    return {name: tuple(placement.spec) for name, placement in layout(**spec).of_variables(SHAPES).items()}


def test_arrays_are_divided_by_size():
    assert specs() == {name: spec for name, (_, spec) in ARRAYS.items()}
    assert set(specs(shard=1, data=8).values()) == {()}
    assert set(specs(least=1 << 20).values()) == {()}


def test_the_first_rule_that_matches_comes_before_size():
    rules = (('bias', 0), ('^wide', None), (r'block[3-5]/conv', -2), ('kernel', -1), ('norm', None))
    found = specs(rules=rules, shard=2)
    assert found['head/bias'] == ('shard',) and found['wide/kernel'] == ()
    assert found['stage1_block1-8/conv/kernel'] == (None, None, None, 'shard')  # of the block's own axes, from the end
    assert found['odd/kernel'] == (None, None, None, 'shard')


def test_moments_and_averages_lie_as_their_parameters():
    other = {'a': {'kernel': jax.ShapeDtypeStruct((12,), jnp.int8)}}
    state = {
        'params': {'a': {'kernel': SHAPES['square/kernel']}},
        'moments': ({'a': {'kernel': SHAPES['square/kernel']}}, other),
        'other': SHAPES['square/kernel'],
    }
    placed = layout().of_state(state, {'a/kernel': SHAPES['square/kernel']})
    assert [tuple(x.spec) for x in jax.tree.leaves(placed)] == [(None, 'shard'), (), (), (None, 'shard')]
    # 144 float32 divided by 4, twice; 12 bytes and 144 float32 whole: each device's, as written by hand.
    assert bytes_per_device(state, placed) == 2 * 144 * 4 // 4 + 12 + 144 * 4


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (dict(data=3), 'data=3 and shard=4, but there are 8 devices'),
        (dict(data=-1, shard=3), 'a shard that divides them'),
        (dict(shard=0), 'shard=0'),
        (dict(shards=2), "no argument 'shards'; did you mean shard"),
        (dict(least='1'), "least is '1'"),
        (dict(rules=(('kernel',),)), 'expected pairs'),
        (dict(rules=(('kernle', 0),)), "'kernle' matches no parameter"),
        (dict(rules=(('odd', 0),)), r'divides odd/kernel, of shape \(5, 7, 30, 18\), along axis 0 over 4 devices'),
        (dict(rules=(('conv', 4),)), r'along axis 4 over 4 devices'),
    ],
)
def test_what_does_not_fit_is_refused(spec, message):
    with pytest.raises(UserError, match=message):
        specs(**spec)
