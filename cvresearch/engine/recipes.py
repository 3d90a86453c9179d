"""From a configuration to what a recipe adds to plain training, each part checked against the others."""

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from cvresearch.base import mesh as meshes
from cvresearch.base.errors import RunError, UserError, construct, lookup
from cvresearch.data import sampling
from cvresearch.data.examples import Facts, Source, labels_of
from cvresearch.data.preprocessing import NORMALIZATIONS
from cvresearch.data.transforms import Transform
from cvresearch.engine import compression
from cvresearch.engine.steps import UpdateOptions
from cvresearch.nn import norms, overrides, stacked
from cvresearch.nn.overrides import Net
from cvresearch.objectives import class_weights, losses, mixing
from cvresearch.objectives.losses import Loss
from cvresearch.objectives.tasks import Task
from cvresearch.optim import averages, plateau
from cvresearch.optim.plateau import Plateau
from cvresearch.optim.updates import OptimizerOptions


def _skip(in_a_row: int = 10) -> int:
    if in_a_row < 1:
        raise UserError(f'config.non_finite.in_a_row is {in_a_row}; expected at least 1')
    return in_a_row


SIGMOID = 'sigmoid_cross_entropy'  # the loss of images with any number of labels
# What becomes of a batch whose gradients are not finite: how many in a row are skipped until the run stops.
NON_FINITE = {'stop': lambda: 0, 'skip': _skip}


def make(
    config: ConfigDict, options: OptimizerOptions, steps: int, steps_per_epoch: float, mesh: meshes.AnyMesh
) -> UpdateOptions:
    """Returns the recipe of a configuration, without its teacher.

    Args:
      config: of the run.
      options: what its `updates` says.
      steps: of the whole schedule.
      steps_per_epoch: of the run.
      mesh: its devices.

    Raises:
      UserError: a value that is out of range, or a batch that does not divide as it should.
    """
    _check_division(config, options.accumulate, mesh)
    distillation = losses.distillation(config.distillation)
    return UpdateOptions(
        mixing=mixing.make(config.mixing),
        accumulate=options.accumulate,
        spread=lambda parts: jax.lax.with_sharding_constraint(parts, meshes.by_example_in_parts(mesh)),
        sam=options.sam,
        average=averages.make(config.average, steps, steps_per_epoch),
        skip=construct('non_finite', NON_FINITE, config.non_finite),
        distillation=distillation if distillation.teacher else None,
        compression=compression.make(config, steps_per_epoch, options),
    )


def whole_net(model: nn.Module, config: ConfigDict, one_by_one: bool = False) -> nn.Module:
    """Returns the net of a run: with its blocks stacked, its norms and its memory as the configuration has them.

    With `one_by_one` its blocks are not repeated in a loop, so that some can be frozen.
    """
    how = norms.make(config.batch_norm)
    if config.precise_batches and how.kind not in ('batch_norm', 'batch_renorm'):
        raise UserError(f'config.precise_batches is {config.precise_batches}, but {how.kind!r} keeps no statistics')
    if one_by_one:
        model = stacked.unrolled(model)
    elif 'stacked' not in config.model:
        model = stacked.with_stacked(model)
    model = stacked.with_remat(model) if config.remat else model
    return Net(model, how, config.remat) if config.remat or how != norms.Normalization() else model


def statistics_net(model: nn.Module, frozen: frozenset[str] = frozenset()) -> nn.Module:
    """Returns the net whose norms, in training, give the statistics of the batch instead of running ones.

    Args:
      model: of a run.
      frozen: paths of modules that keep their statistics.
    """
    if isinstance(model, Net):
        # Renormalization would correct by the running statistics, which are what is to be found anew.
        kind = 'batch_norm' if model.norm.kind == 'batch_renorm' else model.norm.kind
        group_size = model.norm.group_size
        model = model.model
    else:
        kind, group_size = 'batch_norm', 0
    return overrides.frozen_in(Net(model, norms.Normalization(kind, group_size, momentum=0.0)), frozen)


def population(of_batches: list[dict]) -> dict:
    """Returns the statistics of norms over several batches of one size, from the statistics of each.

    The variance is the mean of the variances and the variance of the means (Wu & Johnson 2021, arXiv:2105.07576,
    section 3, "PreciseBN").
    """

    def of_norm(*batches: dict) -> dict:
        mean, var = (
            np.stack([np.asarray(batch[key]) for batch in batches]).astype(np.float64) for key in ('mean', 'var')
        )
        exact = {'mean': mean.mean(0), 'var': var.mean(0) + mean.var(0)}
        return {key: exact[key].astype(value.dtype) if key in exact else value for key, value in batches[0].items()}

    finite = [
        statistics for statistics in of_batches if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(statistics))
    ]
    of_batches = finite or of_batches  # what is not finite is of a batch that was skipped
    return jax.tree.map(of_norm, *of_batches, is_leaf=lambda node: isinstance(node, dict) and 'mean' in node)


def plateau_of(config: ConfigDict, splits: dict, task: Task) -> Plateau | None:
    """Returns the rule of a learning rate that follows the evaluations, None for other schedules.

    Raises:
      UserError: the split that it follows is not there, or is never evaluated; a metric that the task has not.
    """
    rule = plateau.make(config.schedule)
    if rule is None:
        return None
    if rule.metric not in task.metrics:
        valid = ' or '.join(task.metrics)
        raise UserError(f'config.schedule.metric is {rule.metric!r}; expected {valid} for these labels')
    if rule.split not in splits or rule.split == 'train':
        hint = '; config.minival holds training images out' if rule.split == 'minival' else ''
        others = ', '.join(name for name in splits if name != 'train')
        raise UserError(f'config.schedule.split is {rule.split!r}, which is not evaluated (there are: {others}){hint}')
    if not config.evaluate_every_epochs:
        raise UserError('config.schedule is a plateau of evaluations, but config.evaluate_every_epochs is 0')
    return rule


