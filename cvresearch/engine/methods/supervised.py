"""Learning from labels alone: the plain update."""

import dataclasses
from typing import ClassVar

from cvresearch.engine import steps


@dataclasses.dataclass(frozen=True)
class Supervised:
    """The update of engine/steps.py."""

    strong_view: ClassVar[bool] = False
    unlabelled: ClassVar[bool] = False

    def initial(self, model, tx, image_shape: tuple[int, ...], seed) -> dict:
        """Returns nothing: no more than the net is kept."""
        return {}

    def make_train_step(self, parts: steps.UpdateParts):
        """Returns `steps.make_train_step` of the parts."""
        return steps.make_train_step(
            parts.model, parts.tx, parts.loss, parts.augment, parts.mean, parts.std, parts.options, parts.task
        )
