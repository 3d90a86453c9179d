"""What a kind of compression may do in an update (config.compress); the kinds are in engine/compression.py."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import numpy as np
from ml_collections import ConfigDict

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.optim import param_filters


@dataclasses.dataclass(frozen=True)
class Compression:
    """A part of the update that does nothing; each kind has some of these functions.

    Attributes:
      layers: patterns of the kernels that are compressed, or pairs (pattern, value of that layer in place of the
        general one); the first that matches counts. All kernels if empty.
      never_learns: of a parameter's path, whether it is frozen for good; it then is left alone.
    """

    layers: tuple = ()
    never_learns: Callable[[str], bool] = lambda path: False
    value: ClassVar[float] = 0.0  # of a layer that is given none

    def __post_init__(self):
        for one in self.layers:
            pair = isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[0], str)
            if not (isinstance(one, str) or (pair and type(one[1]) in (int, float))):
                raise UserError(f'config.compress.layers has {one!r}; expected a pattern, or (pattern, number)')
        self.check_value(self.value)
        for _, value in self._patterns:
            self.check_value(value)

    def check_value(self, value: float) -> None:
        """Raises UserError for a value of a layer that is out of range."""

    @property
    def _patterns(self) -> list[tuple[str, float]]:
        return [(one, self.value) if isinstance(one, str) else tuple(one) for one in self.layers]

    def values(self, params) -> dict[str, float]:
        """Returns the value of each kernel that is compressed, by its parameter's path."""
        values_of = {}
        for path, leaf in trees.named_leaves(params):
            if path.rpartition('/')[2] != 'kernel' or len(leaf.shape) < 2 or self.never_learns(path):
                continue
            matching = [value for pattern, value in self._patterns if param_filters.matches(pattern, path)]
            if matching or not self.layers:
                values_of[path] = matching[0] if matching else self.value
        return values_of

    def check(self, params, steps: int) -> None:
        """Raises UserError where a pattern matches nothing, or something is due only after the run's last step."""
        param_filters.check('config.compress.layers', [pattern for pattern, _ in self._patterns], params)
        if not self.values(params):
            raise UserError('config.compress: there is no kernel that learns, and nothing to compress')

    def blank(self, params) -> dict:
        """Returns a memory of the right shapes in which nothing is compressed."""
        return {}

    def begun(self, params) -> tuple[dict, dict]:
        """Returns the parameters and the memory at step 0, NumPy's.

        Args:
          params: initial ones or another net's, on the host.
        """
        return params, self.blank(params)

    def due(self, step: jax.Array, params, memory: dict) -> tuple[dict, dict]:
        """Returns the parameters and the memory from which the update of a step is made."""
        return params, memory

    def used(self, params):
        """Returns what the net computes with in training."""
        return params

    def computing(self, memory: dict) -> contextlib.AbstractContextManager:
        """Returns a context in which the net computes in training."""
        return contextlib.nullcontext()

    def tied(self, memory: dict, gradients):
        """Returns the gradients that the optimizer is given."""
        return gradients

    def settled(self, memory: dict, params):
        """Returns parameters after the optimizer's step, or their average."""
        return params

    def report(self, params) -> dict:
        """Returns what the run card says of the kernels: their weights, those that are not zero, and each layer's.

        Args:
          params: on the host.
        """
        leaves = dict(trees.named_leaves(params))
        kernels = {path.rpartition('/')[0]: np.asarray(leaves[path]) for path in self.values(params)}
        rows = {
            layer: dict(weights=kernel.size, nonzero=int(np.count_nonzero(kernel)), distinct=len(np.unique(kernel)))
            for layer, kernel in kernels.items()
        }
        total = {key: sum(row[key] for row in rows.values()) for key in ('weights', 'nonzero')}
        return {**total, 'layers': rows}


def is_on(config: ConfigDict) -> bool:
    """Whether a configuration compresses while it trains."""
    return config.get('compress', {}).get('name', 'none') != 'none'
