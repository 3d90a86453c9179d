"""The bytes that a compiled program sends, against arithmetic by hand for a ring."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.peers.scale import collectives

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
    found = collectives(text)
    assert sum(each[2] for name, each in found.items() if name == kind) == pytest.approx(wire)


# As the TPU's compiler writes them: a sum of which each device gets a part, a gathering spread over two fusions.
FUSED = '''
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
'''


def test_collectives_within_fusions_are_counted_once():
    assert collectives(FUSED) == {
        'all-gather': (1, 2000, 2000 * 3 / 4), 'collective-permute': (1, 640, 640),
        'reduce-scatter': (1, 250, 2000 * 7 / 8),
    }  # fmt: skip
