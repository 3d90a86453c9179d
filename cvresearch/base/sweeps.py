"""Sweeps: the settings that an experiment is run with. A config's `sweep()` returns them.

    from cvresearch.base import sweeps

    def sweep():
        return sweeps.product({'schedule.peak': [1e-3, 2e-3], 'seed': range(3)})

A setting is a dict of config keys and values; a part of a sweep is either a list of settings or a
dict of values by key. The parts combine: product(sobol({...}, 16), {'seed': range(3)}).
"""

import builtins
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np

from cvresearch.base.errors import UserError

Setting = dict[str, object]
Part = Mapping[str, Iterable] | Iterable[Setting]

DIGITS = 6  # significant digits of a drawn number: its name in a path says it whole


@dataclasses.dataclass(frozen=True)
class Span:
    """The numbers from `low` to `high`, both included, even in themselves or in their logarithms."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self):
        if not self.low < self.high or (self.log and self.low <= 0):
            raise UserError(f'a span from {self.low} to {self.high}; expected low < high{", low > 0" * self.log}')

    def at(self, place: float) -> float | int:
        """Returns the number at a place in [0, 1)."""
        if self.whole:
            return math.floor(self._between(self.low, self.high + 1, place))
        return float(f'{self._between(self.low, self.high, place):.{DIGITS}g}')

    def _between(self, low: float, high: float, place: float) -> float:
        return low * (high / low) ** place if self.log else low + (high - low) * place


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values, each as likely as the others."""

    values: tuple

    def at(self, place: float):
        """Returns the value at a place in [0, 1)."""
        return self.values[int(place * len(self.values))]


Space = Mapping[str, Span | Choice]


def uniform(low: float, high: float) -> Span:
    """Numbers from `low` to `high`."""
    return Span(low, high)


def log_uniform(low: float, high: float) -> Span:
    """Numbers from `low` to `high`, even in their logarithms."""
    return Span(low, high, log=True)


def integers(low: int, high: int) -> Span:
    """Whole numbers from `low` to `high`, both included."""
    return Span(low, high, whole=True)


def choice(*values) -> Choice:
    """One of `values`."""
    return Choice(values)


@dataclasses.dataclass(frozen=True)
class Search:
    """A search by Optuna in place of a list of settings; `sweep()` may return one.

    Attributes:
      space: {'schedule.peak': log_uniform(1e-4, 1e-1), ...}.
      trials: how many settings are tried.
      sampler: 'tpe', 'random' or 'cmaes'.
      pruner: 'asha' (successive halving), 'median' or 'none': stops trials that fall behind.
      split, metric: what is maximised, of the rows of metrics.jsonl; 'minival' unless nothing is held out.
      seed: of the sampler.
    """

    space: Space
    trials: int
    sampler: str = 'tpe'
    pruner: str = 'none'
    split: str = 'minival'
    metric: str = 'top1'
    seed: int = 0


def product(*parts: Part) -> list[Setting]:
    """Returns every combination: of the values of a dict, and of the settings of the parts.

    Raises:
      UserError: a key that is in two parts.
    """
    lists = [_settings(part, itertools.product) for part in parts]
    return [_merged(combination) for combination in itertools.product(*lists)]


def zip(*parts: Part) -> list[Setting]:
    """Returns the first values together, then the second ones, and so on.

    Raises:
      UserError: parts of different lengths, a key that is in two parts.
    """
    lists = [_settings(part, _side_by_side) for part in parts]
    return [_merged(combination) for combination in _side_by_side(*lists)]


def random(space: Space, n: int, seed: int = 0) -> list[Setting]:
    """Returns `n` settings drawn at random."""
    return _drawn(space, np.random.default_rng(seed).random((n, len(space))))


def sobol(space: Space, n: int, seed: int = 0) -> list[Setting]:
    """Returns the first `n` points of a scrambled Sobol sequence (Sobol 1967, Owen 1998); best at powers of 2."""
    from scipy.stats import qmc

    power = math.ceil(math.log2(max(n, 1)))  # the sequence is balanced in powers of two, and says so otherwise
    return _drawn(space, qmc.Sobol(len(space), rng=np.random.default_rng(seed)).random_base2(power)[:n])


def _drawn(space: Space, places: np.ndarray) -> list[Setting]:
    return [
        {key: range_.at(float(u)) for (key, range_), u in builtins.zip(space.items(), row, strict=True)}
        for row in places
    ]


def _settings(part: Part, combine) -> list[Setting]:
    if not isinstance(part, Mapping):
        return [*cast(Iterable[Setting], part)]
    for key, values in part.items():
        if isinstance(values, str | Span | Choice) or not isinstance(values, Iterable):
            raise UserError(f'sweep: {key} is {values!r}; expected a list of values (or random or sobol for a span)')
    return [
        cast(Setting, dict(builtins.zip(part, values, strict=True))) for values in combine(*map(list, part.values()))
    ]


def _side_by_side(*lists: Sequence) -> Iterable[tuple]:
    if len({len(values) for values in lists}) > 1:
        raise UserError(f'sweep: zip of {" and ".join(str(len(v)) for v in lists)} values; expected equal lengths')
    return builtins.zip(*lists, strict=True)


def _merged(settings: Iterable[Setting]) -> Setting:
    merged: Setting = {}
    for setting in settings:
        if twice := merged.keys() & setting.keys():
            raise UserError(f'sweep: {min(twice)} is in two parts of one sweep; expected each key once')
        merged |= setting
    return merged
