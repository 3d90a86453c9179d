"""Errors under the corruptions of ImageNet-C, made locally: cvresearch evaluate robustness --workdir DIR.

Prints one line of JSON: the clean error, the top-1 errors of each corruption at severities 1 to 5, and for nets of the
1,000 classes of ImageNet mCE, whose denominators are AlexNet's errors (Hendrycks & Dietterich 2019, arXiv:1903.12261).
The images are those that the net sees, after cropping; data/corruptions.py says where they differ from the published
files. Images must be in colour.
"""

import dataclasses
import json
from pathlib import Path

from tqdm import tqdm

from cvresearch.base import cli
from cvresearch.base.errors import UserError, lookup
from cvresearch.data.corruptions import CORRUPTIONS, EXTRA, SEVERITIES, Corrupted
from cvresearch.evaluation.runs import Run
from cvresearch.objectives import scores


def measure(workdir: str | Path, names: tuple[str, ...] = (), split: str = 'test', seed: int = 1) -> dict:
    """Returns the errors (percent) of a run's newest checkpoint.

    Args:
      workdir: of the run.
      names: of corruptions; the fifteen of mCE by default.
      split: whose images are corrupted.
      seed: of the corruptions.

    Raises:
      UserError: no run, an unknown corruption, images that are not in colour.
    """
    names = names or tuple(CORRUPTIONS)
    for name in names:
        lookup('corruption', CORRUPTIONS | EXTRA, name)
    run = Run.open(workdir)
    run.check_data(split)
    clean = run.examples(split)
    state = run.checkpoint()
    (answers,) = run.predictions([state], split, run.protocol(split))
    if answers.multi_label:
        raise UserError('corruption errors are of one class an image, and these have any number of labels')
    record = {**answers.record, 'seed_of_corruptions': seed, 'n_seen': len(answers.labels), 'clean': _error(answers)}
    errors: dict[str, list[float]] = {name: [] for name in names}
    for name, severity in tqdm([(n, s) for n in names for s in range(1, SEVERITIES + 1)], desc='corruptions'):
        # Made on the way and never written: fifteen corruptions at five severities are 75 copies of the data.
        part = {split: Corrupted(clean, name, severity, seed)}
        source = dataclasses.replace(run.experiment.source, splits=part)
        corrupted = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, source=source))
        (answers,) = corrupted.predictions([state], split, corrupted.protocol(split))
        errors[name].append(_error(answers))
    record['errors'] = errors
    if set(scores.ALEXNET_ERRORS) <= set(names) and run.experiment.source.facts.num_classes == 1000:
        record['mce'], record['ce'] = scores.mean_corruption_error(errors)
    return record


def _error(answers) -> float:
    return 100 * float(1 - answers.right.mean())


def main(argv: list[str]) -> int:
    """Prints the errors; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('workdir',),
        places=('workdir',),
        buckets=('workdir',),
        workdir='folder of the run',
        split='test (default), train or minival',
        corruptions='with commas between; the fifteen of mCE by default',
        seed='of the corruptions (1)',
    )
    names = tuple(options.corruptions.split(',')) if options.corruptions else ()
    seed = cli.integer('seed', options.seed) if options.seed else 1
    print(json.dumps(measure(options.workdir, names, options.split or 'test', seed)))
    return 0
