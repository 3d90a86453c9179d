"""The two moons by each method, ten seeds: python -m tests.two_moons --table FILE [--runs DIR]; docs/unlabelled.md.

Prints the table of a record. With --runs, makes that record and docs/pictures/two_moons.png anew from finished runs of
configs/two_moons.py in DIR/METHOD_seedSEED.
"""

import json
from pathlib import Path

import matplotlib
import numpy as np

from cvresearch.base import cli

matplotlib.use('agg')
METHODS = {
    'supervised': 'six labels alone',
    'pseudo_labels': 'pseudo-labels',
    'uda': 'consistency',
    'feedback': 'Meta Pseudo Labels, feedback alone',
    'meta_pseudo_labels': 'Meta Pseudo Labels',
}
DRAWN = ('supervised', 'pseudo_labels', 'meta_pseudo_labels')
SEEDS = range(10)
SEPARATED = 0.98  # of the test points: what one who sees both moons would call separated
PICTURE = Path('docs/pictures/two_moons.png')


def measured(runs: Path) -> dict:
    """Returns top-1 and revision of each run, by method and seed."""
    cards = {
        name: [json.loads((runs / f'{name}_seed{seed}' / 'run.json').read_text(encoding='utf-8')) for seed in SEEDS]
        for name in METHODS
    }
    top1 = {name: [round(card['final']['test']['top1'] / 100, 6) for card in found] for name, found in cards.items()}
    return {name: dict(top1=top1[name], revision=found[0]['revision']) for name, found in cards.items()}


def table(record: dict) -> list[str]:
    """Returns Markdown: mean, least and largest top-1 on 2,000 test points, and how many seeds separate the moons."""
    lines = ['| method | mean | least | largest | separated |', '| --- | ---: | ---: | ---: | ---: |']
    for name, label in METHODS.items():
        top1 = np.array(record[name]['top1'])
        lines.append(
            f'| {label} | {100 * top1.mean():.1f} % | {100 * top1.min():.1f} % | {100 * top1.max():.1f} % '
            f'| {int((top1 >= SEPARATED).sum())} of {len(top1)} |'
        )
    return lines


def draw(runs: Path, seed: int = 1) -> None:
    """Draws what three nets of a seed answer on the plane, the points, and the six that had labels."""
    import matplotlib.pyplot as plt

    from cvresearch.data import sources
    from cvresearch.engine.trained import TrainedRun

    source = sources.load(dict(name='two_moons', labels=6, labels_seed=seed))
    labelled, labels = source.splits['train'].take(np.arange(6))
    points = sources.load(dict(name='two_moons')).splits['train'].take(np.arange(2000))[0].reshape(-1, 2)
    grid = np.stack(np.meshgrid(np.arange(30, 226, 2), np.arange(30, 226, 2)), -1).astype(np.uint8)
    figure, axes = plt.subplots(1, len(DRAWN), figsize=(9, 3.2), constrained_layout=True)
    for axis, name in zip(axes, DRAWN, strict=True):
        run = TrainedRun.open(runs / f'{name}_seed{seed}')
        state, shown = run.checkpoint(), (grid.reshape(-1, 1, 2, 1) / 255 - source.facts.mean) / source.facts.std
        logits = run.experiment.model.apply({'params': state.params}, shown.astype(np.float32))
        answers = np.asarray(logits).argmax(-1).reshape(grid.shape[:2])
        axis.contourf(grid[..., 0], grid[..., 1], answers, levels=[-0.5, 0.5, 1.5], colors=['#cfe2f3', '#f9dcc4'])
        axis.plot(*points[::2].T, '.', color='#888888', markersize=1.5)
        for label, colour, marker in ((0, '#0b5394', 'o'), (1, '#b45f06', 's')):
            axis.plot(*labelled.reshape(-1, 2)[labels == label].T, marker, color=colour, markersize=7, mec='white')
        axis.set(title=METHODS[name], xticks=[], yticks=[], aspect='equal')
    figure.savefig(PICTURE, dpi=110)


def main(argv: list[str]) -> int:
    """Prints the table, from new runs if there are some."""
    options = cli.parse(
        argv,
        __doc__,
        required=('table',),
        places=('table', 'runs'),
        table='the record, JSON',
        runs='folder of the finished runs',
    )
    if options.runs:
        options.table.write_text(json.dumps(measured(options.runs), indent=1) + '\n', encoding='utf-8')
        draw(options.runs)
    print(*table(json.loads(options.table.read_text(encoding='utf-8'))), sep='\n')
    return 0


if __name__ == '__main__':
    cli.run(main)
