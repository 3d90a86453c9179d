"""A linear classifier, or nearest neighbours, on features of `cvresearch features`.

    cvresearch probe FEATURES [--at NAME] [--method logistic|svm|knn] [--strengths 0.1,1,10]

Prints one line of JSON: the test images' top-1, and the strength that was chosen on held-out training images. logistic
is multinomial logistic regression and svm a linear SVM (strength: C, the inverse of the L2 penalty), knn nearest
neighbours (strength: their number); scikit-learn fits them.
"""

import json
from pathlib import Path

from cvresearch.base import cli
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.base.workdir import write_atomically


def main(argv: list[str]) -> int:
    """Fits a classifier to features and prints its record; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=(), positional='the file of features', places=('out',),
        switches=dict(unit_length='divide each image\'s features by their length first'),
        at='which features; the first by default', method='logistic (default), svm or knn',
        strengths='among which one is chosen, with commas between',
        held_out='share of training images to choose by (0.2)',
        seed='which images these are (0)', out='file for the record, JSON',
    )  # fmt: skip
    if len(options.rest) != 1:
        raise UserError(f'got {len(options.rest)} files of features; expected one: cvresearch probe FEATURES')
    if options.out and options.out.exists():
        raise UserError(f'--out is {options.out}, which exists; name another file')
    from cvresearch.evaluation import feature_files, probes

    found = feature_files.load(Path(local(options.rest[0], 'the file of features')))
    strengths = [_number('strengths', text) for text in options.strengths.split(',')] if options.strengths else None
    record = probes.probe(
        found, options.at or next(iter(found.values)), options.method or 'logistic', strengths,
        _number('held_out', options.held_out or '0.2'), cli.integer('seed', options.seed or '0', least=0),
        options.unit_length,
    )  # fmt: skip
    if options.out:
        write_atomically(options.out, json.dumps(record, indent=2) + '\n')
    print(json.dumps(record))
    return 0


def _number(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float('inf'):
        raise UserError(f'--{flag} has {text!r}; expected a number above 0')
    return value


if __name__ == '__main__':
    cli.run(main)
