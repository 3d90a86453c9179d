"""Passes of the net that update no parameter, as pure functions: an evaluation's, and one for statistics of norms."""

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax

from cvresearch.base import rng
from cvresearch.engine.augment import Augment
from cvresearch.engine.state import State
from cvresearch.engine.steps import normalize
from cvresearch.objectives import metrics
from cvresearch.objectives.losses import Loss


def make_eval_step(
    model: nn.Module, loss: Loss, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[State, dict], metrics.Sums]:
    """Returns the metrics of one batch of `in_order`, (state, batch) -> sums over its examples."""

    def eval_step(state: State, batch: dict) -> metrics.Sums:
        images = normalize(batch['image'], mean, std)
        logits = cast(jax.Array, model.apply({'params': state.params, **state.model_state}, images, train=False))
        target = jax.nn.one_hot(batch['label'], model.num_classes)
        return metrics.of_batch(logits, batch['label'], loss(logits, target), batch['mask'])

    return eval_step


def make_statistics_step(
    model: nn.Module, augment: Augment, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[State, dict], dict]:
    """Returns the statistics of norms of one training batch alone, (state, batch) -> model state.

    Args:
      model: whose norms keep nothing of the running statistics (`Normalization.momentum` 0).
    """

    def statistics_step(state: State, batch: dict) -> dict:
        # The same keys as in training: the statistics are of the images that the net was shown.
        keys = rng.example_keys(state.seed, 'augment', batch['epoch'], batch['index'])
        images = augment.erase(normalize(augment.images(batch['image'], keys), mean, std), keys)
        key = rng.step_key(state.seed, 'dropout', state.step)
        variables = {'params': state.params, **state.model_state}
        _, model_state = model.apply(
            variables, images, train=True, mutable=list(state.model_state), rngs={'dropout': key}
        )
        return dict(model_state)

    return statistics_step
