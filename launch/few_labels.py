"""Digits and Fashion-MNIST with few labels, by every method, and the table: python -m launch.few_labels --workdir DIR.

    python -m launch.few_labels --workdir runs/few_labels [--out docs/records/few_labels.json]
    python -m launch.few_labels --table docs/records/few_labels.json [--picture docs/pictures/few_labels.png]

Two data sets, four numbers of labels and three seeds, one run after another (configs/few_labels.py). A seed draws the
labels, the same for every method. Test images choose nothing: the answers are of each run's last average of weights.

Labels alone are trained as all others are, and tuned: of `GRID` the setting that is right most often on 1,000 training
images that are held out, over the three seeds. Each method is trained as its file has it and with that setting; it has
more to set, and none was tuned by itself. The same command goes on where it was interrupted.
"""

import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from scipy import stats

from cvresearch.base import cli, tables
from cvresearch.base import config as configs
from cvresearch.evaluation import label
from launch import chain, study
from launch.plan import SweepRun

CONFIG = 'configs/few_labels.py'
OUT = Path('docs/records/few_labels.json')
SEEDS = (0, 1, 2)
DATA = {'digits': '', 'Fashion-MNIST': 'fashion'}
LABELS = {100: '', 600: 'labels600', 1000: 'labels1000', 3000: 'labels3000'}
# In the order of what they tell.
CELLS = [*itertools.product(['digits'], LABELS), *itertools.product(['Fashion-MNIST'], (100, 1000, 600, 3000))]
METHODS = {
    'supervised': 'labels alone',
    'tuned': 'labels alone, tuned',
    'pseudo_labels': 'pseudo-labels',
    'fixmatch': 'FixMatch',
    'uda': 'UDA',
    'noisy_student': 'Noisy Student',
    'meta_pseudo_labels': 'Meta Pseudo Labels',
}
SET = {f'{name}_set': f'{METHODS[name]}, that setting' for name in METHODS if name not in ('supervised', 'tuned')}
ALL = METHODS | SET
CHAINS = {'noisy_student': '', 'meta_pseudo_labels': 'meta_pseudo_labels'}  # and the argument of their file
HELD_OUT = 1000
GRID = [{'schedule.peak': rate, 'longer': times} for times in (1, 3) for rate in (1e-3, 3e-3)]
# Images that go through a net in an update, training or not: for one with a label, and for one without. Consistency
# sees two views; of Meta Pseudo Labels the teacher sees all, the student labelled and strong ones, and these again.
PASSES = {
    'supervised': (1, 0),
    'pseudo_labels': (1, 1),
    'soft_labels': (1, 1),
    'fixmatch': (1, 2),
    'uda': (1, 2),
    'meta_pseudo_labels': (3, 4),
}


def spec_of(data: str, labels: int, method: str = '') -> str:
    """Returns the experiment, as --config has it."""
    return f'{CONFIG}:{",".join(filter(None, (DATA[data], LABELS[labels], method)))}'


def passes(card: dict) -> int:
    """Returns how many images went through a net in a run's updates."""
    settings = card['hyperparameters']
    labelled, unlabelled = PASSES[settings['method.name']]
    return card['images_seen'] * (labelled + unlabelled * settings.get('unlabelled.ratio', 0))


def row_of(card: dict, images: int) -> dict:
    """Returns what the record keeps of a run: its answers to the test images, and its cost."""
    final = card['final']['test_ema']
    return {
        'top1': final['top1'],
        'n_seen': final['n_seen'],
        'updates': card['step'],
        'images': images,
        'seconds': round(sum(session['wall_time_s'] for session in card['sessions'])),
    }


def single(data: str, labels: int, method: str, seed: int, folder: Path, setting: dict | None = None) -> dict:
    """Trains one run, as its file has it or with a setting of `GRID`; returns its row."""
    overrides = _set(data, labels, seed, setting) if setting else _seeds(seed)
    card = study.trained(configs.load(spec_of(data, labels, method), overrides), folder)
    return row_of(card, passes(card)) | ({'setting': setting} if setting else {})


