"""The mathematics of one update, as pure functions."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, Real

from cvresearch.base import rng
from cvresearch.base.arrays import AnyArray
from cvresearch.engine.augment import Augment
from cvresearch.engine.state import State
from cvresearch.objectives import metrics, unlabelled
from cvresearch.objectives.losses import Distillation, Loss
from cvresearch.objectives.mixing import Mixing
from cvresearch.objectives.tasks import SINGLE, Task
from cvresearch.optim import param_filters
from cvresearch.optim.compression import Compression
from cvresearch.optim.schedules import Schedule

NOT_MIXED = Mixing()
Batch = dict[str, Any]  # of `Stream.batch`: image, label, epoch, index, and at 'unlabelled' another batch
Images = Float[AnyArray, 'batch height width channels']


@dataclasses.dataclass(frozen=True)
class UpdateOptions:
    """What may be added to plain training.

    Attributes:
      mixing: of images and targets.
      accumulate: parts in which the batch goes through the net, one after another; the update is of all of it.
      spread: places those parts, (parts, examples, ...), on the mesh.
      gather: replicates parameters that are sharded over the mesh on every device, where the net uses them.
      scatter: shards their gradients as the parameters are sharded.
      sam: radius of sharpness-aware minimisation; 0 for none.
      average: the part that new weights have in their average, by the number of the update; None for no average.
      skip: batches whose gradients are not finite are skipped, and so many in a row stop the run; 0: none is skipped,
        and the first stops it.
      teacher: maps the images that the net sees to the logits that `distillation` draws it to.
      distillation: how; None for no teacher.
      never_learns: of a parameter's path, whether it is frozen for good and has neither gradients nor moments; None
        where all have both.
      held: of the path of a parameter or a statistic, whether it is frozen in this update and keeps its bits.
      compression: what makes the net small while it trains; None for nothing.
    """

    mixing: Mixing = NOT_MIXED
    accumulate: int = 1
    spread: Callable = lambda parts: parts
    gather: Callable = lambda params: params
    scatter: Callable = lambda gradients: gradients
    sam: float = 0.0
    average: Schedule | None = None
    skip: int = 0
    teacher: Callable[[Any], jax.Array] | None = None
    distillation: Distillation | None = None
    never_learns: Callable[[str], bool] | None = None
    held: Callable[[str], bool] | None = None
    compression: Compression | None = None

    def learning(self, params):
        """Returns the parameters without those that never learn."""
        return param_filters.without(params, self.never_learns) if self.never_learns else params

    def whole(self, learning, params):
        """Returns all parameters, `learning` among them."""
        return param_filters.merged(learning, params) if self.never_learns else learning

    def settled(self, old, new):
        """Returns new values, and the old ones of what is frozen."""
        return param_filters.kept(old, new, self.held) if self.held else new

    def blank(self, params) -> dict:
        """Returns the memory of the compression before the run."""
        return self.compression.blank(params) if self.compression else {}

    def due(self, state: State) -> State:
        """Returns the state from which the update is made: pruned, if that is due."""
        if self.compression is None:
            return state
        params, memory = self.compression.due(state.step, state.params, state.compression)
        return state.replace(params=params, compression=memory)

    def used(self, params):
        """Returns the parameters that the net computes with."""
        return self.compression.used(params) if self.compression else params

    def computing(self, state: State) -> contextlib.AbstractContextManager:
        """Returns a context in which the net computes."""
        return self.compression.computing(state.compression) if self.compression else contextlib.nullcontext()

    def tied(self, state: State, gradients):
        """Returns the gradients that the optimizer is given."""
        return self.compression.tied(state.compression, gradients) if self.compression else gradients

    def small(self, state: State, params):
        """Returns parameters after the optimizer's step, as small as the memory says."""
        return self.compression.settled(state.compression, params) if self.compression else params


@dataclasses.dataclass(frozen=True)
class UpdateParts:
    """What an update is made of, whichever the method: the arguments of `make_train_step`, and the learning rate."""

    model: nn.Module
    tx: optax.GradientTransformation
    loss: Loss
    augment: Augment
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: UpdateOptions
    task: Task
    schedule: Schedule


