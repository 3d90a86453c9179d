"""Several nets as one, whose probabilities are the mean of theirs."""

import functools
from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Ensemble(nn.Module):
    """The mean of the members' probabilities, as its logarithm: softmax of the logits gives it back.

    Attributes:
      members: nets, images -> logits.
      orders: for each member, the place of each class of the first among its own.
      multi_label: each logit is a question of its own; the logit of the mean of the sigmoids is given.
    """

    members: tuple[nn.Module, ...]
    orders: tuple[tuple[int, ...], ...]
    multi_label: bool = False

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return len(self.orders[0])

    def __call__(self, x: jax.Array, train: bool = False):
        """Maps normalized images to logits, (batch, classes)."""
        rows = [member(x, train=train).astype(jnp.float32) for member in self.members]
        rows = [
            row if order == tuple(range(len(order))) else row[:, np.asarray(order)]
            for row, order in zip(rows, self.orders, strict=True)
        ]
        if self.multi_label:
            return _log_mean(map(_log_sigmoid, rows)) - _log_mean(_log_sigmoid(-row) for row in rows)
        return _log_mean(map(jax.nn.log_softmax, rows))


def _log_sigmoid(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, 0) - jnp.log1p(jnp.exp(-jnp.abs(x)))


def _log_mean(rows: Iterable[jax.Array]) -> jax.Array:
    rows = list(rows)
    most = functools.reduce(jnp.maximum, rows)
    return most + jnp.log(sum(jnp.exp(row - most) for row in rows)) - np.float32(np.log(len(rows)))