def chained(data: str, labels: int, method: str, seed: int, folder: Path, setting: dict | None = None) -> dict:
    """Trains a chain; returns the row of its last generation, with the answers of each and the cost of all."""
    images, rows = 0, []
    overrides: dict[str, str | None] = {**(_set(data, labels, seed, setting) if setting else _seeds(seed))}
    for run in chain.generations(spec_of(data, labels, method), overrides, folder):
        command = chain.labelling(run)
        if command and not Path(run.config.unlabelled.labels).exists():
            label.main(command[command.index('label') + 1 :])
        card = study.trained(run.config, run.workdir)
        images += passes(card) + (_labelled(run) if command else 0)
        rows.append(row_of(card, images))
    total = {key: sum(row[key] for row in rows) for key in ('updates', 'seconds')}
    total |= {'setting': setting} if setting else {}
    return rows[-1] | total | {'generations': [row['top1'] for row in rows]}


def _labelled(run: SweepRun) -> int:
    """Returns how many images the generation before labelled for this one; it may have left out some of them."""
    record = Path(run.config.unlabelled.labels).with_name(label.RECORD)
    return json.loads(record.read_text(encoding='utf-8'))['images']


def tune(data: str, labels: int, record: dict, folder: Path, save: study.Save) -> None:
    """Fills `record['tuning']` for a cell: labels alone with each setting of `GRID`, on held-out training images."""
    for (number, setting), seed in itertools.product(enumerate(GRID), SEEDS):
        entry = {'data': data, 'labels': labels, 'setting': number, 'seed': seed}
        if not any(entry.items() <= row.items() for row in record['tuning']):
            overrides = _set(data, labels, seed, setting) | {'minival': str(HELD_OUT)}
            card = study.trained(configs.load(spec_of(data, labels), overrides), folder / f'tuning{number}_{seed}')
            record['tuning'].append(entry | {'top1': card['final']['minival_ema']['top1']})
            save()


def best_setting(record: dict, data: str, labels: int) -> int:
    """Returns the number of the setting with the best mean on held-out training images, the first among equals."""
    of = [row for row in record['tuning'] if (row['data'], row['labels']) == (data, labels)]
    means = [statistics.mean(row['top1'] for row in of if row['setting'] == number) for number in range(len(GRID))]
    return means.index(max(means))


def _seeds(seed: int) -> dict[str, str]:
    return {'seed': str(seed), 'data.labels_seed': str(seed)}


def _set(data: str, labels: int, seed: int, setting: dict) -> dict[str, str]:
    epochs = configs.load(spec_of(data, labels)).epochs * setting['longer']
    length = {key: str(epochs) for key in ('epochs', 'evaluate_every_epochs', 'save_every_epochs')}
    return {**_seeds(seed), **length, 'schedule.peak': str(setting['schedule.peak'])}


def fill(record: dict, folder: Path, chosen: SimpleNamespace, save: study.Save) -> None:
    """Makes what is missing of the record, cell by cell; `save` is called after each run.

    Args:
      record: to be filled.
      folder: of the runs.
      chosen: its `data` and `method` are of `DATA` and `ALL`; where one is None, all are made.
      save: keeps the record.
    """
    cases, _ = record.setdefault('cases', []), record.setdefault('tuning', [])
    done = {(row['data'], row['labels'], row['method'], row['seed']) for row in cases}
    for group, (data, labels), seed in itertools.product((METHODS, SET), CELLS, SEEDS):
        for name in group:
            if (data, labels, name, seed) in done or data != (chosen.data or data) or name != (chosen.method or name):
                continue
            cell = folder / f'{DATA[data] or "digits"}_{labels}'
            method, setting = name.removesuffix('_set'), None
            if name == 'tuned' or name in SET:
                tune(data, labels, record, cell, save)
                setting = GRID[best_setting(record, data, labels)]
            if method in CHAINS:
                row = chained(data, labels, CHAINS[method], seed, cell / f'{name}_{seed}', setting)
            elif method == 'supervised':  # the teacher of Noisy Student's first generation, too
                row = single(data, labels, '', seed, cell / f'noisy_student_{seed}' / 'generation0')
            else:
                of_file = '' if method == 'tuned' else method
                row = single(data, labels, of_file, seed, cell / f'{name}_{seed}', setting)
            cases.append({'data': data, 'labels': labels, 'method': name, 'seed': seed, **row})
            save()


def of_cell(record: dict, data: str, labels: int) -> dict[str, dict[int, dict]]:
    """Returns the rows of a cell by method and seed."""
    by_method: dict[str, dict[int, dict]] = {}
    for row in record['cases']:
        if (row['data'], row['labels']) == (data, labels):
            by_method.setdefault(row['method'], {})[row['seed']] = row
    return by_method


