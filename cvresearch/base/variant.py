"""A named variant of an architecture, and the facts it is held to."""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of a family's VARIANTS table.

    The counts come from the paper, a reference implementation or hand arithmetic, as `evidence`
    says, never from running the module.

    Attributes:
      module: the linen class; called with `arguments`, `num_classes` and `dtype`.
      arguments: what sets this variant apart.
      input_shape: (height, width, channels) at which the counts hold.
      num_classes: number of classes at which the counts hold.
      params: trainable parameters; None where no source states them.
      macs: multiply-adds of convolutions and dense layers for one image; None likewise.
      paper: citation.
      evidence: where the counts come from.
    """

    module: Callable
    input_shape: tuple[int, int, int]
    num_classes: int
    params: int | None
    macs: int | None
    paper: str
    evidence: str
    arguments: Mapping = dataclasses.field(default_factory=dict)
