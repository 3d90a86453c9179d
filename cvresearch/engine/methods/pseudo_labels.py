"""Pseudo-labels: the net's most likely class of an unlabelled image is its label, renewed at every update."""

import dataclasses
from typing import ClassVar

import jax

from cvresearch.base.errors import UserError
from cvresearch.engine import steps
from cvresearch.objectives.unlabelled import check_numbers, of_own_classes, ramp


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """Lee 2013, "Pseudo-Label", equation 15 and 16: loss + alpha(t) * loss on the net's own classes.

    alpha is 0 until an epoch, and rises on a line to its last value. (Recalled: 0 until 100, 3 from 600 on.) An epoch
    is one of the labelled images.

    Attributes:
      steps_per_epoch: updates for which the labelled images last.
      weight: the last value of alpha.
      begin_epochs: until then alpha is 0.
      full_epochs: from then on it is `weight`.
      threshold: images whose most likely class has a lower probability count as 0; 0: all count, as in the paper.
    """

    steps_per_epoch: float
    weight: float = 3.0
    begin_epochs: float = 100.0
    full_epochs: float = 600.0
    threshold: float = 0.0
    strong_view: ClassVar[bool] = False
    unlabelled: ClassVar[bool] = True

    def __post_init__(self):
        check_numbers(self, shares=['threshold'], weights=['weight'])
        if not 0 <= self.begin_epochs <= self.full_epochs:
            raise UserError(
                f'config.method.begin_epochs is {self.begin_epochs} and full_epochs {self.full_epochs}; expected 0 or '
                'more, the smaller first'
            )

    def initial(self, model, tx, image_shape: tuple[int, ...], seed) -> dict:
        """Returns nothing: labels are renewed at every update."""
        return {}

    def make_train_step(self, parts: steps.UpdateParts):
        """Returns one update, (state, batch) -> state."""

        def of_unlabelled(step: jax.Array, labels: jax.Array, logits: jax.Array) -> jax.Array:
            begin, full = (epochs * self.steps_per_epoch for epochs in (self.begin_epochs, self.full_epochs))
            alpha = self.weight * ramp(step, begin, full)
            return alpha * of_own_classes(logits, logits, self.threshold)

        return steps.make_joint_train_step(parts, of_unlabelled, strong=False)
