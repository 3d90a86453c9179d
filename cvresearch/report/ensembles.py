"""Snapshot ensembles beside runs of the same cost, over seeds: cvresearch report ensembles DIR...

Each DIR holds ensemble.json, what `cvresearch evaluate --ensemble snapshots --control COSINE --control
CONSTANT` printed for one seed, and average.json, of `--ensemble weights`; other folders are named on standard error.
Prints a table in Markdown and what follows from it.
"""

import json
import statistics
from pathlib import Path

from scipy import stats

from cvresearch.base import cli, tables
from cvresearch.base.errors import UserError
from cvresearch.report import runs

COLUMNS = ('net', 'test top-1 of each seed (%)', 'mean', 'sd', 'NLL', 'ECE')


def read(folders: list[str | Path]) -> list[dict]:
    """Returns the records of the seeds, in their order, each with `average`, the record of the averaged weights.

    Raises:
      UserError: a folder without them; controls of another cost, fewer than two, or the second without snapshots; seeds
        with another number of snapshots, or evaluated on different images.
    """
    records_of = runs.take(folders, _record)
    for folder, record in records_of:
        if other := [control['control'] for control in record['controls'] if not control['same_cost']]:
            raise UserError(f'{folder}: {", ".join(other)} had another cost than the ensemble; nothing can be compared')
    records = [record for _, record in records_of]
    if any('task' in record for record in records):
        raise UserError('the table of ensembles is of top-1, and these nets answer with any number of labels an image')
    if len(records) < 2:
        raise UserError('expected the folders of at least two seeds')
    if len({record.get('images_sha256') for record in records} - {None}) > 1:
        raise UserError('the seeds were evaluated on different images (images_sha256); nothing can be compared')
    if len({(len(r['members']), len(r['controls'])) for r in records}) != 1:
        raise UserError('expected seeds with equally many snapshots and controls')
    if any(len(record['controls']) < 2 or 'snapshots' not in record['controls'][1] for record in records):
        raise UserError(
            'expected two controls of each seed: one cosine, and a constant rate that keeps snapshots '
            '(--config.snapshot_every_epochs)'
        )
    return sorted(records, key=lambda record: record['members'][0]['seed'])


def _record(folder: Path) -> tuple[Path, dict]:
    try:
        files = (folder / 'ensemble.json', folder / 'average.json')
        record, average = (json.loads(file.read_text(encoding='utf-8')) for file in files)
    except (OSError, ValueError) as error:
        raise UserError(f'{folder} holds no ensemble.json and average.json: {error}') from error
    _ = record['members'][0]['seed'], record['curve'], record['controls']  # a record without them is damaged
    return folder, record | {'average': average}


def rows(records: list[dict]) -> list[dict]:
    """Returns the table: controls, each snapshot, ensembles of the last m, and the average of weights."""
    cosine, constant = ([record['controls'][i] for record in records] for i in (0, 1))
    number = len(records[0]['members'])
    table = [_row('one cosine, the same number of epochs', cosine)]
    table.append(_row('constant rate, last step', constant))
    for k in range(number):
        table.append(_row(f'snapshot {k + 1}', [record['members'][k] for record in records]))
    for m in range(1, number + 1):
        table.append(_row(f'ensemble of the last {m}', [record['curve'][m - 1] for record in records]))
    table.append(_row(f'constant rate, ensemble of {number}', [control['snapshots'] for control in constant]))
    table.append(_row('average of the weights of all snapshots', [record['average'] for record in records]))
    return table


def comparison(name: str, ours: list[dict], theirs: list[dict]) -> str:
    """Returns one sentence on two nets over the same seeds: paired differences, their interval, McNemar's test.

    The interval is Student's, of the mean over seeds: it is of training again, on these test images. McNemar's
    test is, for each seed, of other test images.
    """
    differences = [a['top1'] - b['top1'] for a, b in zip(ours, theirs, strict=True)]
    mean, deviation = statistics.mean(differences), statistics.stdev(differences)
    half = stats.t.ppf(0.975, len(differences) - 1) * deviation / len(differences) ** 0.5
    tests = [row['mcnemar']['p'] for row in theirs]
    low, high = mean - half, mean + half
    if low > 0:
        verdict = 'The ensemble is better, with 95 % confidence over seeds.'
    elif high < 0:
        verdict = 'The ensemble is worse, with 95 % confidence over seeds.'
    else:
        verdict = 'With so few seeds that is no proof of a difference in either direction.'
    return (
        f'Against {name}: {", ".join(f"{d:+.1f}" for d in differences)} points of top-1 by seed, mean {mean:+.2f}, '
        f'95 % interval of the mean {low:+.2f} to {high:+.2f} (Student, {len(differences)} seeds). McNemar of each '
        f'seed on the {ours[0]["n_seen"]:,} test images: p = {", ".join(f"{p:.2g}" for p in tests)}. {verdict} '
        f'NLL {_mean(ours, "nll"):.4f} against {_mean(theirs, "nll"):.4f}, in {_lower(ours, theirs)} of '
        f'{len(ours)} seeds lower.'
    )


def document(records: list[dict]) -> str:
    """Returns the table and the comparisons, as Markdown."""
    last = [record['curve'][-1] for record in records]
    cosine, constant = ([record['controls'][i] for record in records] for i in (0, 1))
    sentences = [
        comparison('the cost-matched cosine', last, cosine),
        comparison('the ensemble of as many snapshots at a constant rate', last, [c['snapshots'] for c in constant]),
    ]
    differ, same = (_pairs(records, name) for name in ('disagreement', 'correlation'))
    apart, alike = (_pairs([c['snapshots'] for c in constant], name) for name in ('disagreement', 'correlation'))
    diversity = (
        f'Two snapshots disagree on {100 * differ:.2f} % of the images on average, and their probabilities correlate '
        f'with {same:.4f}; at a constant rate {100 * apart:.2f} % and {alike:.4f}.'
    )
    return '\n\n'.join([tables.render(rows(records), COLUMNS, 'markdown'), *sentences, diversity])


def _row(name: str, of_seeds: list[dict]) -> dict:
    top1 = [row['top1'] for row in of_seeds]
    return {
        'net': name,
        'test top-1 of each seed (%)': ', '.join(f'{value:.1f}' for value in top1),
        'mean': f'{statistics.mean(top1):.2f}',
        'sd': f'{statistics.stdev(top1):.2f}' if len(top1) > 1 else None,
        'NLL': f'{_mean(of_seeds, "nll"):.4f}',
        'ECE': f'{_mean(of_seeds, "ece"):.4f}',
    }


def _mean(of_seeds: list[dict], name: str) -> float:
    return statistics.mean(row[name] for row in of_seeds)


def _lower(ours: list[dict], theirs: list[dict]) -> int:
    return sum(a['nll'] < b['nll'] for a, b in zip(ours, theirs, strict=True))


def _pairs(records: list[dict], name: str) -> float:
    """Returns the mean over seeds and over pairs of different members."""
    return statistics.mean(value for record in records for i, row in enumerate(record[name]) for value in row[:i])


def main(argv: list[str]) -> int:
    """Prints the table; returns the exit code."""
    options = cli.parse(argv, __doc__, required=(), positional='folders')
    if not options.rest:
        raise UserError('expected the folders of at least two seeds')
    print(document(read(options.rest)))
    return 0
