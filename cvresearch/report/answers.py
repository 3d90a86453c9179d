"""Pictures of what a net says of a whole split: what it confuses, how sure it is, which classes and images it misses.

Each function takes kept predictions and returns a Matplotlib figure.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cvresearch.base.errors import UserError
from cvresearch.base.escape import mathtext
from cvresearch.data import identity
from cvresearch.evaluation.predictions import Predictions
from cvresearch.objectives import multi_label, scores
from cvresearch.report import looks
from cvresearch.report.plots import PALETTE

NAMED = 30  # classes with a name beside a confusion matrix
COUNTED = 12  # classes of a matrix with a number in each field
MOST_CLASSES = 40  # bars of classes
LONGEST = 22  # characters of the name of a class
STYLE = looks.STYLE | {'axes.grid': True}


def names_of(predictions: Predictions) -> list[str]:
    """Returns what each class is called: its name, or its number where that is not known."""
    return identity.shown(predictions.class_names, predictions.logits.shape[-1])


def confusion_of(predictions: Predictions) -> np.ndarray:
    """Returns the confusion matrix, int64 (classes, classes); rows are the true classes.

    Raises:
      UserError: images have several labels.
    """
    _check_one_label(predictions, 'confusion matrix')
    return scores.confusion_matrix(predictions.predicted, predictions.labels, predictions.logits.shape[-1])


def confusion(predictions: Predictions) -> Figure:
    """Returns the confusion matrix: of each true class, a row, the share that was taken for each class."""
    counts, names = confusion_of(predictions), [_short(name) for name in names_of(predictions)]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    number = len(counts)
    side = 2.6 + 0.17 * min(number, NAMED)
    with matplotlib.rc_context(looks.STYLE):
        figure = Figure(figsize=(side + 0.9, side), layout='constrained')
        axes = figure.subplots()
        shown = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
        figure.colorbar(shown, ax=axes, label='share of the true class', fraction=0.046)
        axes.set(xlabel='predicted class', ylabel='true class', title=_title(predictions))
        if number <= NAMED:
            turned = 90 if max(map(len, names)) > 2 else 0
            axes.set_xticks(range(number), names, rotation=turned, fontsize=6)
            axes.set_yticks(range(number), names, fontsize=6)
        for (row, column), count in np.ndenumerate(counts) if number <= COUNTED else ():
            if count:
                axes.text(
                    column,
                    row,
                    str(count),
                    ha='center',
                    va='center',
                    fontsize=5,
                    color='white' if shares[row, column] > 0.5 else 'black',
                )
    return figure


def calibration(predictions: Predictions, bins: int = 15) -> Figure:
    """Returns the reliability diagram: the accuracy of the images in each bin of confidence, and how many they are.

    Guo et al. 2017, arXiv:1706.04599, figure 1. A net whose probabilities are right has its bars on the diagonal.

    Raises:
      UserError: images have several labels.
    """
    _check_one_label(predictions, 'reliability diagram')
    error, rows = scores.calibration(predictions.probabilities, predictions.labels, bins)
    edges = [row['lower'] for row in rows] + [1.0]
    accuracy = [row['accuracy'] or 0.0 for row in rows]
    counts = np.asarray([row['count'] for row in rows])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2, 3.8), layout='constrained')
        above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={'height_ratios': (3, 1)})
        above.stairs(accuracy, edges, fill=True, color=PALETTE[0], label='accuracy')
        sure = [row['confidence'] if row['count'] else None for row in rows]
        for row, place in zip(rows, sure, strict=True):
            if place is not None:
                above.vlines(
                    (row['lower'] + row['upper']) / 2, *sorted((row['accuracy'], place)), color=PALETTE[1], linewidth=2
                )
        above.plot([], [], color=PALETTE[1], linewidth=2, label='gap to confidence')
        above.plot((0, 1), (0, 1), color='black', linewidth=0.8, linestyle='--')
        above.set(
            ylim=(0, 1), xlim=(0, 1), ylabel='accuracy', title=f'{_title(predictions)}\nECE {error:.2%}, {bins} bins'
        )
        above.legend(loc='upper left')
        below.stairs(counts / counts.sum(), edges, fill=True, color='0.6')
        below.set(xlabel='confidence', ylabel='images (share)')
    return figure


def classes(predictions: Predictions) -> Figure:
    """Returns the accuracy of each class, the worst first, as bars; of the worst where there are many.

    With any number of labels an image, the average precision of each.
    """
    rows, key = _of_class(predictions)
    names = names_of(predictions)
    order = [c for c in np.argsort([row[key] for row in rows], kind='stable') if rows[c]['images']]
    shown, mean = order[:MOST_CLASSES], float(np.mean([rows[c][key] for c in order]))
    most = f', the {len(shown)} worst of {len(order):,} classes' if len(shown) < len(order) else ''
    with matplotlib.rc_context(STYLE | {'axes.grid.axis': 'x'}):
        figure = Figure(figsize=(3.8, 0.9 + 0.14 * len(shown)), layout='constrained')
        axes = figure.subplots()
        axes.barh(range(len(shown)), [rows[c][key] for c in shown], color=PALETTE[0], height=0.75)
        axes.axvline(mean, color=PALETTE[1], linewidth=1)
        axes.set_yticks(range(len(shown)), [f'{_short(names[c])} ({rows[c]["images"]})' for c in shown], fontsize=5.5)
        axes.invert_yaxis()
        what = 'average precision' if key == 'ap' else 'accuracy'
        axes.set(xlim=(0, 100), xlabel=f'{what} (%); line: mean, {mean:.1f} %', title=f'{_title(predictions)}{most}')
    return figure


def _of_class(predictions: Predictions) -> tuple[list[dict], str]:
    """Returns a row for each class, and the key of its metric."""
    if predictions.multi_label:
        return multi_label.per_class(predictions.logits, predictions.labels), 'ap'
    return scores.per_class(confusion_of(predictions)), 'accuracy'


def class_table(predictions: Predictions) -> dict[str, np.ndarray]:
    """Returns the numbers behind `classes`, each (classes,): its name, images, and metrics in percent."""
    rows, _ = _of_class(predictions)
    return {
        'class': np.asarray(names_of(predictions)),
        **{key: np.asarray([row[key] for row in rows]) for key in rows[0]},
    }


def worst(predictions: Predictions, number: int) -> np.ndarray:
    """Returns the images that are wrong with the highest probability, the surest first, int (images,).

    Raises:
      UserError: images have several labels.
    """
    _check_one_label(predictions, 'most confident mistake')
    sure = np.where(predictions.right, -np.inf, predictions.probabilities.max(-1))
    return np.argsort(-sure, kind='stable')[: min(number, int((~predictions.right).sum()))]


def mistakes(predictions: Predictions, index: Sequence[int] | np.ndarray, images: Sequence[np.ndarray]) -> Figure:
    """Returns a sheet of images that are wrong: what the net says and how sure it is, and what they are.

    Args:
      predictions: the predictions.
      index: of the images among them (`worst`).
      images: uint8 (height, width, 3 or 1), at `index`.
    """
    names, probabilities = names_of(predictions), predictions.probabilities
    short = list(map(_short, names))
    titles = [
        f'said {short[predictions.predicted[i]]}, {probabilities[i].max():.0%}\nis {short[predictions.labels[i]]}'
        for i in index
    ]
    return looks.contact_sheet(images, titles, side=1.2)


def _check_one_label(predictions: Predictions, what: str) -> None:
    if predictions.labels.ndim == 2:
        raise UserError(f'images with several labels have no {what}; expected predictions of one label an image')


def _title(predictions: Predictions) -> str:
    record = predictions.record
    name = record.get('model') or record.get('run') or ''
    part = f' of {record["subset"]["of"]:,}' if 'subset' in record else ''
    return mathtext(f'{name} on {record.get("data", "")} {record.get("split", "")}'.strip()) + (
        f'\n{len(predictions.labels):,}{part} images'
    )


def _short(name: str) -> str:
    return mathtext(name if len(name) <= LONGEST else f'{name[: LONGEST - 1]}…')
