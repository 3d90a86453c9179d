"""A number of a configuration that is an argument of the compiled program instead of a constant in it."""

import jax
import jax.numpy as jnp


class Traced(float):
    """A float that computes as a traced array.

    As a float it is one member's value: what checks and branches on the numbers of a configuration sees
    that. In arithmetic with numbers it stays such a pair, and an array takes the traced side of it. So whatever
    is built of a configuration (schedules, optimizers, losses) can be traced with it unchanged. A value that
    is turned into a plain float on the way would be that one member's for all: `population.NUMBERS` names
    those that are tested not to be.
    """

    __slots__ = ('array',)

    def __new__(cls, value: float, array: jax.Array):
        """Args: the float; the traced float32 ()."""
        self = super().__new__(cls, value)
        self.array = array
        return self

    def __jax_array__(self) -> jax.Array:
        return self.array

    def __hash__(self) -> int:
        return id(self)


def _both(name: str):
    plain = getattr(float, name)

    def operation(self: Traced, *others):
        arrays = [other.array if isinstance(other, Traced) else other for other in others]
        array = getattr(self.array, name)(*arrays)
        if all(isinstance(other, int | float) for other in others):
            return Traced(plain(self, *map(float, others)), array)
        return jnp.asarray(array)

    return operation


for _name in ('add', 'sub', 'mul', 'truediv', 'pow'):
    for _prefix in ('', 'r'):
        setattr(Traced, f'__{_prefix}{_name}__', _both(f'__{_prefix}{_name}__'))
Traced.__neg__ = _both('__neg__')

# A function that is jitted by itself takes the traced side as an argument, and has such a pair within.
jax.tree_util.register_pytree_node(
    Traced, lambda x: ((x.array,), float(x)), lambda value, arrays: Traced(value, *arrays)
)
