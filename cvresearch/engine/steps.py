"""The mathematics of one update and of one evaluation batch, as pure functions."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cvresearch.base import rng
from cvresearch.engine.augment import Augment
from cvresearch.engine.state import State
from cvresearch.objectives import metrics
from cvresearch.objectives.losses import Loss


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Maps uint8 images to float32: pixels / 255, less `mean`, over `std`, for each channel."""
    return (images.astype(jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)


def make_train_step(
    model: nn.Module, tx: optax.GradientTransformation, loss: Loss, augment: Augment,
    mean: tuple[float, ...], std: tuple[float, ...],
) -> Callable[[State, dict], State]:  # fmt: skip
    """Returns one update, (state, batch) -> state.

    The batch is `Stream.batch`'s. Under a mesh its mean loss is over the whole batch, wherever
    the examples are.
    """

    def train_step(state: State, batch: dict) -> State:
        keys = rng.example_keys(state.seed, 'augment', batch['epoch'], batch['index'])
        images = augment.erase(normalise(augment.images(batch['image'], keys), mean, std), keys)
        target = jax.nn.one_hot(batch['label'], model.num_classes)
        images, target = augment.mix(images, target, rng.step_key(state.seed, 'mix', state.step))

        def objective(params):
            outputs, model_state = model.apply(
                {'params': params, **state.model_state}, images, train=True, mutable=list(state.model_state),
                rngs={'dropout': rng.step_key(state.seed, 'dropout', state.step)},
            )  # fmt: skip
            # A net with auxiliary heads returns their logits too while it trains.
            logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, ())
            losses = loss(logits, target)
            objective = losses + sum(model.aux_weight * loss(head, target) for head in auxiliary)
            return jnp.mean(objective), (logits, losses, model_state)

        (mean_loss, (logits, losses, model_state)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params
        )
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # The new parameters too: an update that overflows would show in the loss one step later,
        # and a checkpoint in between would hold it.
        finite = jnp.isfinite(mean_loss) & jnp.isfinite(optax.global_norm((params, model_state)))
        return state.replace(
            step=state.step + 1,
            params=params,
            model_state=dict(model_state),
            opt_state=opt_state,
            sums=metrics.add(state.sums, metrics.of_batch(logits, batch['label'], losses)),
            bad_step=jnp.where((state.bad_step < 0) & ~finite, state.step, state.bad_step),
        )

    return train_step


def make_eval_step(
    model: nn.Module, loss: Loss, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[State, dict], metrics.Sums]:
    """Returns the metrics of one batch of `in_order`, (state, batch) -> sums over its examples."""

    def eval_step(state: State, batch: dict) -> metrics.Sums:
        images = normalise(batch['image'], mean, std)
        logits = model.apply({'params': state.params, **state.model_state}, images, train=False)
        target = jax.nn.one_hot(batch['label'], model.num_classes)
        return metrics.of_batch(logits, batch['label'], loss(logits, target), batch['mask'])

    return eval_step
