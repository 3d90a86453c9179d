"""Metrics of kept predictions, on the host, in float64. The sums that training adds up are in `metrics.py`.

Logits are (images, classes), labels int (images,), probabilities rows that sum to 1. Accuracies are in percent.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Real

from cvresearch.base.errors import UserError


def softmax(logits: Real[np.ndarray, '*images classes']) -> Float[np.ndarray, '*images classes']:
    """Returns the probabilities of logits (..., classes), float64."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: Real[np.ndarray, '*images classes']) -> Float[np.ndarray, '*images classes']:
    """Returns the logarithms of the probabilities of logits (..., classes), float64."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def label_rank(
    logits: Real[np.ndarray, 'images classes'], labels: Int[np.ndarray, ' images']
) -> Int[np.ndarray, ' images']:
    """Returns how many classes rank above the label, int (images,), as `metrics.label_rank` does on the device.

    Of equal logits the smaller class ranks first; a label whose logit is not finite ranks last.
    """
    of_label = np.take_along_axis(logits, labels[:, None], axis=-1)
    earlier = np.arange(logits.shape[-1]) < labels[:, None]
    above = ((logits > of_label) | ((logits == of_label) & earlier) | ~np.isfinite(logits)).sum(-1)
    return np.where(np.isfinite(of_label[:, 0]), above, logits.shape[-1])


def top_k(logits: Real[np.ndarray, 'images classes'], labels: Int[np.ndarray, ' images'], k: int = 1) -> float:
    """Returns the share of images whose label is among the k classes of largest logit (rank-k), in percent."""
    return 100 * float(np.mean(label_rank(logits, labels) < k))


def nll(logits: Real[np.ndarray, 'images classes'], labels: Int[np.ndarray, ' images']) -> float:
    """Returns the mean negative log-likelihood of the labels, in nats."""
    return -float(np.mean(np.take_along_axis(log_softmax(logits), labels[:, None], axis=-1)))


def brier(probabilities: Real[np.ndarray, 'images classes'], labels: Int[np.ndarray, ' images']) -> float:
    """Returns the mean of sum_c (p_c - [c is the label])^2, from 0 to 2 (Brier 1950, all classes)."""
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=-1)[:, 0]
    return float(np.mean((probabilities**2).sum(-1) - 2 * of_label + 1))


def calibration(
    probabilities: Real[np.ndarray, 'images classes'], labels: Int[np.ndarray, ' images'], bins: int = 15
) -> tuple[float, list[dict]]:
    """Returns the expected calibration error and the reliability diagram (Guo et al. 2017, equation 3).

    Args:
      probabilities: (images, classes).
      labels: (images,).
      bins: of equal width over (0, 1]; an image is in the bin ((b - 1) / bins, b / bins] of its largest probability.

    Returns:
      The error, from 0 to 1; and one row per bin: lower, upper, count, and where it holds images the mean
      accuracy and confidence, from 0 to 1 (else None).
    """
    confidence = probabilities.max(-1)
    correct = probabilities.argmax(-1) == labels
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence, side='left') - 1, 0, bins - 1)
    rows, error = [], 0.0
    for b in range(bins):
        inside = place == b
        row = dict(lower=edges[b].item(), upper=edges[b + 1].item(), count=int(inside.sum()))
        row |= dict(accuracy=None, confidence=None)
        if row['count']:
            row |= dict(accuracy=float(correct[inside].mean()), confidence=float(confidence[inside].mean()))
            error += row['count'] / len(labels) * abs(row['accuracy'] - row['confidence'])
        rows.append(row)
    return error, rows


def confusion_matrix(
    predicted: Int[np.ndarray, ' images'], labels: Int[np.ndarray, ' images'], classes: int
) -> Int[np.ndarray, '{classes} {classes}']:
    """Returns how often each class (row) was taken for each (column), int64 (classes, classes)."""
    return np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def per_class(confusion: Int[np.ndarray, 'classes classes']) -> list[dict]:
    """Returns accuracy, precision, recall and F1 (percent) of each class, and its number of images.

    The accuracy of a class, over its images, is its recall. What would be a division by zero is 0.
    """
    right, actual, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    recall, precision = ratio(right, actual), ratio(right, predicted)
    f1 = ratio(2 * right, actual + predicted)
    return [
        dict(accuracy=100 * r, precision=100 * p, recall=100 * r, f1=100 * f, images=n)
        for p, r, f, n in zip(precision.tolist(), recall.tolist(), f1.tolist(), actual.tolist(), strict=True)
    ]


def averages(confusion: Int[np.ndarray, 'classes classes']) -> dict[str, float]:
    """Returns precision, recall and F1 (percent), as the mean over classes (macro) and over images (micro).

    Classes that neither occur nor are predicted do not count. With one label an image, the three micro
    averages are the accuracy.
    """
    occurs = confusion.sum(0) + confusion.sum(1) > 0
    rows = [row for row, there in zip(per_class(confusion), occurs, strict=True) if there]
    macro = {f'macro_{name}': float(np.mean([row[name] for row in rows])) for name in ('precision', 'recall', 'f1')}
    accuracy = 100 * float(np.diag(confusion).sum() / confusion.sum())
    return macro | {f'micro_{name}': accuracy for name in ('precision', 'recall', 'f1')}


def real_accuracy(predicted: Int[np.ndarray, ' images'], real_labels: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Returns the ReaL accuracy (percent) and how many images it is over (Beyer et al. 2020, section 2).

    Args:
      predicted: class of each image, in the order of the validation files.
      real_labels: all right classes of each image, in that order; an image with none is left out.
    """
    if len(predicted) != len(real_labels):
        raise UserError(f'got predictions of {len(predicted)} images and ReaL labels of {len(real_labels)}')
    right = [p in labels for p, labels in zip(predicted.tolist(), real_labels, strict=True) if len(labels)]
    return 100 * float(np.mean(right)), len(right)


