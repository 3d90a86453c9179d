"""Losses of images without labels, and how these stand in one batch with others."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real, Shaped

from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError

Logits = Real[AnyArray, 'batch classes']


def of_own_classes(guess: Logits, logits: Logits, threshold: float) -> Float[Array, '']:
    """Returns the mean over the examples of the cross-entropy to the most likely class of a guess, ().

    Args:
      guess: logits (batch, classes); no gradient flows into them.
      logits: (batch, classes).
      threshold: an example whose guess has a lower probability counts as 0.
    """
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(guess))
    target = jax.nn.one_hot(jnp.argmax(probabilities, axis=-1), logits.shape[-1])
    counts = jnp.max(probabilities, axis=-1) >= threshold
    return jnp.mean(counts * -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))


def of_own_distributions(guess: Logits, logits: Logits, threshold: float, temperature: float) -> Float[Array, '']:
    """Returns the mean over the examples of the cross-entropy to the sharpened distribution of a guess, ().

    Args:
      guess: logits (batch, classes); no gradient flows into them.
      logits: (batch, classes).
      threshold: an example whose guess has a lower probability, before it is sharpened, counts as 0.
      temperature: that divides the logits of the guess.
    """
    guess = jax.lax.stop_gradient(guess)
    counts = jnp.max(jax.nn.softmax(guess), axis=-1) >= threshold
    target = jax.nn.softmax(guess / temperature)
    return jnp.mean(counts * -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))


def interleaved(number: int, groups: Sequence[Shaped[AnyArray, ' _ *of_one']]) -> Shaped[Array, ' all *of_one']:
    """Returns the examples of several groups as one batch: the first `1 / number` of each group, then the next.

    So a device or a group of batch norm that holds a part of the batch holds the same share of each group.

    Args:
      number: of the labelled examples.
      groups: (number * any, ...) each.
    """
    joined = jnp.concatenate([x.reshape(number, -1, *x.shape[1:]) for x in groups], axis=1)
    return joined.reshape(-1, *joined.shape[2:])


def separated(
    number: int, sizes: Sequence[int], joined: Shaped[AnyArray, ' all *of_one']
) -> list[Shaped[Array, ' _ *of_one']]:
    """Returns the groups that `interleaved` has joined; `sizes` are their examples."""
    rows = joined.reshape(number, -1, *joined.shape[1:])
    ends = [sum(sizes[: place + 1]) // number for place in range(len(sizes) - 1)]
    return [part.reshape(-1, *joined.shape[1:]) for part in jnp.split(rows, ends, axis=1)]


def ramp(step: Real[AnyArray, ''] | float | int, begin: float, end: float) -> Float[Array, '']:
    """Returns 0 until the update `begin`, 1 from `end` on, and a straight line between."""
    return jnp.clip((step - begin) / max(end - begin, 1e-9), 0.0, 1.0)


def check_numbers(
    method: object, shares: Sequence[str] = (), weights: Sequence[str] = (), temperatures: Sequence[str] = ()
) -> None:
    """Raises UserError for a number of a config's `method` that is out of range.

    Args:
      method: has them as attributes.
      shares: names of numbers from 0 to 1, such as probabilities.
      weights: names of numbers of at least 0.
      temperatures: names of numbers above 0, since they divide.
    """
    # Asked this way round, so that NaN is refused.
    fits = {name: (lambda value: 0 <= value <= 1, '0 to 1') for name in shares}
    fits |= {name: (lambda value: value >= 0, '0 or more') for name in weights}
    fits |= {name: (lambda value: value > 0, 'more than 0') for name in temperatures}
    for name, (is_good, expected) in fits.items():
        if not is_good(getattr(method, name)):
            raise UserError(f'config.method.{name} is {getattr(method, name)}; expected {expected}')
