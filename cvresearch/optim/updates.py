"""What is done in every update around the optimizer's rule, whatever the rule: config.updates."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cvresearch.base.errors import UserError, construct_only, lookup
from cvresearch.optim import param_filters
from cvresearch.optim.param_filters import matches

MODES = ('inference', 'train')


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """What any optimizer takes beside its own arguments. Patterns are as in `param_filters`.

    Attributes:
      accumulate: parts in which a batch goes through the net, where it does not fit at once.
      clip_norm: largest norm of the whole gradient.
      agc: largest norm of a unit's gradient, as a part of the norm of its weights (Brock et al. 2021); `agc_eps`
        is the least norm of weights that is reckoned with, and `agc_exclude` has patterns of what is not clipped.
      sam: radius of sharpness-aware minimisation (Foret et al. 2021, arXiv:2010.01412); 0 for none.
      freeze: patterns of what does not learn; or pairs (pattern, epoch) of what learns from that epoch on.
        The moments of the latter are gathered from the start, so that their first step is like the others.
      frozen: mode of what `freeze` holds: 'inference', or 'train', in which statistics and dropout go on.
      lr_scale: pairs (pattern, factor) of what has a learning rate of its own; the first that matches counts.
      layer_decay: each of `layers` learns at this part of the rate of the next one.
      layers: patterns of the layers, from the input to the output.
    """

    accumulate: int = 1
    clip_norm: float | None = None
    agc: float | None = None
    agc_eps: float = 1e-3
    agc_exclude: tuple = ('head',)
    sam: float = 0.0
    freeze: tuple = ()
    frozen: str = 'train'
    lr_scale: tuple = ()
    layer_decay: float = 1.0
    layers: tuple = ()

    def __post_init__(self):
        for name in ('sam', 'clip_norm', 'agc', 'agc_eps', 'layer_decay'):
            value = getattr(self, name)
            if value is not None and not _is_number(value):
                raise UserError(f'config.updates.{name} is {value!r}; expected a number of at least 0')
        if (self.layer_decay != 1) != bool(self.layers):
            raise UserError('config.updates: layer_decay and layers (patterns, input first) go together')
        for name in ('freeze', 'lr_scale'):
            _pairs(name, getattr(self, name))
        lookup('updates.frozen', dict.fromkeys(MODES), self.frozen)

    @property
    def inference(self) -> bool:
        """Whether something is frozen, and that in inference mode."""
        return self.frozen == 'inference' and bool(self.freeze)

    @property
    def thaws(self) -> list[tuple[str, float | None]]:
        """(pattern, epoch) of `freeze`; None for the epoch of what is frozen for good."""
        return _pairs('freeze', self.freeze)

    def never_learns(self, path: str) -> bool:
        """Whether the parameter is frozen for good."""
        return any(epoch is None and matches(pattern, path) for pattern, epoch in self.thaws)

    def factor(self, path: str) -> float:
        """Returns the parameter's part of the learning rate, 0 where it is frozen for good."""
        if self.never_learns(path):
            return 0.0
        scale = next((f for pattern, f in _pairs('lr_scale', self.lr_scale) if matches(pattern, path)), 1.0)
        for depth, pattern in enumerate(reversed(self.layers)):
            if matches(pattern, path):
                return scale * self.layer_decay**depth
        return scale

    def start(self, path: str, steps_per_epoch: float) -> int:
        """Returns the first update in which the parameter learns, from 0."""
        epochs = [epoch for pattern, epoch in self.thaws if epoch and matches(pattern, path)]
        return round(max(epochs, default=0.0) * steps_per_epoch)

    def check(self, params) -> None:
        """Raises UserError for a pattern that matches no parameter."""
        for name in ('freeze', 'lr_scale', 'layers'):
            patterns = [one if isinstance(one, str) else one[0] for one in getattr(self, name)]
            param_filters.check(f'config.updates.{name}', patterns, params)


def make(spec: Mapping[str, Any]) -> OptimizerOptions:
    """Returns what a config's `updates` says.

    Raises:
      UserError: an unknown argument, or a value out of range.
    """
    return construct_only('updates', OptimizerOptions, spec)


def _pairs(name: str, patterns: tuple) -> list[tuple]:
    """Returns [(pattern, number)]; None for the number of a pattern that stands alone (in `freeze`)."""
    pairs = []
    for pattern in patterns:
        if isinstance(pattern, str) and name == 'freeze':
            pairs.append((pattern, None))
        elif (
            isinstance(pattern, tuple | list)
            and len(pattern) == 2
            and isinstance(pattern[0], str)
            and _is_number(pattern[1])
        ):
            pairs.append(tuple(pattern))
        else:
            alone = ', or a pattern' if name == 'freeze' else ''
            raise UserError(f'config.updates.{name} has {pattern!r}; expected (pattern, number of at least 0){alone}')
    return pairs


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


PLAIN = OptimizerOptions()  # nothing around the rule
