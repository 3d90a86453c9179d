"""What some nets may be built with beside their architecture, and others have no use for, as Protocols."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Repeats(Protocol):
    """A net with stages of identical blocks: whether these are compiled once, and kept as one entry (nn/stacked.py)."""

    scan: bool
    stacked: bool


@runtime_checkable
class Rematerialises(Protocol):
    """A net that can compute its blocks anew in the backward pass rather than keep what is in them."""

    remat: bool


@runtime_checkable
class OfDtype(Protocol):
    """A net that computes in a dtype of its own choice."""

    dtype: Any
