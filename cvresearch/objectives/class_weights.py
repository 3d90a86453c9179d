"""How much the images of each class count in the loss, from what a config's `loss.class_weights` says."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cvresearch.base.errors import UserError, nearest


def resolve(
    spec: str | Sequence | Mapping[str, Any] | None,
    names: Sequence[str],
    labels: Int[np.ndarray, ' n'] | Int[np.ndarray, 'n most'] | None,
    classes: int,
) -> Float[np.ndarray, ' {classes}'] | None:
    """Returns the weight of each class, float32 (classes,); None if `spec` is None.

    Args:
      spec: 'balanced'; numbers, one a class; or numbers by class name, 1 for classes that are not named.
      names: of the classes of the data.
      labels: of the training images, int (n,) or (n, most); None if they are not known beforehand.
      classes: logits of the net; those beyond the data's classes have the weight 1.

    Raises:
      UserError: another word, the wrong number of weights, an unknown class, a weight below 0 or of no number.
    """
    if spec is None:
        return None
    if isinstance(spec, str):
        if spec != 'balanced':
            raise UserError(f'config.loss.class_weights is {spec!r}; expected balanced, numbers, or numbers by class')
        weights = balanced(labels, names)
    elif isinstance(spec, Mapping):
        if unknown := [name for name in spec if name not in names]:
            raise UserError(f'config.loss.class_weights: unknown class {unknown[0]!r}; {nearest(unknown[0], names)}')
        weights = [spec.get(name, 1.0) for name in names]
    else:
        weights = list(spec) if isinstance(spec, Sequence) else [spec]
        if len(weights) != len(names):
            raise UserError(f'config.loss.class_weights has {len(weights)} numbers; expected {len(names)}, one a class')
    for name, weight in zip(names, weights, strict=True):
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < float('inf'):
            raise UserError(f'config.loss.class_weights of {name!r} is {weight!r}; expected a number of at least 0')
    if not any(weights):
        raise UserError('config.loss.class_weights are all 0; expected one above 0')
    return np.array([*weights, *[1.0] * (classes - len(names))], np.float32)


def balanced(labels: Int[np.ndarray, ' n *most'] | None, names: Sequence[str]) -> list[float]:
    """Returns n / (classes * images of the class), under which every class counts the same.

    King & Zeng 2001, "Logistic regression in rare events data", as scikit-learn's `compute_class_weight` has it. Of
    images with several labels, each class is a problem of its own with two classes: the weight of the images that have
    it over the weight of the others, (n - images) / images.

    Raises:
      UserError: a class has no training image, or the labels are not known beforehand.
    """
    if labels is None:
        raise UserError(
            'config.loss.class_weights is balanced, but the source does not know its labels; expected numbers'
        )
    counts = np.bincount(labels[labels >= 0].astype(np.int64), minlength=len(names))
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        raise UserError(
            f'config.loss.class_weights is balanced, but there is no training image of {empty[0]!r}; expected numbers'
        )
    of_class = (len(labels) - counts) / counts if labels.ndim == 2 else len(labels) / (len(counts) * counts)
    return of_class.tolist()
