"""Metrics as sums over examples and the count of examples: exact under any batching and sharding."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Real

Sums = dict[str, jax.Array]
Logits = Real[Array | np.ndarray, 'batch classes']
Labels = Int[Array | np.ndarray, ' batch']

NAMES = ('loss', 'top1', 'top5')


def zeros(names: tuple[str, ...] = NAMES) -> Sums:
    """Returns the sums over no examples."""
    return {name: jnp.zeros((), jnp.float32) for name in names} | {'count': jnp.zeros((), jnp.int32)}


def of_batch(
    logits: Logits,
    labels: Labels,
    loss: Real[Array | np.ndarray, ' batch'],
    mask: Real[Array | np.ndarray, ' batch'] | Bool[Array | np.ndarray, ' batch'] | None = None,
) -> Sums:
    """Returns the sums over one batch.

    Args:
      logits: (batch, classes).
      labels: int32 (batch,).
      loss: (batch,).
      mask: (batch,), 0 for examples that are only filling; all count by default.
    """
    mask = jnp.ones(labels.shape, jnp.float32) if mask is None else mask
    rank = label_rank(logits, labels)
    top5 = rank < min(5, logits.shape[-1])
    # `where`, not a product: filling that overflows must not poison the sum.
    values = {'loss': loss, 'top1': rank < 1, 'top5': top5}
    sums = {name: jnp.sum(jnp.where(mask > 0, value, 0.0)) for name, value in values.items()}
    return sums | {'count': jnp.sum(mask > 0, dtype=jnp.int32)}


def label_rank(logits: Logits, labels: Labels) -> Int[Array, ' batch']:
    """Returns how many classes are ranked above the label, (batch,).

    Of equal logits the class with the smaller number ranks first, as in argmax. A label whose
    logit is not finite ranks behind all classes: a net that says nothing is not right by chance.
    """
    of_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    earlier = jnp.arange(logits.shape[-1]) < labels[:, None]
    above = jnp.sum((logits > of_label) | ((logits == of_label) & earlier) | ~jnp.isfinite(logits), axis=-1)
    return jnp.where(jnp.isfinite(of_label[:, 0]), above, logits.shape[-1])


def add(a: Sums, b: Sums) -> Sums:
    """Returns the sums over both sets of examples."""
    return jax.tree.map(jnp.add, a, b)


def total(so_far: dict | None, sums: Sums) -> dict:
    """Returns the running total on the host, in float64 and exact integers."""
    values = {name: np.asarray(value).item() for name, value in sums.items()}
    return values if so_far is None else {name: so_far[name] + value for name, value in values.items()}


def means(sums: Sums | dict) -> dict[str, float]:
    """Returns the mean loss, the accuracies in percent, and `n_seen`, as Python numbers; no means of no image."""
    scale = {'loss': 1.0, 'top1': 100.0, 'top5': 100.0}
    if not (count := int(sums['count'])):
        return {'n_seen': 0}
    return {name: float(sums[name]) * scale[name] / count for name in NAMES} | {'n_seen': count}