def loss_of(config: ConfigDict, source: Source, classes: int) -> Loss:
    """Returns the loss of a configuration, its class weights found from the training images.

    Raises:
      UserError: an unknown name or argument, or weights that do not fit the classes.
    """
    spec, train = config.loss.to_dict(), source.splits['train']
    if source.facts.multi_label and spec.get('name') != SIGMOID:
        raise UserError(
            f'config.loss.name is {spec.get("name")!r}, and the images of {source.facts.name} have any number of '
            f'labels; expected --config.loss.name={SIGMOID}'
        )
    if source.facts.multi_label and losses.distillation(config.distillation).teacher:
        raise UserError(
            'config.distillation.teacher teaches one class an image, and these have any number of labels; expected none'
        )
    labels = None if isinstance(train, range) else labels_of(train)
    if isinstance(train, range):  # a plan without images
        spec.pop('class_weights', None)
    weights = spec.get('class_weights')
    return losses.make(spec, class_weights.resolve(weights, source.facts.class_names, labels, classes))


def sampling_of(config: ConfigDict, source: Source) -> sampling.Sampling:
    """Returns which training image stands at which position of the stream.

    Raises:
      UserError: an unknown name or argument, or images that do not have one label each.
    """
    train = source.splits['train']
    if isinstance(train, range):  # a plan without images
        return sampling.make({'name': 'shuffle'}, len(train), None)
    return sampling.make(config.sampling, len(train), labels_of(train))


def check_labels(config: ConfigDict, source: Source) -> None:
    """Raises UserError where images are to be mixed whose labels are neither one class each nor any number of them."""
    if source.facts.multi_label or not mixing.make(config.mixing):
        return
    labels = labels_of(source.splits['train'])
    if labels is not None and not (labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)):
        raise UserError(
            f'config.mixing mixes images, for which each needs one class; the labels of {source.facts.name} are '
            f'{labels.dtype} {labels.shape}; set mixing.mixup and mixing.cutmix to 0'
        )


def normalization_of(config: ConfigDict, facts: Facts) -> dict[str, tuple[float, ...]]:
    """Returns the mean and the deviation that a config's `normalize` names or gives, one number a channel."""
    name, order = config.normalize.name, NORMALIZATIONS.get(config.normalize.name, {}).get('channels', 'RGB')
    usual = lookup('normalize', NORMALIZATIONS | {'dataset': dict(mean=facts.mean, std=facts.std)}, name)
    for part, knobs in config.transform.items():
        if knobs.get('channels', Transform.channels) != order and name != 'dataset':
            raise UserError(f'config.normalize.name {name!r} is of {order}; set transform.{part}.channels to that')
    grey = len(facts.mean) == 1 and name != 'dataset'
    means, deviations = ((np.mean(usual[key]).item(),) if grey else usual[key] for key in ('mean', 'std'))
    return dict(
        mean=_channels('mean', config.normalize.mean, means), std=_channels('std', config.normalize.std, deviations)
    )


def _channels(name: str, configured: tuple | None, of_dataset: tuple[float, ...]) -> tuple[float, ...]:
    values = tuple(
        of_dataset if configured is None else configured if isinstance(configured, tuple | list) else (configured,)
    )
    if not all(isinstance(value, int | float) for value in values):
        raise UserError(f'config.normalize.{name} is {configured!r}; expected numbers, one a channel')
    if len(values) not in (1, len(of_dataset)):
        raise UserError(f'config.normalize.{name} has {len(values)} values; expected {len(of_dataset)}, one a channel')
    if name == 'std' and min(values) <= 0:
        raise UserError(f'config.normalize.std is {values}; expected positive numbers')
    return values


def not_finite(step: int, checkpoints: list[int], skip: int) -> RunError:
    """Returns the error of a run that cannot go on after the batch of a step; `skip` as in `UpdateOptions`."""
    last = f'the last good checkpoint is of step {checkpoints[-1]}' if checkpoints else 'no checkpoint was due before'
    what = 'the loss or the parameters are not finite at step'
    if skip:
        what = f'{skip} batches in a row (config.non_finite) have no finite gradients, the last of them at step'
    return RunError(
        f'{what} {step}; {last}. A lower learning rate (config.schedule.peak), a warm-up, or '
        'config.updates.clip_norm may help'
    )


def _check_division(config: ConfigDict, parts: int, mesh: meshes.AnyMesh) -> None:
    size, group = config.batch_size, norms.make(config.batch_norm).group_size
    if parts < 1 or size % parts or (size // parts) % mesh.size:
        raise UserError(
            f'config.updates.accumulate is {parts}: a batch of {size} in so many parts does not divide over '
            f'{mesh.size} devices; expected a divisor of {size // mesh.size if size % mesh.size == 0 else size}'
        )
    if group and (size // parts) % group:
        parts_text = f' in {parts} parts of {size // parts}' if parts > 1 else ''
        raise UserError(
            f'config.batch_norm.group_size is {group}, which does not divide a batch of {size}{parts_text}; '
            'expected a divisor, or 0 for the whole batch'
        )