def normalize(
    images: Real[AnyArray, '*batch channels'], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[AnyArray, '*batch channels']:
    """Maps uint8 images to float32: pixels / 255, less `mean`, over `std`, for each channel."""
    # Here and not on the host: a batch travels to the devices as uint8, a quarter of the bytes.
    return (images.astype(jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loss: Loss,
    augment: Augment,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    options: UpdateOptions = UpdateOptions(),
    task: Task = SINGLE,
) -> Callable[[State, dict], State]:
    """Returns one update, (state, batch) -> state.

    The batch is `Stream.batch`'s. Under a mesh its mean loss is over the whole batch, wherever
    the examples are.
    """

    def train_step(state: State, batch: dict) -> State:
        state = options.due(state)
        images = shown(batch, augment, mean, std, state.seed)
        target = task.target(batch['label'], model.num_classes)
        images, target = options.mixing(images, target, rng.step_key(state.seed, 'mix', state.step))

        of_part = functools.partial(_gradients, model, loss, options, task, state)
        of_batch = _in_parts(of_part, options, rng.step_key(state.seed, 'dropout', state.step))
        # Without what never learns, so that no gradient of it is computed.
        learning = options.learning(state.params)
        (gradients, model_state, mean_loss), sums = of_batch(learning, (images, target, batch['label']))
        if options.sam:
            # The statistics of norms stay as in the first pass: the weights of the second are nobody's.
            climbed = optax.apply_updates(learning, ascent(gradients, options.sam))
            (gradients, _, _), _ = of_batch(climbed, (images, target, batch['label']))
        return updated(state, tx, gradients, model_state, mean_loss, sums, options)

    return train_step


def _settled(options: UpdateOptions, old: dict, new: dict) -> dict:
    """Returns the new collections of a net, and the old values of what is frozen."""
    return {name: options.settled(old[name], new[name]) for name in new}


def views(parts: UpdateParts, state: State, batch: Batch, strong: bool) -> list[Images]:
    """Returns the images that the net sees: the labelled, the unlabelled, and these augmented strongly if asked.

    The strong view is cropped, shifted and mirrored by random numbers of its own.
    """
    how, other = (parts.augment, parts.mean, parts.std, state.seed), batch['unlabelled']
    seen = [shown(batch, *how), shown(other, *how, 'augment unlabelled')]
    return [*seen, shown(other, *how, 'augment strongly', 'strong')] if strong else seen


def make_joint_train_step(
    parts: UpdateParts, of_unlabelled: Callable[..., jax.Array], strong: bool
) -> Callable[[State, dict], State]:
    """Returns one update, (state, batch) -> state, that descends the labelled loss plus another of unlabelled images.

    Args:
      parts: of the update.
      of_unlabelled: (number of the update, labels of the unlabelled images, their logits, and those of the strong
        view if asked) -> what is added, ().
      strong: whether that takes the strong view.
    """
    model, options = parts.model, parts.options

    def train_step(state: State, batch: dict) -> State:
        number, groups = len(batch['label']), views(parts, state, batch, strong)
        sizes = [len(group) for group in groups]
        # One pass for all of them, so that the norms see labelled and unlabelled images together.
        images = unlabelled.interleaved(number, groups)
        target = parts.task.target(batch['label'], model.num_classes)
        key = rng.step_key(state.seed, 'dropout', state.step)

        def objective(params):
            outputs, model_state = model.apply(
                {'params': params, **state.model_state},
                images,
                train=True,
                mutable=list(state.model_state),
                rngs={'dropout': key},
            )
            logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, ())
            labelled_logits, *others = unlabelled.separated(number, sizes, logits)
            losses = parts.loss(labelled_logits, target)
            heads = [unlabelled.separated(number, sizes, head)[0] for head in auxiliary]
            labelled = losses + sum(model.aux_weight * parts.loss(head, target) for head in heads)
            added = of_unlabelled(state.step, batch['unlabelled']['label'], *others)
            return jnp.mean(labelled) + added, (labelled_logits, losses, model_state)

        differentiated = jax.value_and_grad(objective, has_aux=True)
        (mean, (logits, losses, model_state)), gradients = differentiated(options.gather(state.params))
        sums = parts.task.of_batch(logits, batch['label'], losses)
        return updated(state, parts.tx, options.scatter(gradients), dict(model_state), mean, sums, options)

    return train_step


def shown(
    batch: Batch,
    augment: Augment,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: jax.Array,
    purpose: str = 'augment',
    view: str = 'image',
) -> Images:
    """Returns the images of a batch as the net is to see them: augmented on the device, and normalized.

    Args:
      batch: `view`, uint8 (batch, height, width, channels), with the `epoch` and the `index` of each example.
      augment: with random numbers that are a function of (seed, purpose, epoch, index).
      mean: of each channel, of pixels in [0, 1].
      std: likewise.
      seed: of the run.
      purpose: of the random numbers.
      view: which images of the batch.
    """
    keys = rng.example_keys(seed, purpose, batch['epoch'], batch['index'])
    return augment.erase(normalize(augment.images(batch[view], keys), mean, std), keys)


def updated(
    state: State,
    tx: optax.GradientTransformation,
    gradients,
    model_state: dict,
    mean_loss: Float[Array, ''],
    sums: metrics.Sums,
    options: UpdateOptions,
) -> State:
    """Returns the state after the optimizer's step: parameters, statistics, average, sums, and whether all is finite.

    Args:
      state: before.
      tx: the optimizer.
      gradients: of the parameters.
      model_state: the net's new one.
      mean_loss: of the batch; a run whose loss is not finite cannot go on.
      sums: the batch's metrics.
      options: of which the average and what becomes of a batch that is not finite.
    """
    # An argument of the update: a rate that follows evaluations is not known when the update is compiled.
    scaled = dict(rate_scale=state.plateau['scale']) if state.plateau else {}
    updates, opt_state = tx.update(gradients, state.opt_state, state.params, **scaled)
    params = options.whole(optax.apply_updates(options.learning(state.params), updates), state.params)
    params = options.small(state, options.settled(state.params, params))
    model_state = _settled(options, state.model_state, model_state)
    average = state.average
    if options.average:
        new = {'params': params, 'model_state': model_state}
        new = cast(dict, optax.incremental_update(new, average, options.average(state.step)))
        # What is frozen is put back: rounding may change the average of a number with itself.
        average = {
            'params': options.small(state, options.settled(average['params'], new['params'])),
            'model_state': _settled(options, average['model_state'], new['model_state']),
        }
    # The new parameters too: an update that overflows would show in the loss one step later,
    # and a checkpoint in between would hold it.
    finite = jnp.isfinite(mean_loss) & jnp.isfinite(optax.global_norm((params, model_state)))
    new = state.replace(
        step=state.step + 1,
        params=params,
        model_state=model_state,
        opt_state=opt_state,
        average=average,
        sums=metrics.add(state.sums, sums),
    )
    if options.skip:
        # The gradients too: a rule that takes signs makes a finite step of infinite ones.
        return _unless_bad(state, new, finite & jnp.isfinite(optax.global_norm(gradients)), options.skip)
    # The first stays: what is not finite after it follows from it.
    return new.replace(bad_step=jnp.where((state.bad_step < 0) & ~finite, state.step, state.bad_step))


def _unless_bad(old: State, new: State, finite: jax.Array, most: int) -> State:
    """Returns the new state, or where the update is not finite the old one, bit for bit, with the batch counted."""
    chosen = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    in_a_row = jnp.where(finite, 0, old.skipped['in_a_row'] + 1)
    too_many = (old.bad_step < 0) & (in_a_row >= most)
    return chosen.replace(
        skipped={'total': old.skipped['total'] + ~finite, 'in_a_row': in_a_row},
        bad_step=jnp.where(too_many, old.position, old.bad_step),
    )


def _gradients(
    model: nn.Module,
    loss: Loss,
    options: UpdateOptions,
    task: Task,
    state: State,
    params,
    examples: tuple,
    key: jax.Array,
):
    """Returns ((gradients, new model state, mean objective), sums of metrics) of some examples."""
    images, target, labels = examples
    differentiated = jax.value_and_grad(objective(model, loss, options, state, images, target, key), has_aux=True)
    (mean, (logits, losses, model_state)), gradients = differentiated(options.gather(params))
    gradients = options.tied(state, options.scatter(gradients))
    return (gradients, dict(model_state), mean), task.of_batch(logits, labels, losses)


def objective(
    model: nn.Module,
    loss: Loss,
    options: UpdateOptions,
    state: State,
    images: Images,
    target: Real[AnyArray, 'batch classes'],
    key: PRNGKeyArray,
) -> Callable:
    """Returns what is descended, params -> (mean objective, (logits, losses of the examples, new model state))."""

    def of_params(params):
        # What never learns comes from the state, and so is a constant to the derivative.
        params = options.used(options.whole(params, options.gather(state.params)))
        with options.computing(state):
            outputs, model_state = model.apply(
                {'params': params, **state.model_state},
                images,
                train=True,
                mutable=list(state.model_state),
                rngs={'dropout': key},
            )
        # A net with auxiliary heads returns their logits too while it trains.
        logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, ())
        losses = loss(logits, target)
        objectives = losses + sum(model.aux_weight * loss(head, target) for head in auxiliary)
        if options.distillation and options.teacher:
            objectives = options.distillation(objectives, logits, options.teacher(images))
        return jnp.mean(objectives), (logits, losses, model_state)

    return of_params


