"""Ensembles of one cost beside each other: python -m launch.equal_cost --workdir runs/study_snapshots [--out FILE].

Of the finished runs of configs/study_snapshots.py, for each seed: the single cosine; M cycles in one run, their ends
answering together, and the average of their weights (SWA); M independent nets, each 1 / M as long. All have seen as
many images. McNemar's test is against the single cosine, on the test images. What has not run is left out and named.
"""

from collections.abc import Sequence
from pathlib import Path

from cvresearch import evaluate
from cvresearch.base import cli, outputs, tables
from cvresearch.base.errors import UserError
from cvresearch.base.records import write_measurement
from cvresearch.report import runs
from cvresearch.report.runs import RunRecord

OTHER_SEEDS = 100  # the independent nets of a seed have these, times one more than it, and more
COLUMNS = ('seed', 'nets', 'M', 'images', 'top1', 'nll', 'ece', 'against the cosine', 'mcnemar_p', 'n_seen')


def cycles(run: RunRecord) -> int:
    """Returns how many cycles of the cosine a run has."""
    return round(run.config['epochs'] / run.config['schedule.t_0_epochs'])


def plan(finished: dict[Path, RunRecord]) -> list[dict]:
    """Returns what is to be evaluated: seed, kind, M, the workdirs, and the workdir of the single cosine.

    Args:
      finished: by folder, runs of the study.

    Raises:
      UserError: no single cosine is among them.
    """
    longest = max(run.config['epochs'] for run in finished.values())
    cosines, rows = {}, []
    for path, run in finished.items():
        if run.config['epochs'] == longest and cycles(run) == 1:
            cosines[run.config['seed']] = path
    if not cosines:
        raise UserError('no run of one cosine over all epochs is finished; the others are set beside it')
    for seed, cosine in sorted(cosines.items()):
        rows.append(dict(seed=seed, nets='one cosine', M=1, folders=[cosine], cosine=cosine))
        of_seed = {path: run for path, run in finished.items() if run.config['seed'] == seed}
        for path, run in sorted(of_seed.items(), key=lambda pair: cycles(pair[1])):
            if run.config['epochs'] == longest and cycles(run) > 1:
                for kind in ('snapshots', 'weights'):
                    rows.append(dict(seed=seed, nets=kind, M=cycles(run), folders=[path], cosine=cosine))
        for number in range(2, round(longest) + 1):
            short = {
                run.config['seed']: path for path, run in finished.items()
                if run.config['seed'] // OTHER_SEEDS == seed + 1 and round(longest / run.config['epochs']) == number
            }  # fmt: skip
            if len(short) == number:
                folders = [path for _, path in sorted(short.items())]
                rows.append(dict(seed=seed, nets='runs', M=number, folders=folders, cosine=cosine))
    return rows


def measured(row: dict) -> dict:
    """Returns a line of the table."""
    first, *others = row['folders']
    if row['nets'] == 'one cosine':
        record = evaluate.run(first)
        record['images_trained_on'] = runs.read(first).card['images_seen']
        difference, p = None, None
    else:
        record = evaluate.run_ensemble(first, row['nets'], tuple(others), (row['cosine'],))
        control = record['controls'][0]
        difference, p = f'{record["top1"] - control["top1"]:+.2f}', f'{control["mcnemar"]["p"]:.2g}'
    scores = {name: f'{record[name]:.{digits}f}' for name, digits in (('top1', 2), ('nll', 4), ('ece', 4))}
    line = dict(seed=row['seed'], nets=row['nets'], M=row['M'], images=record['images_trained_on'], **scores)
    return line | {'against the cosine': difference, 'mcnemar_p': p, 'n_seen': record['n_seen']}


def read(folders: Sequence[Path]) -> dict[Path, RunRecord]:
    """Returns the finished runs among some folders; the others are named on standard error."""

    def one(path: Path) -> tuple[Path, RunRecord]:
        runs.finished(path)
        run = runs.read(path)
        if run.config['schedule.name'] != 'sgdr':
            raise UserError(f'{path} has no cycles of a cosine (its schedule is {run.config["schedule.name"]})')
        return path, run

    return dict(runs.take(folders, one))


def main(argv: list[str]) -> int:
    """Evaluates, prints the table and writes the record; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('workdir',),
        places=('workdir', 'out'),
        workdir='folder of the sweep',
        out='file for the record: docs/records/NAME.json',
        format='text (default), markdown, csv, latex or html',
    )
    if options.out:
        outputs.check_place(options.out)
    folders = sorted(path.parent for path in options.workdir.glob('*/config.json'))
    rows = [measured(row) for row in plan(read(folders))]
    if options.out:
        write_measurement(options.out, rows)
    print(tables.render(rows, COLUMNS, options.format or 'text'))
    return 0


if __name__ == '__main__':
    cli.run(main)
