"""What is watched of a run's layers while it trains, on request. No result depends on it."""

import dataclasses

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError, construct

SPLIT = 'layers'  # of the rows in the records


@dataclasses.dataclass(frozen=True)
class Layers:
    """Records how activations, gradients and updates are distributed, at the first step and every so often.

    Attributes:
      every_steps: steps from one row to the next.
      examples: images of the step's batch on which layers are looked at.
      names: layers (`cvresearch look layers` prints the names); the blocks of the net if ().
    """

    every_steps: int = 100
    examples: int = 32
    names: tuple[str, ...] = ()

    def __post_init__(self):
        for key in ('every_steps', 'examples'):
            value = getattr(self, key)
            if type(value) is not int or value < 1:
                raise UserError(f'config.watch.{key} is {value!r}; expected a whole number, at least 1')
        object.__setattr__(self, 'names', tuple(self.names))  # JSON has lists


WATCHES = {'none': lambda: None, 'layers': Layers}


def make(config: ConfigDict) -> Layers | None:
    """Returns what a config's `watch` names.

    Raises:
      UserError: an unknown name or argument, or a value out of range.
    """
    return construct('watch', WATCHES, dict(config.get('watch', {'name': 'none'})))
