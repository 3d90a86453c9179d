"""Images that another net has labelled, with distributions or classes, beside images that people have labelled."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from cvresearch.engine import steps
from cvresearch.objectives.unlabelled import check_numbers


@dataclasses.dataclass(frozen=True)
class SoftLabels:
    """The student of Noisy Student (Xie et al. 2019, arXiv:1911.04252, algorithm 1): mean loss plus mean loss.

    The noise is the configuration's: dropout, stochastic depth, the policy of augmentation.

    Attributes:
      weight: of the images that a net has labelled; the algorithm's is 1.
    """

    weight: float = 1.0
    strong_view: ClassVar[bool] = False
    unlabelled: ClassVar[bool] = True

    def __post_init__(self):
        check_numbers(self, weights=['weight'])

    def initial(self, model, tx, image_shape: tuple[int, ...], seed) -> dict:
        """Returns nothing: the labels come with the images."""
        return {}

    def make_train_step(self, parts: steps.UpdateParts):
        """Returns one update, (state, batch) -> state."""

        def of_unlabelled(step: jax.Array, labels: jax.Array, logits: jax.Array) -> jax.Array:
            return self.weight * jnp.mean(parts.loss(logits, labels))

        return steps.make_joint_train_step(parts, of_unlabelled, strong=False)
