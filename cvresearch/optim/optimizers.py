"""Optimizers as Optax transforms, by name."""

from collections.abc import Callable

import jax
import optax

from cvresearch.base import trees
from cvresearch.base.errors import construct


def sgd(
    learning_rate: optax.Schedule, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0,
    decay_all: bool = False, clip_norm: float | None = None,
) -> optax.GradientTransformation:  # fmt: skip
    """Stochastic gradient descent; `weight_decay` is L2, added to the gradient before the momentum."""
    return _chain(
        clip_norm,
        _decay(weight_decay, decay_all),
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


def adam(
    learning_rate: optax.Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
    weight_decay: float = 0.0, decay_all: bool = False, clip_norm: float | None = None,
) -> optax.GradientTransformation:  # fmt: skip
    """Adam (Kingma & Ba 2015); `weight_decay` is L2, added to the gradient."""
    return _chain(
        clip_norm,
        _decay(weight_decay, decay_all),
        optax.scale_by_adam(b1, b2, eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: optax.Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
    weight_decay: float = 1e-2, decay_all: bool = False, clip_norm: float | None = None,
) -> optax.GradientTransformation:  # fmt: skip
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), scaled by the learning rate."""
    return _chain(
        clip_norm,
        optax.scale_by_adam(b1, b2, eps),
        _decay(weight_decay, decay_all),
        optax.scale_by_learning_rate(learning_rate),
    )


OPTIMIZERS: dict[str, Callable] = {'sgd': sgd, 'adam': adam, 'adamw': adamw}


def make(spec, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimizer that a config's `optimizer` names.

    Raises:
      UserError: an unknown name or argument.
    """
    return construct('optimizer', OPTIMIZERS, spec, learning_rate=learning_rate)


def _decay(weight_decay: float, decay_all: bool) -> optax.GradientTransformation:
    """Decays kernels, by their name; biases, gains and the scales of norms only with `decay_all`."""
    if not weight_decay:
        return optax.identity()
    mask = None if decay_all else _kernels
    return optax.add_decayed_weights(weight_decay, mask)


def _kernels(params):
    # Not by the number of axes: where blocks are stacked (nn/repeat.py) a scale has two.
    return jax.tree_util.tree_map_with_path(lambda path, _: trees.key_name(path[-1]) == 'kernel', params)


def _chain(clip_norm: float | None, *parts: optax.GradientTransformation) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, *parts)