def restricted(logits: Real[np.ndarray, 'images classes'], classes: Sequence[int]) -> Real[np.ndarray, 'images kept']:
    """Returns the logits of some classes alone, (images, len(classes)): the others cannot be chosen."""
    return logits[:, np.asarray(classes)]


# Top-1 error of AlexNet on each corruption, mean over the five severities: hendrycks/robustness,
# ImageNet-C/test.py, the denominators of Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3 (table 1
# prints them in whole percent).
ALEXNET_ERRORS = {
    'gaussian_noise': 88.6428,
    'shot_noise': 89.4468,
    'impulse_noise': 92.2640,
    'defocus_blur': 81.9880,
    'glass_blur': 82.6268,
    'motion_blur': 78.5948,
    'zoom_blur': 79.8360,
    'snow': 86.6816,
    'frost': 82.6572,
    'fog': 81.9324,
    'brightness': 56.4592,
    'contrast': 85.3204,
    'elastic_transform': 64.6056,
    'pixelate': 71.7840,
    'jpeg_compression': 60.6500,
}


def mean_corruption_error(
    errors: Mapping[str, Sequence[float]], reference: Mapping[str, float] = ALEXNET_ERRORS
) -> tuple[float, dict[str, float]]:
    """Returns mCE and the CE of each corruption, in percent of the reference's errors.

    Hendrycks & Dietterich 2019, arXiv:1903.12261, section 4: CE_c = sum_s E_sc / sum_s E_sc of AlexNet.

    Args:
      errors: top-1 errors (percent) at the five severities, by corruption.
      reference: mean error (percent) over the severities of what is compared with.

    Raises:
      UserError: a corruption is missing, or one of its severities.
    """
    missing = sorted(set(reference) - set(errors))
    if missing:
        raise UserError(f'mCE is over {len(reference)} corruptions; missing: {", ".join(missing)}')
    for name in reference:
        if len(errors[name]) != 5:
            raise UserError(f'mCE takes five severities; {name} has {len(errors[name])}')
    errors_of = {name: 100 * float(np.mean(errors[name])) / reference[name] for name in reference}
    return float(np.mean(list(errors_of.values()))), errors_of


def ratio(numerator: Real[np.ndarray, ' n'], denominator: Real[np.ndarray, ' n']) -> Float[np.ndarray, ' n']:
    """Returns the quotients, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
