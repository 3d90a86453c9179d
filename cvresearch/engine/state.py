"""All that a run is at one step, as one pytree."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from cvresearch.base import rng
from cvresearch.objectives import metrics


@struct.dataclass
class State:
    """What a checkpoint holds. Data and randomness are functions of (seed, step), so nothing else.

    A batch whose gradients are not finite may be skipped: the state stays as it was, but for `skipped`, and the stream
    goes on to the next. So the place in the stream, `position`, which names checkpoints and records, is apart from
    `step`, which schedules and random streams go by.

    Attributes:
      step: int32 (), the number of updates made.
      seed: uint32 (), from which every random stream of the run derives.
      params: the trainable parameters, float32. Here, in `model_state` and in `opt_state` the blocks of a
        deep stage are one entry, unless the model is built with `stacked=False` (nn/stacked.py).
      model_state: the net's other collections, such as batch statistics; {} where it has none.
      opt_state: the optimizer's.
      average: the average over the steps, {'params', 'model_state'}; {} where there is none.
      plateau: {'scale', 'best', 'waited', 'cooling'}, where the learning rate follows the evaluations; else {}.
      skipped: {'total', 'in_a_row'}, int32 (), where batches may be skipped: how many were; else {}.
      sums: training metrics since they were last logged.
      bad_step: int32 (), the position of the first batch after which the run cannot go on: its loss or its result was
        not finite, or it was one skipped batch too many; -1 while there is none.
      method: what a method of learning keeps beside, such as a second net that is trained; {} if there is nothing.
      compression: masks or codes of weights that are pruned or shared while they train; {} if there are none.
    """

    step: jax.Array
    seed: jax.Array
    params: dict
    model_state: dict
    opt_state: optax.OptState
    average: dict
    plateau: dict
    skipped: dict
    sums: metrics.Sums
    bad_step: jax.Array
    method: dict
    compression: dict

    @property
    def position(self) -> jax.Array | int:
        """The number of batches taken from the stream, int32 (): updates made, and batches skipped."""
        return self.step + self.skipped['total'] if self.skipped else self.step

    if TYPE_CHECKING:  # the decorator makes it

        def replace(self, **updates: Any) -> 'State':
            """Returns the state with other values for some of its fields."""
            ...

    def averaged(self) -> 'State':
        """Returns the state with the average in place of the weights and statistics."""
        return self.replace(**self.average)


def create(
    model: nn.Module,
    tx: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    seed: jax.Array,
    average: bool = False,
    plateau: dict | None = None,
    skips: bool = False,
    sums: tuple[str, ...] = metrics.NAMES,
    variables: dict | None = None,
    method: dict | None = None,
    compression: Callable[[dict], dict] = lambda params: {},
) -> State:
    """Returns the state at step 0; every value a function of `seed`, and of `variables` if they are given.

    Args:
      model: called with images of shape (1, *image_shape).
      tx: the optimizer.
      image_shape: (height, width, channels).
      seed: uint32 ().
      average: whether an average of the weights is kept; it begins with the initial ones.
      plateau: before any evaluation.
      skips: whether batches may be skipped.
      sums: names of the training metrics that are added up.
      variables: parameters and the net's other collections, in place of initial ones.
      method: what the method of learning keeps beside, at step 0.
      compression: of the parameters, what is kept of their compression.
    """
    if variables is None:
        # As in evaluation, so that initial values hang on one random stream and on no dropout.
        variables = dict(model.init({'params': rng.key(seed, 'init')}, jnp.zeros((1, *image_shape)), train=False))
    model_state = dict(variables)
    params = model_state.pop('params')
    return State(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        params=params,
        model_state=model_state,
        opt_state=tx.init(params),
        average={'params': params, 'model_state': model_state} if average else {},
        plateau=jax.tree.map(jnp.float32, plateau or {}),
        skipped={name: jnp.zeros((), jnp.int32) for name in ('total', 'in_a_row')} if skips else {},
        sums=metrics.zeros(sums),
        bad_step=jnp.full((), -1, jnp.int32),
        method=method or {},
        compression=compression(params),
    )
