"""The learning rate that drops when an evaluation stops getting better, as a function of the evaluations so far."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from cvresearch.base.errors import UserError

HIGHER_IS_BETTER = {'top1': True, 'mAP': True, 'top5': True, 'loss': False}


@dataclasses.dataclass(frozen=True)
class Plateau:
    """A rule, and what it makes of a list of evaluations.

    Krizhevsky et al. 2012, section 5: "divide the learning rate by 10 when the validation error rate stopped
    improving with the current learning rate". When it has stopped is said as in `torch.optim.lr_scheduler`.

    Attributes:
      rate: what the learning rate is multiplied with at a drop.
      patience: evaluations without a gain that are borne; one more is a drop.
      least_gain: what counts as a gain, in the metric's unit (percent for top1).
      cooldown: evaluations after a drop that are not counted.
      end: the drops end here, as a part of the peak.
      split: whose evaluations count.
      metric: 'top1', 'top5' or 'loss'; of images with any number of labels 'mAP' or 'loss'.
    """

    rate: float = 0.1
    patience: int = 2
    least_gain: float = 0.0
    cooldown: int = 0
    end: float = 0.0
    split: str = 'minival'
    metric: str = 'top1'

    def __post_init__(self):
        if self.metric not in HIGHER_IS_BETTER:
            raise UserError(f'config.schedule.metric is {self.metric!r}; valid: {", ".join(HIGHER_IS_BETTER)}')
        if not 0 < self.rate < 1:
            raise UserError(f'config.schedule.rate is {self.rate}; expected between 0 and 1')

    def after(self, rows: Iterable[Mapping]) -> dict[str, float]:
        """Returns {'scale', 'best', 'waited', 'cooling'} after the evaluations of the split.

        Args:
          rows: of metrics.jsonl, oldest first, of this split and of the weights themselves.
        """
        sign = 1 if HIGHER_IS_BETTER[self.metric] else -1
        scale, best, waited, cooling = 1.0, -math.inf, 0, 0
        for row in rows:
            value = sign * row[self.metric]
            if value > best + self.least_gain:
                best, waited = value, 0
            else:
                waited += 1
            if cooling:
                cooling, waited = cooling - 1, 0
            if waited > self.patience:
                scale, waited, cooling = max(scale * self.rate, self.end), 0, self.cooldown
        return {'scale': scale, 'best': sign * best, 'waited': waited, 'cooling': cooling}


def make(spec: Mapping) -> Plateau | None:
    """Returns the rule of a config's `schedule`, None where it is another schedule."""
    if dict(spec).get('name') != 'plateau':
        return None
    names = {field.name for field in dataclasses.fields(Plateau)}
    return Plateau(**{name: value for name, value in dict(spec).items() if name in names})
