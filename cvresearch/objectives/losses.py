"""Losses: each maps logits (batch, classes) and targets (batch, classes) to one number an example.

Targets are distributions over the classes (one-hot, smoothed or mixed); for `sigmoid_cross_entropy` they may be 1 for
several classes. `class_weights`, (classes,), say how much each class counts; the mean of a batch is over its examples,
not over their weights.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Real

from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError, construct, construct_only

Logits = Float[AnyArray, '*batch classes']
Targets = Real[AnyArray, '*batch classes']
Losses = Float[Array, '*batch']
ClassWeights = Real[AnyArray, ' classes'] | Sequence[float] | None
Loss = Callable[[AnyArray, AnyArray], jax.Array]


def softmax_cross_entropy(label_smoothing: float = 0.0, class_weights: ClassWeights = None) -> Loss:
    """-sum(weight * target * log softmax(logits)), with label smoothing (Szegedy et al. 2016, section 7)."""
    _check_smoothing(label_smoothing)
    return functools.partial(_cross_entropy, label_smoothing, class_weights)


def sigmoid_cross_entropy(label_smoothing: float = 0.0, class_weights: ClassWeights = None) -> Loss:
    """A binary cross-entropy for each class, summed over the classes; smoothing draws targets towards 1 / classes.

    (Papers that take the mean over the classes have a learning rate to match: theirs is times the classes.) A class'
    weight is the number of images that have it over the number that have not (PyTorch's `pos_weight`).
    """
    _check_smoothing(label_smoothing)

    def loss(logits: Logits, target: Targets) -> Losses:
        target = _smooth(target, label_smoothing)
        if class_weights is None:
            return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, target), axis=-1)
        having, lacking = jnp.asarray(class_weights) * jax.nn.softplus(-logits), jax.nn.softplus(logits)
        return jnp.sum(target * having + (1 - target) * lacking, axis=-1)

    return loss


def multiclass_hinge(margin: float = 1.0, label_smoothing: float = 0.0, class_weights: ClassWeights = None) -> Loss:
    """sum over other classes j of max(0, logit_j - logit_target + margin) (Weston & Watkins 1999), as in CS231n.

    Of a target that is a distribution, the mean of this over its classes.
    """
    _check_smoothing(label_smoothing)
    if margin <= 0:
        raise UserError(f'config.loss.margin is {margin}; expected more than 0')

    def loss(logits: Logits, target: Targets) -> Losses:
        excess = jnp.maximum(0.0, logits[..., None, :] - logits[..., :, None] + margin)  # [..., target, other]
        others = 1 - jnp.eye(logits.shape[-1], dtype=logits.dtype)
        target = _weighted(_smooth(target, label_smoothing), class_weights)
        return jnp.einsum('...t,...to,to->...', target, excess, others)

    return loss


def maximum_a_posteriori(
    penalty: float = 0.1, label_smoothing: float = 0.0, class_weights: ClassWeights = None
) -> Loss:
    """LeNet-5's criterion (LeCun et al. 1998, equation 9), for logits that are minus distances.

    y_target + log(exp(-penalty) + sum_i exp(-y_i)): the constant keeps classes that are already
    far away from being pushed further.
    """
    _check_smoothing(label_smoothing)

    def loss(logits: Logits, target: Targets) -> Losses:
        target = _smooth(target, label_smoothing)
        rubbish = jnp.full((*logits.shape[:-1], 1), -penalty, logits.dtype)
        total = jax.nn.logsumexp(jnp.concatenate([logits, rubbish], -1), axis=-1)
        criterion = total - jnp.sum(target * logits, axis=-1)
        return criterion if class_weights is None else criterion * jnp.sum(_weighted(target, class_weights), axis=-1)

    return loss


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Draws a net to the softened predictions of a teacher (Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2).

    Attributes:
      teacher: workdir of a finished run, or another net, that is imitated; empty: none.
      weight: of the teacher; the rest is the loss on the labels.
      temperature: that divides both nets' logits. The term is times its square, so that its gradient is of the
        same size at any temperature.
    """

    teacher: str = ''
    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self):
        if not 0 <= self.weight <= 1:
            raise UserError(f'config.distillation.weight is {self.weight}; expected 0 to 1')
        if self.temperature <= 0:
            raise UserError(f'config.distillation.temperature is {self.temperature}; expected more than 0')

    def __call__(self, losses: Losses, logits: Logits, teacher: Logits) -> Losses:
        """Returns (1 - weight) * losses + weight * temperature^2 * KL(teacher || net), (batch,)."""
        student = jax.nn.log_softmax(logits / self.temperature)
        taught = jax.nn.log_softmax(teacher / self.temperature)
        divergence = jnp.sum(jnp.exp(taught) * (taught - student), axis=-1)
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * divergence


LOSSES = {
    'softmax_cross_entropy': softmax_cross_entropy,
    'sigmoid_cross_entropy': sigmoid_cross_entropy,
    'multiclass_hinge': multiclass_hinge,
    'maximum_a_posteriori': maximum_a_posteriori,
}


def make(spec: Mapping[str, Any], class_weights: ClassWeights = None) -> Loss:
    """Returns the loss that a config's `loss` names.

    Args:
      spec: `name` and the arguments of that loss.
      class_weights: what its `class_weights` come to (`class_weights.resolve`), (classes,).

    Raises:
      UserError: an unknown name or argument.
    """
    resolved = {} if class_weights is None else {'class_weights': class_weights}
    return construct('loss', LOSSES, {**spec, **resolved})


def distillation(spec: Mapping[str, Any]) -> Distillation:
    """Returns what a config's `distillation` says.

    Raises:
      UserError: an unknown argument, or a value out of range.
    """
    return construct_only('distillation', Distillation, spec)


def _cross_entropy(label_smoothing: float, class_weights: ClassWeights, logits: Logits, target: Targets) -> Losses:
    target = _weighted(_smooth(target, label_smoothing), class_weights)
    return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)


def _weighted(target: Targets, class_weights: ClassWeights) -> Targets:
    return target if class_weights is None else target * jnp.asarray(class_weights)


def _smooth(target: Targets, amount: float) -> Targets:
    return target * (1 - amount) + amount / target.shape[-1] if amount else target


def _check_smoothing(amount: float) -> None:
    if not 0 <= amount < 1:
        raise UserError(f'config.loss.label_smoothing is {amount}; expected 0 <= label_smoothing < 1')