def _in_parts(of_part: Callable, options: UpdateOptions, key: jax.Array) -> Callable:
    """Returns (params, examples) -> what `of_part` gives for the whole batch: means over the parts, sums of metrics.

    Every part begins with the statistics of norms that the step began with, and the new ones are averaged too: they
    are then the same for any number of parts in which the groups of batch norm stay whole.
    """
    if options.accumulate == 1:
        return lambda params, examples: of_part(params, examples, key)

    def of_batch(params, examples):
        number = options.accumulate
        # Consecutive examples stay together, since the groups of batch norm are consecutive ones.
        parts = options.spread(jax.tree.map(lambda x: x.reshape(number, -1, *x.shape[1:]), examples))
        # With one key for all, every part would drop the same units.
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(number))
        shapes = jax.eval_shape(of_part, params, jax.tree.map(lambda x: x[0], parts), key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def add(total, part):
            return jax.tree.map(jnp.add, total, of_part(params, *part)), None

        # A loop, so that the memory of one part's activations serves all.
        (totals, sums), _ = jax.lax.scan(add, zeros, (parts, keys))
        return jax.tree.map(lambda x: x / number, totals), sums

    return of_batch


def ascent(gradients, radius: float):
    """Returns the step uphill of sharpness-aware minimisation, radius * g / |g| (Foret et al. 2021, equation 2)."""
    norm = optax.global_norm(gradients)
    # Where all gradients are 0 there is no way up: the step is 0 then, and not NaN.
    return jax.tree.map(lambda g: radius * g / jnp.maximum(norm, jnp.finfo(g.dtype).tiny), gradients)
