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
