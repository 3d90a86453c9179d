"""What a compiled program moves, against arithmetic by hand: bytes of HBM with tiles, and bytes sent in a ring."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cvresearch.inspect import hlo
from cvresearch.inspect.traffic import Collective, Traffic, collectives, traffic

FLOATS = 1000


@pytest.mark.parametrize(
    ('shape', 'inside', 'outside', 'kind', 'wire'),
    [
        # A sum over n devices: every device sends 2 (n - 1) / n of the result; a gathering (n - 1) / n.
        ((8, 1), P('data'), P(), 'all-reduce', 4 * FLOATS * 2 * 7 / 8),
        ((4, 2), P('data'), P(), 'all-reduce', 4 * FLOATS * 2 * 3 / 4),
        ((4, 2), P(None, 'shard'), P(), 'all-gather', 4 * FLOATS * 1 / 2),
    ],
)
def test_collectives_are_counted_among_their_devices(shape, inside, outside, kind, wire):
    mesh = jax.make_mesh(shape, ('data', 'shard'))
    summed = jax.jit(
        lambda x: jax.lax.with_sharding_constraint(jnp.sum(x, 0), NamedSharding(mesh, outside)),
        in_shardings=NamedSharding(mesh, inside),
    )
    text = summed.lower(jax.ShapeDtypeStruct((16, FLOATS), jnp.float32)).compile().as_text()
    assert sum(each.wire_bytes for each in collectives(hlo.parse(text)) if each.kind == kind) == pytest.approx(wire)


# As the TPU's compiler writes them: a sum of which each device gets a part, a gathering spread over two fusions.
FUSED = """
%all-reduce-scatter.3 (input: bf16[400], input.1: bf16[600]) -> (bf16[50], bf16[75]) {
  %all-reduce.5 = (bf16[400]{0}, bf16[600]{0}) all-reduce(%a, %b), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}
}
%fused_computation.1 (param: bf16[250]) -> bf16[1000] {
  %all-gather.1 = bf16[1000]{0} all-gather(%param), channel_id=8, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
}
%async_collective_fusion.2 (param: bf16[250]) -> bf16[1000] {
  %all-gather.2 = bf16[1000]{0} all-gather(%param), channel_id=8, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
}
ENTRY %main (a: bf16[250], b: bf16[1000]) -> bf16[50] {
  %f = bf16[1000]{0} fusion(%a), kind=kLoop, calls=%fused_computation.1
  %g = bf16[1000]{0} fusion(%a, %f), kind=kCustom, calls=%async_collective_fusion.2
  %p = f32[16,10]{1,0} collective-permute(%c), channel_id=2, source_target_pairs={{0,7},{1,6},{2,5},{3,4}}
  %h = (bf16[50]{0}, bf16[75]{0}) fusion(%b), kind=kCustom, calls=%all-reduce-scatter.3
}
"""


def test_collectives_within_fusions_are_counted_once():
    assert collectives(hlo.parse(FUSED)) == [
        Collective('all-gather', 1, 2000, 2000 * 3 / 4), Collective('collective-permute', 1, 640, 640),
        Collective('reduce-scatter', 1, 250, 2000 * 7 / 8),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('text', 'shape', 'size', 'padded', 'space'),
    [
        ('f32[3,5]{1,0}', (3, 5), 60, 60, 0),
        ('f32[3,5]{1,0:T(8,128)}', (3, 5), 60, 4 * 8 * 128, 0),  # a tile is filled up on both sides
        ('bf16[9,200]{0,1:T(8,128)(2,1)S(1)}', (9, 200), 3600, 2 * 200 * 128, 1),  # rows are the fastest axis
        ('pred[]', (), 1, 1, 0),
    ],
)
def test_an_array_has_bytes_tiles_and_a_memory(text, shape, size, padded, space):
    assert hlo.arrays(text) == (hlo.Array(text.partition('[')[0], shape, size, padded, space),)


# A loop of five turns, each of which cuts a row out of x and writes it on the chip; then a sum from there to HBM.
LOOP = """
%cut (p: f32[5,100], i: s32[]) -> f32[1,100] {
  %p = f32[5,100]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %d = f32[1,100]{1,0:S(1)} dynamic-slice(%p, %i, %i), dynamic_slice_sizes={1,100}
}
%body (s: (s32[], f32[5,100])) -> (s32[], f32[5,100]) {
  %s = (s32[], f32[5,100]{1,0}) parameter(0)
  %n = s32[]{:S(6)} get-tuple-element(%s), index=0
  %x = f32[5,100]{1,0} get-tuple-element(%s), index=1
  %f = f32[1,100]{1,0:S(1)} fusion(%x, %n), kind=kLoop, calls=%cut, backend_config={"estimated_cycles":"7"}
  ROOT %t = (s32[], f32[5,100]{1,0}) tuple(%n, %x)
}
ENTRY %main (x: f32[5,100]) -> f32[25] {
  %x = f32[5,100]{1,0} parameter(0)
  %w = (s32[], f32[5,100]{1,0}) while(%x), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %v = f32[100]{0:S(1)} copy-thing(%x)
  ROOT %r = f32[25]{0} reduce(%v), to_apply=%sum
}
"""


def test_hbm_is_what_leaves_the_chip_as_often_as_a_loop_runs():
    # Rows are read 5 times 400 bytes; %v reads all of x, 2,000 bytes; the result is 100.
    expected = 5 * 400 + 2000 + 100
    assert traffic(hlo.parse(LOOP), on_chip=True) == Traffic(expected, expected, 35)


def test_a_gpu_has_no_memory_on_the_chip_that_programs_name():
    # The rows are written too, 400 bytes each, and %n is read, 4; %v is written and read.
    expected = 5 * (400 + 400 + 4) + 2000 + 400 + 400 + 100
    assert traffic(hlo.parse(LOOP), on_chip=False).hbm == expected


BRANCHES = """
%much (x: f32[100]) -> f32[100] {
  %x = f32[100]{0} parameter(0)
  ROOT %n = f32[100]{0} negate(%x)
}
%none (x: f32[100]) -> f32[100] {
  ROOT %x = f32[100]{0} parameter(0)
}
ENTRY %main (p: pred[], x: f32[100]) -> f32[100] {
  %p = pred[] parameter(0)
  %x = f32[100]{0} parameter(1)
  %r = f32[100]{0} reverse(%x), dimensions={0}
  ROOT %c = f32[100]{0} conditional(%p, %r, %r), branch_computations={%much, %none}
}
"""


def test_of_a_conditional_the_branch_that_moves_least_counts():
    assert traffic(hlo.parse(BRANCHES), on_chip=True).hbm == 800
