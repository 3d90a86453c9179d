"""Which parameters of a net that is trained already learn, when, and at which part of the rate: config.finetune.

A method sets keys of the optimizer, once the net is known; the configuration that a run keeps has them in full.
Groups are as in `inspect/groups.py`: stem, stages, what is between them and the head, head.
"""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError, construct
from cvresearch.inspect.groups import BY, Group, param_groups
from cvresearch.models import registry

FACTOR = 2.6  # Howard & Ruder 2018, arXiv:1801.06146, section 3.2

Groups = Callable[[str], Sequence[Group]]


def everything(groups: Groups, epochs: float) -> dict:
    """All parameters learn from the start."""
    return {}


def probe(groups: Groups, epochs: float) -> dict:
    """The head alone learns: logistic regression on the features of the net."""
    return {'updates.freeze': tuple(group.pattern for group in groups('stage')[:-1])}


def last(groups: Groups, epochs: float, stages: int = 2) -> dict:
    """The last groups before the head learn, and the head.

    Args:
      stages: so many groups.
    """
    below = groups('stage')[:-1]
    if not 0 < stages < len(below):
        raise UserError(
            f'config.finetune.stages is {stages}; expected 1 to {len(below) - 1}: before the head there are '
            f'{", ".join(group.name for group in below)}'
        )
    return {'updates.freeze': tuple(group.pattern for group in below[:-stages])}


def discriminative(groups: Groups, epochs: float, factor: float = FACTOR, by: str = 'stage') -> dict:
    """Each group learns at the rate of the next one divided by `factor` (Howard & Ruder 2018, section 3.2).

    factor=1/0.75, by='block' is timm's `param_groups_layer_decay` at its default.

    Args:
      factor: more than 1.
      by: 'stage', or 'block': each block of a stage is a group.
    """
    if factor < 1:
        raise UserError(f'config.finetune.factor is {factor}; expected at least 1')
    if by not in BY:
        raise UserError(f'config.finetune.by is {by!r}; expected {" or ".join(BY)}')
    return {'updates.layers': tuple(group.pattern for group in groups(by)), 'updates.layer_decay': 1 / factor}


def gradual(groups: Groups, epochs: float, until: float = 0.5) -> dict:
    """The head learns from the start, then one group more after each period, the one before last first.

    Howard & Ruder 2018, section 3.3; there a period is an epoch.

    Args:
      until: share of the run after which all groups learn; the periods before are equally long.
    """
    _check_share('until', until)
    below = groups('stage')[:-1]
    starts = [epochs * until * (len(below) - place) / len(below) for place in range(len(below))]
    return {'updates.freeze': tuple((group.pattern, start) for group, start in zip(below, starts, strict=True))}


def lpft(groups: Groups, epochs: float, until: float = 0.5) -> dict:
    """The head alone learns first, then all (Kumar et al. 2022, arXiv:2202.10054, "LP-FT").

    Args:
      until: share of the run after which all learn.
    """
    _check_share('until', until)
    return {'updates.freeze': tuple((group.pattern, epochs * until) for group in groups('stage')[:-1])}


METHODS = {
    'all': everything,
    'probe': probe,
    'last': last,
    'discriminative': discriminative,
    'gradual': gradual,
    'lpft': lpft,
}


def of(config: ConfigDict) -> dict:
    """Returns the keys of the optimizer that a config's `finetune` sets, by dotted key.

    Raises:
      UserError: an unknown name or argument, one out of range, or a key that the configuration sets itself.
    """
    spec = config.get('finetune', ConfigDict(dict(name='all')))

    def groups(by: str) -> Sequence[Group]:
        # Without the number of classes: groups are the same for any, and the data may not be read yet.
        arguments = {key: value for key, value in config.model.items() if key not in ('name', 'num_classes')}
        variant = registry.variant(config.model.name)
        return param_groups(registry.build(config.model.name, **arguments), variant.input_shape, by)

    changes = construct('finetune', METHODS, spec, groups=groups, epochs=config.epochs)
    for key in changes:
        group, _, name = key.partition('.')
        if config[group].get(name, ()) not in ((), [], 1.0):
            raise UserError(
                f'config.finetune.name is {spec["name"]!r}, which sets config.{key}, and the configuration sets it '
                'too; expected one of them (config.finetune.name=all sets nothing)'
            )
    return changes


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise UserError(f'config.finetune.{name} is {value}; expected a share of the run, more than 0 and less than 1')
