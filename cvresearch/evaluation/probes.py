"""A linear classifier, or nearest neighbours, on features of `cvresearch features`.

    cvresearch probe FEATURES [--at NAME] [--method logistic|svm|knn] [--strengths 0.1,1,10]

Prints one line of JSON: the test images' top-1, and the strength that was chosen on held-out training images. logistic
is multinomial logistic regression and svm a linear SVM (strength: C, the inverse of the L2 penalty), knn nearest
neighbours (strength: their number); scikit-learn fits them. The chosen one is fitted to all training
images; test images decide nothing.
"""

import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from cvresearch.base import cli
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.paths import local
from cvresearch.base.workdir import write_atomically
from cvresearch.evaluation import feature_files
from cvresearch.evaluation.feature_files import Features


@dataclasses.dataclass(frozen=True)
class Method:
    """A kind of classifier.

    Attributes:
      make: from its strength, a scikit-learn estimator.
      strength: what that is.
      grid: among which it is chosen.
    """

    make: Callable
    strength: str
    grid: tuple


_POWERS = tuple(10.0**power for power in range(-4, 5))
METHODS = {
    'logistic': Method(lambda c: LogisticRegression(C=c, max_iter=2000), 'C', _POWERS),
    'svm': Method(lambda c: LinearSVC(C=c, max_iter=20000, random_state=0), 'C', _POWERS),
    'knn': Method(lambda k: KNeighborsClassifier(int(k)), 'neighbours', (1, 3, 5, 10, 20, 50)),
}


def probe(
    features: Features,
    at: str,
    method: str = 'logistic',
    strengths: Sequence[float] | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    unit_length: bool = False,
) -> dict:
    """Returns the record of a classifier on features: top-1 of the test images in percent, its strength, `n_seen`.

    Args:
      features: the features.
      at: which of them; maps are flattened.
      method: of METHODS.
      strengths: among which one is chosen; the method's own if None.
      held_out: share of the training images of each class by which it is chosen.
      seed: which images these are.
      unit_length: each image's features are divided by their length first.

    Raises:
      UserError: no such features or method, no training or test images, a class with one training image.
    """
    kind = lookup('method', METHODS, method)
    values = lookup('features', features.values, at)
    values = values.reshape(len(values), -1).astype(np.float64)
    if unit_length:
        # An image whose features are all 0 has no direction: it stays 0.
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    train, test = (np.flatnonzero(features.splits == name) for name in ('train', 'test'))
    if not len(train) or not len(test):
        raise UserError(f'the features have {len(train)} training and {len(test)} test images; expected both')
    x, y = values[train], features.labels[train]
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or (counts.min() < 2 and (strengths is None or len(strengths) > 1)):
        raise UserError(
            f'of {len(counts)} classes the smallest has {counts.min()} training images; expected two classes, and two '
            'images of each to hold one out (or one strength alone)'
        )
    grid = [s for s in (strengths or kind.grid) if method != 'knn' or s <= len(train) * (1 - held_out)]
    if not 0 < held_out < 1 or not grid:
        raise UserError(f'--held_out is {held_out} and the strengths are {strengths}; expected a share, and some')
    chosen, validation = grid[0], None
    if len(grid) > 1:
        size = max(round(held_out * len(train)), len(counts))
        # Of the training images: a strength chosen on the test images would flatter what is reported.
        fitted, held = train_test_split(np.arange(len(train)), test_size=size, random_state=seed, stratify=y)
        validation = [_fit(kind, s, x[fitted], y[fitted]).score(x[held], y[held]) for s in grid]
        chosen = grid[int(np.argmax(validation))]  # ties go to the first: the stronger regularisation
    right = _fit(kind, chosen, x, y).predict(values[test]) == features.labels[test]
    return {
        'probe': method,
        'at': at,
        kind.strength: chosen,
        'top1': 100 * float(right.mean()),
        'n_seen': len(test),
        'n_train': len(train),
        'features': values.shape[1],
        'unit_length': unit_length,
        'seed': seed,
        **({'held_out_top1': [round(100 * v, 3) for v in validation], 'strengths': grid} if validation else {}),
        'net': features.record.get('name'),
        'digest': features.record.get('digest'),
        'data': features.record.get('data'),
    }


def _fit(kind: Method, strength: float, x: np.ndarray, y: np.ndarray):
    with warnings.catch_warnings():
        # Weak strengths of the grid need not converge to be compared.
        warnings.simplefilter('ignore', ConvergenceWarning)
        return kind.make(strength).fit(x, y)


def main(argv: list[str]) -> int:
    """Fits a classifier to features and prints its record; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        positional='the file of features',
        places=('out',),
        switches=dict(unit_length="divide each image's features by their length first"),
        at='which features; the first by default',
        method='logistic (default), svm or knn',
        strengths='among which one is chosen, with commas between',
        held_out='share of training images to choose by (0.2)',
        seed='which images these are (0)',
        out='file for the record, JSON',
    )
    if len(options.rest) != 1:
        raise UserError(f'got {len(options.rest)} files of features; expected one: cvresearch probe FEATURES')
    if options.out and options.out.exists():
        raise UserError(f'--out is {options.out}, which exists; name another file')
    features = feature_files.load(Path(local(options.rest[0], 'the file of features')))
    tried = options.strengths.split(',') if options.strengths else []
    record = probe(
        features,
        options.at or next(iter(features.values)),
        options.method or 'logistic',
        [cli.positive('strengths', text) for text in tried] or None,
        cli.positive('held_out', options.held_out or '0.2'),
        cli.integer('seed', options.seed or '0', least=0),
        options.unit_length,
    )
    if options.out:
        write_atomically(options.out, json.dumps(record, indent=2) + '\n')
    print(json.dumps(record))
    return 0
