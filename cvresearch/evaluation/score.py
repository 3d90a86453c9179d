"""Metrics of kept predictions, without a new pass: cvresearch evaluate score FILE.npz [OTHER.npz].

FILE is one of WORKDIR/predictions. Prints one line of JSON: top-1, top-5, NLL, Brier score, ECE, precision, recall and
F1 (macro, micro), and a bootstrap interval of the top-1; of images with any number of labels mAP, exact match and F1
at a probability of 0.5. With OTHER, predictions of the same images, also McNemar's
test. --classes writes a table of every class, --calibration the reliability diagram's bins (CSV), --confusion the
confusion matrix as CSV, and beside it as a picture (PNG).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvresearch.base import cli, escape, tables
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local, once
from cvresearch.base.workdir import write_atomically
from cvresearch.data import identity
from cvresearch.evaluation import predictions
from cvresearch.evaluation.predictions import Predictions
from cvresearch.objectives import multi_label, scores, significance

SEVERAL_COLUMNS = ('class', 'number', 'images', 'ap', 'precision', 'recall', 'f1')
CLASS_COLUMNS = ('class', 'number', 'images', 'accuracy', 'precision', 'recall', 'f1')
LONGEST = 24  # characters of a class name beside a picture
BIN_COLUMNS = ('lower', 'upper', 'count', 'accuracy', 'confidence')


def score(answers: Predictions, other: Predictions | None = None, bins: int = 15, level: float = 0.95) -> dict:
    """Returns the metrics of one set of predictions, and a test against another of the same images.

    Args:
      answers: to be measured.
      other: to be compared with.
      bins: of the calibration error.
      level: of the bootstrap interval of the top-1 accuracy (of ReaL's, where images have several labels; of the exact
        match, where each label is a question of its own).

    Raises:
      UserError: the two are of other images.
    """
    no_answer = answers.labels.ndim == 2 and not answers.multi_label  # images of ReaL without a label
    counted = answers.labels.max(-1) >= 0 if no_answer else np.ones(len(answers.labels), bool)
    low, high = significance.bootstrap(answers.right[counted], level)
    name = f'exact_match_interval_{level:.0%}' if answers.multi_label else f'interval_{level:.0%}'
    values = {**answers.record, **predictions.summary(answers, bins), name: [100 * low, 100 * high]}
    if other is None:
        return values
    predictions.check_same_images(answers, other)
    return values | {
        'other': other.record,
        'mcnemar': significance.mcnemar(answers.right[counted], other.right[counted]),
    }


def confusion_of(answers: Predictions) -> np.ndarray:
    """Returns the confusion matrix; rows are the true classes.

    Raises:
      UserError: images have several labels.
    """
    if answers.labels.ndim == 2:
        raise UserError('images with several labels have no confusion matrix')
    return scores.confusion_matrix(answers.predicted, answers.labels, answers.logits.shape[-1])


def names_of(answers: Predictions) -> list[str]:
    """Returns what to call each class: its name, or its number where that is not known."""
    return identity.shown(answers.class_names, answers.logits.shape[-1])


def picture(confusion: np.ndarray, path: Path, title: str = '', names: Sequence[str] = ()) -> None:
    """Draws a confusion matrix as a PNG: each row's shares of its class, with counts and names where there is room."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = len(confusion)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6.5, 5.5), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
    figure.colorbar(image, ax=axes, label='share of the true class')
    axes.set(xlabel='predicted class', ylabel='true class', title=escape.mathtext(title))
    if classes <= 20:
        labels = [name if len(name) <= LONGEST else f'{name[:LONGEST]}…' for name in names or map(str, range(classes))]
        turned = 90 if max(map(len, labels)) > 2 else 0
        axes.set_xticks(range(classes), labels, rotation=turned, parse_math=False)
        axes.set_yticks(range(classes), labels, parse_math=False)
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                colour = 'white' if shares[row, column] > 0.5 else 'black'
                axes.text(column, row, str(count), ha='center', va='center', color=colour, fontsize=8)
    figure.savefig(path, metadata={'Software': None})


def write_confusion(answers: Predictions, path: Path) -> None:
    """Writes the confusion matrix as CSV, and as a picture of the same name with .png."""
    confusion, names = confusion_of(answers), names_of(answers)
    columns = ['true', *(f'{name} ({c})' if name == 'true' else name for c, name in enumerate(names))]
    rows = [dict(zip(columns, [name, *row], strict=True)) for name, row in zip(names, confusion.tolist(), strict=True)]
    write_atomically(path, tables.render(rows, columns, 'csv') + '\n')
    part = (
        f', {len(answers.labels):,} of its {answers.record["subset"]["of"]:,} images'
        if 'subset' in answers.record
        else ''
    )
    title = f'{answers.record.get("model", "")}, {answers.record.get("split", "")}{part}'
    picture(confusion, path.with_suffix('.png'), title, names)


def main(argv: list[str]) -> int:
    """Prints the metrics; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        places=('confusion', 'classes', 'calibration'),
        positional='files of predictions, one or two',
        confusion='CSV file for the confusion matrix; a PNG is written beside it',
        classes='CSV file for every class',
        calibration='CSV file for the bins',
        bins='of the calibration error (15)',
    )
    if len(options.rest) not in (1, 2):
        raise UserError(f'expected one or two files of predictions, got {len(options.rest)}')
    files, again = once([local(name) for name in options.rest])
    for path in again:
        print(f'left out: {path} is {files[0]}, given twice', file=sys.stderr)
    answers, *other = map(Predictions.load, files)
    bins = cli.integer('bins', options.bins) if options.bins else 15
    print(json.dumps(score(answers, *other, bins=bins)))
    if options.confusion:
        write_confusion(answers, options.confusion)
    if options.classes:
        columns = SEVERAL_COLUMNS if answers.multi_label else CLASS_COLUMNS
        of_class = multi_label.per_class(answers.logits, answers.labels) if answers.multi_label else None
        named = zip(names_of(answers), of_class or scores.per_class(confusion_of(answers)), strict=True)
        rows = [{'class': name, 'number': c, **row} for c, (name, row) in enumerate(named)]
        write_atomically(options.classes, tables.render(rows, columns, 'csv') + '\n')
    if options.calibration:
        if answers.labels.ndim == 2:
            raise UserError('images with several labels have no calibration diagram')
        rows = scores.calibration(answers.probabilities, answers.labels, bins)[1]
        write_atomically(options.calibration, tables.render(rows, BIN_COLUMNS, 'csv') + '\n')
    return 0
