"""Progressive resizing: how large images are, and how strongly they are augmented, as a function of the step."""

import bisect
import dataclasses
from typing import Any

from cvresearch.base.errors import UserError, construct

# The knobs that grow with the images, and where they are in a configuration.
KNOBS = {'dropout': 'model.dropout', 'magnitude': 'transform.train.policy.magnitude', 'mixup': 'mixing.mixup'}


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a run in which all images have one size.

    Attributes:
      first: its first step.
      size: side of the training images, in pixels; None for what the configuration says.
      values: of knobs of the configuration, by dotted key.
    """

    first: int
    size: int | None = None
    values: dict[str, float] = dataclasses.field(default_factory=dict)


def phase_at(phases: tuple[Phase, ...], step: int) -> int:
    """Returns the number of the phase that the update from `step` to `step` + 1 belongs to."""
    return bisect.bisect_right([phase.first for phase in phases], step) - 1


def none(steps: int, steps_per_epoch: float) -> tuple[Phase, ...]:
    """Images of one size."""
    return (Phase(0),)


def efficientnet_v2(
    steps: int,
    steps_per_epoch: float,
    stages: int = 4,
    size: tuple[int, ...] = (128, 300),
    dropout: tuple = (),
    magnitude: tuple = (),
    mixup: tuple = (),
) -> tuple[Phase, ...]:
    """Phases of equal length, size and strength growing evenly (Tan & Le 2021, arXiv:2104.00298, algorithm 1, table 6).

    Args:
      steps: of the run.
      steps_per_epoch: not used here.
      stages: their number.
      size: of the first and of the last phase, in pixels.
      dropout: `model.dropout` of the first and of the last phase; () leaves it alone.
      magnitude: of the policy, likewise.
      mixup: `mixing.mixup`, likewise.
    """
    strengths = {
        name: _pair(name, ends)
        for name, ends in dict(dropout=dropout, magnitude=magnitude, mixup=mixup).items()
        if ends
    }
    if stages < 1:
        raise UserError(f'config.resize.stages is {stages}; expected at least 1')
    phases = []
    for number in range(stages):
        part = number / max(stages - 1, 1)
        values = {KNOBS[name]: low + (high - low) * part for name, (low, high) in strengths.items()}
        low, high = _pair('size', size)
        phases.append(Phase(-(-steps * number // stages), round(low + (high - low) * part), values))
    return tuple(phases)


def ramp(
    steps: int,
    steps_per_epoch: float,
    size: tuple[int, ...] = (160, 192),
    start_epochs: float = 65.0,
    end_epochs: float = 76.0,
    multiple: int = 32,
) -> tuple[Phase, ...]:
    """One size to `start_epochs`, another from `end_epochs` on, even growth between, in multiples of so many pixels.

    As ffcv's ImageNet recipe, which changes the size once an epoch.

    Args:
      steps: of the run.
      steps_per_epoch: of the run.
      size: before and after, in pixels.
      start_epochs: where growth begins.
      end_epochs: where it ends.
      multiple: sizes are rounded to multiples of this.
    """
    low, high = _pair('size', size)
    if not 0 <= start_epochs < end_epochs or multiple < 1:
        raise UserError(
            f'config.resize: start_epochs is {start_epochs}, end_epochs {end_epochs}, multiple {multiple}; '
            'expected 0 <= start_epochs < end_epochs and a multiple of at least 1'
        )
    phases = [Phase(0, low)]
    for epoch in sorted({*range(int(start_epochs), int(end_epochs) + 1), end_epochs}):
        part = min(max((epoch - start_epochs) / (end_epochs - start_epochs), 0.0), 1.0)
        now = high if part == 1 else max(round((low + (high - low) * part) / multiple), 1) * multiple
        first = -(-int(epoch * steps_per_epoch * 1000) // 1000)
        if part > 0 and now != phases[-1].size and first < steps:
            phases.append(Phase(first, now))
    return tuple(phases)


RESIZINGS = {'none': none, 'efficientnet_v2': efficientnet_v2, 'ramp': ramp}


def make(spec, steps: int, steps_per_epoch: float) -> tuple[Phase, ...]:
    """Returns the phases that a config's `resize` names.

    Args:
      spec: `name` and the arguments of one of the functions above.
      steps: of the run.
      steps_per_epoch: of the run.

    Raises:
      UserError: an unknown name or argument, or one out of range.
    """
    return construct('resize', RESIZINGS, spec, steps=steps, steps_per_epoch=steps_per_epoch)


def _pair(name: str, values: tuple) -> tuple[Any, Any]:
    if len(values) != 2 or min(values) < (1 if name == 'size' else 0):
        raise UserError(f'config.resize.{name} is {values}; expected two numbers, of the first and of the last phase')
    return values[0], values[1]