def interval(values: Sequence[float]) -> float | None:
    """Returns half of the 95 % interval of a mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5)


def _difference(first: dict[int, dict], second: dict[int, dict]) -> str | None:
    """Returns the mean of first less second on the seeds of both, and its interval."""
    values = [first[seed]['top1'] - second[seed]['top1'] for seed in sorted(first.keys() & second.keys())]
    half = interval(values)
    return None if half is None else f'{statistics.mean(values):+.2f} ± {half:.2f}'


def answers(record: dict) -> str:
    """Returns the table of top-1 in percent, mean and deviation over the seeds, by method and number of labels."""
    rows = []
    for data, (method, name) in itertools.product(DATA, ALL.items()):
        cells = {labels: list(of_cell(record, data, labels).get(method, {}).values()) for labels in LABELS}
        if any(cells.values()):
            images = statistics.mean(row['images'] for of in cells.values() for row in of)
            rows.append(
                {'images': data, 'method': name, 'through a net': f'{images / 1000:,.0f} k'}
                | {f'{labels:,} labels': _spread([row['top1'] for row in of]) for labels, of in cells.items()}
            )
    return tables.render(rows, list(rows[0]), 'markdown') if rows else ''


def winners(record: dict) -> str:
    """Returns the table of which method has the best mean in each cell, and by how much, with 95 % intervals.

    A cell has a line once `METHODS` are all there; of `SET` those count that are.
    """
    rows = []
    for data, labels in itertools.product(DATA, LABELS):
        cell = {name: of for name, of in of_cell(record, data, labels).items() if len(of) == len(SEEDS)}
        if not METHODS.keys() <= cell.keys():
            continue
        means = {name: statistics.mean(row['top1'] for row in of.values()) for name, of in cell.items()}
        best, second, *_ = sorted(means, key=lambda name: -means[name])
        half = interval([row['top1'] for row in cell[best].values()])
        rows.append(
            {
                'images': data,
                'labels': labels,
                'best': ALL[best],
                'top-1': f'{means[best]:.2f} ± {half:.2f}',
                'second': ALL[second],
                'above it': _difference(cell[best], cell[second]),
                'above labels alone, tuned': None if best == 'tuned' else _difference(cell[best], cell['tuned']),
            }
        )
    return tables.render(rows, list(rows[0]), 'markdown') if rows else ''


def _spread(values: list[float]) -> str | None:
    text = study.spread(values)
    return text if text is None or len(values) == len(SEEDS) else f'{text} ({len(values)})'


def draw(record: dict, path: Path) -> None:
    """Draws mean top-1 by the number of labels, cells with all seeds alone: a line for each method as its file has it,
    dotted, and one in its colour with the setting that labels alone are tuned to."""
    import matplotlib

    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    colors = {name: f'C{i}' for i, name in enumerate(('supervised', *SET))} | {'tuned': 'C0'}
    figure, axes = plt.subplots(1, len(DATA), figsize=(10, 3.4), constrained_layout=True)
    for axis, data in zip(axes, DATA, strict=True):
        for method, name in ALL.items():
            rows = {labels: of_cell(record, data, labels).get(method, {}).values() for labels in LABELS}
            by_labels = {labels: of for labels, of in rows.items() if len(of) == len(SEEDS)}
            means = {labels: statistics.mean(row['top1'] for row in of) for labels, of in by_labels.items()}
            if means:
                tuned = method == 'tuned' or method in SET
                color = colors.get(method) or colors[f'{method}_set']
                style = '-' if tuned else ':'
                axis.plot(list(means), list(means.values()), f'o{style}', markersize=3.5, color=color, label=name)
        axis.set(title=data, xscale='log', xlabel='labels', xlim=(80, 3750))
        axis.set_xticks(list(LABELS), [f'{labels:,}' for labels in LABELS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel('test top-1, %')
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside right center', fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(record: dict) -> str:
    """Returns the tables of a record: the answers of all methods, and which of them wins."""
    return f'{answers(record)}\n\n{winners(record)}'


def main(argv: list[str]) -> int:
    """Makes what is missing of the record, or prints its tables and draws it."""
    return study.run(argv, __doc__, OUT, fill, table, {'data': DATA, 'method': ALL}, draw)


if __name__ == '__main__':
    cli.run(main)
