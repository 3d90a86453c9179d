"""Several classifiers as one, which answers with the mean of their probabilities.

Huang et al. 2017, "Snapshot ensembles", arXiv:1704.00109, section 3. The files of runs are averaged by
`evaluation/ensemble.py`; here the ensemble is a net of its own, so that it can leave as one file.
"""

import functools
import hashlib
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.interop.classifier import Classifier, Provenance


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
        rows = [row if order == tuple(range(len(order))) else row[:, np.asarray(order)]
                for row, order in zip(rows, self.orders, strict=True)]  # fmt: skip
        if self.multi_label:
            return _log_mean(map(_log_sigmoid, rows)) - _log_mean(_log_sigmoid(-row) for row in rows)
        return _log_mean(map(jax.nn.log_softmax, rows))


def _log_sigmoid(x: jax.Array) -> jax.Array:
    return jnp.minimum(x, 0) - jnp.log1p(jnp.exp(-jnp.abs(x)))


def _log_mean(rows) -> jax.Array:
    rows = list(rows)
    most = functools.reduce(jnp.maximum, rows)
    return most + jnp.log(sum(jnp.exp(row - most) for row in rows)) - np.float32(np.log(len(rows)))


def of(members: Sequence[Classifier]) -> Classifier:
    """Returns the classifier that several are together; one alone is itself.

    The classes are in the order of the first, by their names.

    Raises:
      UserError: members of other classes, whose images are prepared otherwise, or of another kind of question.
    """
    first, *others = members
    if not others:
        return first
    for other in others:
        pair = f'{first.provenance.name} and {other.provenance.name}'
        if other.preprocessing != first.preprocessing:
            raise UserError(
                f'{pair} prepare images differently ({first.preprocessing}; {other.preprocessing}); the members of an '
                'ensemble are given the same images'
            )
        if sorted(other.class_names) != sorted(first.class_names) or other.multi_label != first.multi_label:
            raise UserError(f'{pair} answer with other classes; the members of an ensemble have the same')
    orders = tuple(_order(first.class_names, member.class_names) for member in members)
    module = Ensemble(tuple(member.module for member in members), orders, first.multi_label)
    variables = {
        kind: {f'members_{number}': member.variables[kind] for number, member in enumerate(members)
               if kind in member.variables}
        for kind in ('params', 'batch_stats') if any(kind in member.variables for member in members)
    }  # fmt: skip
    variants = sorted({member.provenance.variant for member in members})
    digests = '\n'.join(member.provenance.digest for member in members)
    provenance = Provenance(
        'ensemble', ' + '.join(member.provenance.name for member in members),
        f'{len(members)} x {" + ".join(variants)}', hashlib.sha256(digests.encode()).hexdigest(),
        facts={'members': [member.provenance.record for member in members]},
    )  # fmt: skip
    return Classifier(module, variables, first.preprocessing, first.class_names, provenance, first.multi_label)


def _order(names: Sequence[str], others: Sequence[str]) -> tuple[int, ...]:
    if tuple(names) == tuple(others):
        return tuple(range(len(names)))
    return tuple(others.index(name) for name in names)
