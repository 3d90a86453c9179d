"""Random streams as pure functions of (seed, purpose, step). No state, nothing to save."""

import zlib

import jax


def key(seed: jax.Array | int, purpose: str) -> jax.Array:
    """Returns the key of one purpose ('init', 'dropout', 'augment') of a run.

    Purposes are independent of each other, so a new one changes none of the old.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


def step_key(seed: jax.Array | int, purpose: str, step: jax.Array | int) -> jax.Array:
    """Returns the key of one purpose at one step."""
    return jax.random.fold_in(key(seed, purpose), step)


def example_keys(seed: jax.Array | int, purpose: str, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """Returns one key per example, shape (batch,): a function of (seed, epoch, index) alone.

    What happens to an image does not depend on its place in the batch or on the batch size.
    """
    base = key(seed, purpose)
    return jax.vmap(lambda e, i: jax.random.fold_in(jax.random.fold_in(base, e), i))(epoch, index)
