"""When a run ends before its last epoch: a function of the evaluations on `minival` that are recorded."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError, construct

SPLIT = 'minival'
HIGHER_IS_BETTER = {'top1': True, 'mAP': True, 'loss': False}


@dataclasses.dataclass(frozen=True)
class Patience:
    """Ends a run at the `patience`-th evaluation in a row without a gain (Prechelt 1998, "Early stopping - but when?").

    Attributes:
      metric: 'top1', 'mAP' or 'loss'; '' is the metric by which the best checkpoint is chosen.
      patience: evaluations in a row that gain nothing.
      min_delta: a gain is more than this, in the metric's unit (percent for top1 and mAP).
    """

    metric: str = ''
    patience: int = 5
    min_delta: float = 0.0

    def __str__(self) -> str:
        return f'{self.patience} evaluations on {SPLIT} without a gain in {self.metric}'

    def __post_init__(self):
        if self.patience < 1:
            raise UserError(f'config.early_stopping.patience is {self.patience}; expected at least 1 evaluation')
        if not 0 <= self.min_delta < math.inf:
            raise UserError(f'config.early_stopping.min_delta is {self.min_delta}; expected at least 0')

    def stops_at(self, rows: Iterable[Mapping]) -> int | None:
        """Returns the step at which the run ends, None while it goes on.

        Args:
          rows: of metrics.jsonl, oldest first, of the split and of the weights that decide.
        """
        sign = 1 if HIGHER_IS_BETTER[self.metric] else -1
        # From all rows, not from a counter: a process that takes over a killed run finds the same answer.
        best, waited = -math.inf, 0
        for row in rows:
            value = sign * row[self.metric]
            gains = value > best + self.min_delta
            # A rise below min_delta leaves the best where it was, so that several such rises add up to a gain.
            best, waited = (value, 0) if gains else (best, waited + 1)
            if waited == self.patience:
                return row['step']
        return None


def card(rule: Patience | None, step: int, plan, best: int | None) -> dict | None:
    """Returns what a run card says of a run that ended at `step`, before its epochs were over; None if they were."""
    if step == plan.all_steps:
        return None
    why = f'config.max_steps={plan.max_steps}' if step == plan.steps else str(rule)
    return dict(step=step, of_steps=plan.all_steps, epoch=plan.epoch(step), best_step=best, why=why)


RULES = {'none': lambda: None, 'patience': Patience}


def make(config: ConfigDict, splits: Mapping, metric: str) -> Patience | None:
    """Returns the rule of a config's `early_stopping`, None for a run of all its epochs.

    Args:
      config: the run's.
      splits: of its data.
      metric: that the net is judged by, 'top1' or 'mAP'.

    Raises:
      UserError: an unknown name, argument or metric; nothing held out, or never evaluated; statistics of norms that
        are made precise at the last step, which is not known beforehand.
    """
    rule = construct('early_stopping', RULES, config.early_stopping)
    if rule is None:
        return None
    rule = dataclasses.replace(rule, metric=rule.metric or metric)
    if rule.metric not in (metric, 'loss'):
        raise UserError(f'config.early_stopping.metric is {rule.metric!r}; expected {metric} or loss')
    if SPLIT not in splits:
        raise UserError(
            'config.early_stopping needs images neither trained on nor reported: set config.minival to how many'
        )
    if not config.evaluate_every_epochs:
        raise UserError('config.early_stopping goes by evaluations, but config.evaluate_every_epochs is 0')
    if config.precise_batches:
        raise UserError(
            'config.precise_batches is for the last step, which config.early_stopping does not know '
            'beforehand; set one of them to 0 or none'
        )
    return rule


def best_step(rows: Iterable[Mapping], metric: str) -> int | None:
    """Returns the earliest step with the best value of a metric, None where there are no rows."""
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    best = max(rows, key=lambda row: (sign * row[metric], -row['step']), default=None)
    return None if best is None else best['step']
