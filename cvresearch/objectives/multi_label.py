"""Metrics of images with any number of classes, on the host, in float64. Each class is a question of its own.

Logits are (images, classes), targets bool (images, classes). A class is predicted where its probability, the sigmoid of
its logit, is above 0.5. All metrics are in percent.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from cvresearch.objectives import scores


def targets(labels: Int[np.ndarray, 'images most'], classes: int) -> Bool[np.ndarray, 'images {classes}']:
    """Returns which classes each image has, bool (images, classes), of labels (images, most) filled up with -1."""
    present = np.zeros((len(labels), classes + 1), bool)  # the last column takes the filling
    np.put_along_axis(present, labels.astype(np.int64), True, axis=1)
    return present[:, :classes]


def average_precision(values: Real[np.ndarray, ' images'], has: Bool[np.ndarray, ' images']) -> float | None:
    """Returns sum_n (recall_n - recall_(n-1)) * precision_n over the thresholds, from 0 to 1; None without positives.

    As scikit-learn's `average_precision_score`: not interpolated, equal values are one threshold.

    Args:
      values: of one class, (images,); what is not finite ranks last.
      has: bool (images,).
    """
    if not has.any():
        return None
    values = np.where(np.isnan(values), -np.inf, np.asarray(values, np.float64))
    order = np.argsort(-values, kind='stable')
    ordered = values[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each threshold
    hits = np.cumsum(has[order])[last]
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * hits / (last + 1)))


def summary(logits: Real[np.ndarray, 'images classes'], labels: Int[np.ndarray, 'images most']) -> dict[str, float]:
    """Returns mAP, exact match and F1 of all images together.

    mAP is the mean over the classes that some image has. Macro F1 is the mean over classes that occur or are predicted.
    """
    present, predicted = targets(labels, logits.shape[-1]), logits > 0
    rows = per_class(logits, labels)
    occur = [rows[c] for c in np.flatnonzero((present | predicted).any(0))]
    precisions = [row['ap'] for row in rows if row['ap'] is not None]
    hits, errors = int((present & predicted).sum()), int((present != predicted).sum())
    return {
        'mAP': float(np.mean(precisions)) if precisions else 0.0,
        'classes_with_images': len(precisions),
        'exact_match': 100 * float((present == predicted).all(-1).mean()),
        'micro_f1': 100 * 2 * hits / max(2 * hits + errors, 1),
        'macro_f1': float(np.mean([row['f1'] for row in occur])) if occur else 0.0,
        'n_seen': len(labels),
    }


def per_class(logits: Real[np.ndarray, 'images classes'], labels: Int[np.ndarray, 'images most']) -> list[dict]:
    """Returns average precision, precision, recall and F1 of each class, and how many images have it.

    The average precision of a class that no image has is None; what else would be a division by zero is 0.
    """
    present, predicted = targets(labels, logits.shape[-1]), logits > 0
    hits, actual, chosen = (present & predicted).sum(0), present.sum(0), predicted.sum(0)
    precision, recall, f1 = (
        100 * scores.ratio(*pair) for pair in ((hits, chosen), (hits, actual), (2 * hits, actual + chosen))
    )
    rows = []
    for c in range(logits.shape[-1]):
        ap = average_precision(logits[:, c], present[:, c])
        rows.append(
            dict(
                ap=None if ap is None else 100 * ap,
                precision=float(precision[c]),
                recall=float(recall[c]),
                f1=float(f1[c]),
                images=int(actual[c]),
            )
        )
    return rows


def averaged(logits: Sequence[Real[np.ndarray, 'images classes']]) -> Float[np.ndarray, 'images classes']:
    """Returns the logits of the mean of several nets' probabilities, class by class, float64 (images, classes)."""
    members = np.asarray(logits, np.float64)
    yes = np.logaddexp.reduce(-np.logaddexp(0, -members))
    no = np.logaddexp.reduce(-np.logaddexp(0, members))
    return yes - no
