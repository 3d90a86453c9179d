"""Consistency: the net's answer to an image is the target of its answer to the same image, augmented strongly.

FixMatch (Sohn et al. 2020, arXiv:2001.07685, section 2) and UDA (Xie et al. 2019, arXiv:1904.12848, section 2.3 and
appendix) are one option apart: the target is the most likely class, or the sharpened distribution.
"""

import dataclasses
from typing import ClassVar

import jax

from cvresearch.engine import steps
from cvresearch.objectives.unlabelled import check_numbers, of_own_classes, of_own_distributions, ramp


@dataclasses.dataclass(frozen=True)
class Consistency:
    """The labelled loss plus weight * the mean of the cross-entropies of confident images.

    Attributes:
      hard: whether the target is the most likely class, or the whole distribution.
      threshold: images whose most likely class has a lower probability count as 0.
      temperature: divides the logits of a soft target; below 1 it sharpens.
      weight: of the unlabelled images.
      warmup_steps: updates over which the weight rises from 0; 0: none.
    """

    hard: bool
    threshold: float
    temperature: float
    weight: float
    warmup_steps: int
    strong_view: ClassVar[bool] = True
    unlabelled: ClassVar[bool] = True

    def __post_init__(self):
        check_numbers(self, ['threshold'], ['weight', 'warmup_steps'], ['temperature'])

    def initial(self, model, tx, image_shape: tuple[int, ...], seed) -> dict:
        """Returns nothing: targets are renewed at every update."""
        return {}

    def make_train_step(self, parts: steps.UpdateParts):
        """Returns one update, (state, batch) -> state."""

        def of_unlabelled(step: jax.Array, labels: jax.Array, weak: jax.Array, strong: jax.Array) -> jax.Array:
            weight = self.weight * ramp(step, 0, self.warmup_steps) if self.warmup_steps else self.weight
            if self.hard:
                return weight * of_own_classes(weak, strong, self.threshold)
            return weight * of_own_distributions(weak, strong, self.threshold, self.temperature)

        return steps.make_joint_train_step(parts, of_unlabelled, strong=True)


def fixmatch(threshold: float = 0.95, weight: float = 1.0, warmup_steps: int = 0) -> Consistency:
    """FixMatch: the target is the most likely class."""
    return Consistency(True, threshold, 1.0, weight, warmup_steps)


def uda(threshold: float = 0.8, temperature: float = 0.4, weight: float = 1.0, warmup_steps: int = 0) -> Consistency:
    """UDA: the target is the sharpened distribution. (The confidence is that before sharpening.)"""
    return Consistency(False, threshold, temperature, weight, warmup_steps)
