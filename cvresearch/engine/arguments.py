"""Which arguments each group of a configuration takes, and their defaults.

An override may set an argument that its file does not mention, and may name another constructor: both ask here.
Constructors are imported when they are asked for, since some of them load JAX.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping

from cvresearch.base.errors import UserError, lookup


@dataclasses.dataclass(frozen=True)
class Group:
    """The constructors of one group.

    Attributes:
      table: by name; None where the group has no name, and `shared` is all that it takes.
      shared: defaults of arguments that mean the same under every name: they stay when it changes.
      supplied: parameters that the program gives, and no configuration.
    """

    table: Mapping[str, Callable] | None = None
    shared: Mapping[str, object] = dataclasses.field(default_factory=dict)
    supplied: tuple[str, ...] = ()


def takes(path: str, name: str | None) -> dict[str, object]:
    """Returns the default of each argument that a group takes, `inspect.Parameter.empty` for one that must be given.

    Args:
      path: of the group in a configuration, 'optimizer' or 'transform.train.crop'.
      name: what the group names; not looked at where groups of this kind have no name.

    Raises:
      UserError: an unknown name.
    """
    if path == 'model':
        return _model(name)
    group = _group(path)
    if group.table is None:
        return dict(group.shared)
    if name is None:
        raise UserError(f'config.{path} has no name; set --config.{path}.name, one of {", ".join(sorted(group.table))}')
    arguments = _defaults(lookup(path, group.table, name))
    return {key: value for key, value in arguments.items() if key not in group.supplied} | dict(group.shared)


def shared(path: str) -> frozenset[str]:
    """Returns the arguments of a group that mean the same for each of its constructors."""
    return frozenset({'num_classes'} if path == 'model' else _group(path).shared)


def is_group(path: str) -> bool:
    """Whether a dotted path is a group whose constructor takes arguments."""
    return path in _GROUPS


def named(path: str) -> bool:
    """Whether a group names one of several constructors."""
    return path in _GROUPS and (path == 'model' or _group(path).table is not None)


def groups_that_take(argument: str) -> list[str]:
    """Returns 'updates.clip_norm' for 'clip_norm': where a configuration can have an argument of that name."""
    paths = []
    for path in _GROUPS:
        if path == 'model' or path.startswith('transform.eval'):
            continue
        group = _group(path)
        constructors = [_defaults(one) for one in (group.table or {}).values()]
        if any(argument in one and argument not in group.supplied for one in (group.shared, *constructors)):
            paths.append(f'{path}.{argument}')
    return paths


def _defaults(constructor: Callable) -> dict[str, object]:
    if dataclasses.is_dataclass(constructor):
        return {field.name: _default(field) for field in dataclasses.fields(constructor)}
    return {name: one.default for name, one in inspect.signature(constructor).parameters.items()}


def _default(field: dataclasses.Field):
    if field.default is not dataclasses.MISSING:
        return field.default
    factory = field.default_factory
    return inspect.Parameter.empty if factory is dataclasses.MISSING else factory()


def _model(name: str | None) -> dict[str, object]:
    from cvresearch.models import registry

    if name is None:
        raise UserError('config.model has no name; see `cvresearch summary --all`')
    # The program chooses their number by the data, where a configuration does not.
    return {'num_classes': registry.variant(name).num_classes, **registry.arguments_of(name)}


def _data() -> Group:
    from cvresearch.data import sources

    return Group(sources.table(), sources.HOST | sources.EVERY)


def _transform() -> Group:
    from cvresearch.data.transforms import Transform

    return Group(shared=_defaults(Transform))


def _crop() -> Group:
    from cvresearch.data import crops

    return Group(crops.CROPS, _defaults(crops.Crop))


def _policy() -> Group:
    from cvresearch.data import policies

    return Group(policies.POLICIES, _defaults(policies.Policy))


def _unlabelled() -> Group:
    from cvresearch.data import sources

    return Group(sources.unlabelled_table(), sources.UNLABELLED)


def _method() -> Group:
    from cvresearch.engine.methods import table

    return Group(table.METHODS, supplied=('steps_per_epoch',))


def _normalize() -> Group:
    from cvresearch.data.preprocessing import NORMALIZATIONS

    # Numbers that a file gives take the place of what its name says; beside another name they would be wrong.
    return Group(dict.fromkeys(('dataset', *NORMALIZATIONS), lambda mean=None, std=None: None))


def _augment() -> Group:
    from cvresearch.engine.augment import Augment

    return Group(shared=_defaults(Augment))


def _mixing() -> Group:
    from cvresearch.objectives.mixing import Mixing

    return Group(shared=_defaults(Mixing))


def _sampling() -> Group:
    from cvresearch.data import sampling

    return Group(sampling.SAMPLINGS, supplied=('size', 'labels'))


def _early_stopping() -> Group:
    from cvresearch.engine import early_stopping

    return Group(early_stopping.RULES)


def _resize() -> Group:
    from cvresearch.data import resizing

    return Group(resizing.RESIZINGS, supplied=('steps', 'steps_per_epoch'))


def _loss() -> Group:
    from cvresearch.objectives import losses

    return Group(losses.LOSSES, {'label_smoothing': 0.0})


def _optimizer() -> Group:
    from cvresearch.optim import optimizers

    # Each rule has a weight decay of its own meaning: it is not shared.
    return Group(optimizers.OPTIMIZERS, optimizers.COMMON, ('rate', 'decayed', 'where'))


def _updates() -> Group:
    from cvresearch.optim.updates import OptimizerOptions

    return Group(shared=_defaults(OptimizerOptions))


def _schedule() -> Group:
    from cvresearch.optim import schedules

    return Group(schedules.SCHEDULES, {'peak': inspect.Parameter.empty, **schedules.COMMON}, ('run',))


def _average() -> Group:
    from cvresearch.optim import averages

    return Group(averages.AVERAGES, supplied=('steps', 'steps_per_epoch'))


def _batch_norm() -> Group:
    from cvresearch.nn import norms

    return Group(norms.NORMALIZATIONS)


def _distillation() -> Group:
    from cvresearch.objectives.losses import Distillation

    return Group(shared=_defaults(Distillation))


def _compress() -> Group:
    from cvresearch.engine import compression

    return Group(compression.COMPRESSIONS, supplied=compression.SUPPLIED)


def _init() -> Group:
    from cvresearch.engine.warm_start import KNOBS

    return Group(shared=KNOBS)


def _finetune() -> Group:
    from cvresearch.engine import finetuning

    return Group(finetuning.METHODS, supplied=('groups', 'epochs'))


def _watch() -> Group:
    from cvresearch.engine import watching

    return Group(watching.WATCHES)


def _mesh() -> Group:
    from cvresearch.base import mesh

    return Group(shared=mesh.KNOBS)


def _non_finite() -> Group:
    from cvresearch.engine import recipes

    return Group(recipes.NON_FINITE)


_GROUPS: dict[str, Callable[[], Group]] = {
    'data': _data,
    'transform.train': _transform,
    'transform.eval': _transform,
    'transform.train.crop': _crop,
    'transform.eval.crop': _crop,
    'transform.train.policy': _policy,
    'transform.eval.policy': _policy,
    'normalize': _normalize,
    'augment': _augment,
    'mixing': _mixing,
    'resize': _resize,
    'loss': _loss,
    'model': Group,
    'optimizer': _optimizer,
    'updates': _updates,
    'schedule': _schedule,
    'average': _average,
    'batch_norm': _batch_norm,
    'distillation': _distillation,
    'mesh': _mesh,
    'non_finite': _non_finite,
    'sampling': _sampling,
    'early_stopping': _early_stopping,
    'init': _init,
    'finetune': _finetune,
    'method': _method,
    'compress': _compress,
    'unlabelled': _unlabelled,
    'unlabelled.policy': _policy,
    'watch': _watch,
}


def _group(path: str) -> Group:
    return _GROUPS[path]()
