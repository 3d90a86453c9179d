"""Pictures for papers: colour-blind safe (Okabe & Ito 2008), told apart without colour too, one column wide.

Each function draws on an `Axes`; `saved` writes PNG, PDF or SVG, the same bytes for the same picture.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import matplotlib
from matplotlib.ticker import MaxNLocator

matplotlib.use('Agg')
from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.legend import Legend

from cvresearch.base.errors import UserError, lookup
from cvresearch.base.escape import mathtext
from cvresearch.base.paths import local
from cvresearch.report import fonts

PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
LINES = ('-', '--', '-.', ':')
MARKERS = 'osD^vP*'
PAPER: Any = {
    'font.size': 8,
    'axes.titlesize': 8,
    'legend.fontsize': 7,
    'figure.dpi': 200,
    'savefig.bbox': 'tight',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.alpha': 0.3,
    'grid.linewidth': 0.5,
    'pdf.fonttype': 42,
    'svg.fonttype': 'none',
    'svg.hashsalt': 'cvresearch',
    'legend.frameon': False,
}
WIDTH, HEIGHT = 3.4, 2.4  # inches: a column of a two-column paper
# No date: equal pictures are equal files.
WHEN = {'png': {}, 'pdf': {'CreationDate': None}, 'svg': {'Date': None}}


def saved(draw: Callable[[Axes], None], path: str | Path, width: float = WIDTH, height: float = HEIGHT) -> Path:
    """Draws a picture and writes it.

    Args:
      draw: puts it on the axes it is given.
      path: its end says what is written: .png, .pdf or .svg.
      width, height: inches.

    Raises:
      UserError: another ending.
    """
    path = local(path, '--out')
    lookup('kind of picture', WHEN, path.suffix.removeprefix('.'))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f'{path.name}.tmp'), 'wb') as file:
        written(draw, file, path.suffix.removeprefix('.'), width, height)
    return path.with_name(f'{path.name}.tmp').rename(path)


def written(draw: Callable[[Axes], None], file: IO, kind: str, width: float = WIDTH, height: float = HEIGHT) -> None:
    """Draws a picture into an open file; `kind` is png, pdf or svg."""
    with pyplot.rc_context(PAPER), fonts.quiet():
        figure, axes = pyplot.subplots(figsize=(width, height))
        try:
            draw(axes)
            fonts.for_all(figure)
            figure.savefig(file, format=kind, metadata=WHEN[kind])
        finally:
            pyplot.close(figure)


def curves(
    axes: Axes,
    groups: Mapping[str, Sequence[Sequence[dict]]],
    split: str = 'test',
    metric: str = 'top1',
    highest: float | None = None,
) -> None:
    """Learning curves: the mean over the seeds or folds, the band from the lowest to the highest.

    Where a run averages its weights, the curve is the average's. The first evaluations of all runs are one point, and
    so on: in folds of unequal size they are not at the same epoch.

    Args:
      axes: to draw on.
      groups: by name, the rows of metrics.jsonl of each seed.
      split: whose rows.
      metric: of them.
      highest: the vertical axis goes from 0 to it, and what is above is not seen. If None, it holds everything.
    """
    drawn: dict[str, Artist] = {}
    for i, (name, seeds) in enumerate(groups.items()):
        by_epoch = [{row['epoch']: row for row in rows if row['split'] == split} for rows in seeds]
        complete = {}
        for together in zip(*(of_run.values() for of_run in by_epoch), strict=False):
            if values := [row[metric] for row in together if metric in row]:  # none where all batches were skipped
                complete[statistics.mean(row['epoch'] for row in together)] = values
        if not complete:
            continue
        color = PALETTE[i % len(PALETTE)]
        (drawn[name],) = axes.plot(
            list(complete),
            [statistics.mean(v) for v in complete.values()],
            linewidth=1.2,
            color=color,
            linestyle=LINES[i % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=2.5,
        )
        axes.fill_between(
            list(complete),
            [min(v) for v in complete.values()],
            [max(v) for v in complete.values()],
            color=color,
            alpha=0.2,
            linewidth=0,
        )
    if not drawn:
        raise UserError(f'no run has rows of {split} {metric}; nothing to draw')
    unit = ' (%)' if metric.startswith(('top', 'mAP')) else ''
    axes.set(xlabel='epoch', ylabel=mathtext(f'{split} {metric.replace("top", "top-")}{unit}'))
    if highest is not None:
        axes.set_ylim(0, highest)
    legend(axes, drawn, **(dict(loc='center left', bbox_to_anchor=(1.0, 0.5)) if len(drawn) > 4 else {}))


def schedule(axes: Axes, rates: Mapping[str, Sequence[float]], steps_per_epoch: float) -> None:
    """Learning rates over the run; restarts show as jumps.

    Args:
      axes: to draw on.
      rates: by name, the rate of every step.
      steps_per_epoch: of the run.
    """
    drawn = {}
    for i, (name, values) in enumerate(rates.items()):
        (drawn[name],) = axes.plot(
            [step / steps_per_epoch for step in range(len(values))],
            values,
            linewidth=1.2,
            color=PALETTE[i % len(PALETTE)],
            linestyle=LINES[i % len(LINES)],
        )
    axes.set(xlabel='epoch', ylabel='learning rate')
    if len(rates) > 1:
        legend(axes, drawn)


def legend(axes: Axes, drawn: Mapping[str, Artist], **how) -> Legend:
    """Names what was drawn. Matplotlib itself would leave out names that begin with an underscore."""
    drawn_legend = axes.legend(list(drawn.values()), [str(i) for i in range(len(drawn))], **how)
    for text, name in zip(drawn_legend.get_texts(), drawn, strict=True):
        text.set_text(mathtext(name))
    return drawn_legend


def ensemble(axes: Axes, curve: Sequence[tuple[int, float]], singles: Sequence[float] = ()) -> None:
    """The accuracy of an ensemble of the last M snapshots (Huang et al. 2017, figure 3), and of each alone.

    Args:
      axes: to draw on.
      curve: (M, top-1 in percent).
      singles: top-1 of the M-th last snapshot by itself.
    """
    axes.plot(*zip(*curve, strict=True), color=PALETTE[0], marker='o', markersize=3.5, label='ensemble of M')
    if singles:
        axes.plot(
            range(1, len(singles) + 1),
            singles,
            color=PALETTE[1],
            marker='s',
            markersize=3.5,
            linestyle='--',
            label='snapshot M alone',
        )
    axes.set(xlabel='snapshots M, latest first', ylabel='top-1 accuracy (%)')
    cast(MaxNLocator, axes.xaxis.get_major_locator()).set_params(integer=True)
    axes.legend()


def sensitivity(axes: Axes, record: Mapping) -> None:
    """Top-1 over the share of one layer's weights that was dropped, a line for each layer.

    Args:
      axes: to draw on.
      record: as `cvresearch compress sensitivity` writes it.
    """
    drawn = {}
    for i, (layer, values) in enumerate(zip(record['layers'], record['top1'], strict=True)):
        (drawn[layer],) = axes.plot(
            [0, *(100 * share for share in record['shares'])],
            [record['whole'], *values],
            linewidth=1.2,
            color=PALETTE[i % len(PALETTE)],
            linestyle=LINES[i // len(PALETTE) % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=2.5,
        )
    axes.set(xlabel='weights of the layer dropped (%)', ylabel='top-1 (%)')
    legend(axes, drawn, ncols=1 + len(drawn) // 12)


def study(axes: Axes, rows: Sequence[tuple[str, float | None, float | None, float | None]], metric: str) -> None:
    """Settings of a study under one another: training and test, with the interval of the test over seeds.

    Args:
      axes: to draw on.
      rows: (setting, training, test, half of the test's interval); None where there is no run, or one alone.
      metric: of both, as a person reads it.
    """
    places = range(len(rows), 0, -1)
    drawn: dict[str, Artist] = {}
    for name, column, color, marker in (('training', 1, PALETTE[1], 's'), ('test', 2, PALETTE[0], 'o')):
        known = [(row[column], place) for row, place in zip(rows, places, strict=True) if row[column] is not None]
        if known:
            (drawn[name],) = axes.plot(*zip(*known, strict=True), marker, color=color, markersize=3.5)
    if not drawn:
        raise UserError('no setting of the study has a run; nothing to draw')
    for (_, _, test, half), place in zip(rows, places, strict=True):
        if test is not None and half is not None:
            axes.plot((test - half, test + half), (place, place), color=PALETTE[0], linewidth=1.2)
    axes.set_yticks(list(places), [mathtext(row[0]) for row in rows])
    axes.set(xlabel=mathtext(metric), ylim=(0.5, len(rows) + 0.5))
    legend(axes, drawn, loc='lower center', bbox_to_anchor=(0.5, 1.0), ncols=2)


def shifts(axes: Axes, records: Sequence[Mapping]) -> None:
    """Top-1 by the shift of the images along both axes, a map for each net beside the others.

    Args:
      axes: to draw on.
      records: as `cvresearch evaluate shifts` prints them; of one reach.
    """
    reach = max(records[0]['places'])
    step = records[0]['places'][1] - records[0]['places'][0]
    wide, maps = 2 * reach + step, []
    for i, record in enumerate(records):
        centre = i * wide * 1.15
        grid = axes.imshow(
            record['grid'], vmin=0, vmax=100, cmap='cividis', origin='upper',
            extent=(centre - wide / 2, centre + wide / 2, wide / 2, -wide / 2),
        )  # fmt: skip
        maps.append(grid)
        name = mathtext(f'{record["model"]}, seed {record["seed"]}')
        axes.text(centre, -wide / 2 - step / 4, name, ha='center', va='bottom', size=7)
    axes.set(
        xlim=(-wide / 2, (len(records) - 1) * wide * 1.15 + wide / 2), ylim=(wide / 2, -wide / 2),
        xlabel='shift to the right (pixels)', ylabel='shift down (pixels)',
    )  # fmt: skip
    middles = [(i * wide * 1.15 + place, place) for i in range(len(records)) for place in (-reach, 0, reach)]
    axes.set_xticks([place for place, _ in middles], [str(label) for _, label in middles])
    axes.set_yticks((-reach, 0, reach))
    axes.grid(False)
    axes.figure.colorbar(maps[0], ax=axes, label='top-1 (%)', shrink=0.7)


def by_layer(axes: Axes, lines: Mapping[str, Sequence[float | None]], what: str) -> None:
    """Standard deviations by layer, in logarithms; what is zero or not finite is not drawn.

    Args:
      axes: to draw on.
      lines: by name, a deviation for each layer.
      what: has these deviations.
    """
    drawn = {}
    for i, (name, values) in enumerate(lines.items()):
        heights = [value if value else math.nan for value in values]
        (drawn[name],) = axes.plot(
            range(1, len(values) + 1), heights, linewidth=1.2, color=PALETTE[i % len(PALETTE)],
            linestyle=LINES[i // len(PALETTE) % len(LINES)], marker=MARKERS[i % len(MARKERS)], markersize=2.5,
        )  # fmt: skip
    axes.set(xlabel='layer', ylabel=f'standard deviation of {what}', yscale='log')
    cast(MaxNLocator, axes.xaxis.get_major_locator()).set_params(integer=True)
    legend(axes, drawn, loc='center left', bbox_to_anchor=(1.0, 0.5))


def parallel(axes: Axes, trials: Sequence[Mapping], keys: Sequence[str], metric: str = 'top1') -> None:
    """Parallel coordinates of a search: one line a trial, darker the better; the best is drawn last and thick.

    Args:
      axes: to draw on.
      trials: the values of `keys`, and the metric where it has one.
      keys: the settings that were searched.
      metric: the last axis.
    """
    known = sorted((t for t in trials if t.get(metric) is not None), key=lambda t: t[metric])
    if not known:
        raise UserError(f'no trial has a {metric}; nothing to draw')
    columns = [*keys, metric]
    scales = [_scale([trial.get(key) for trial in known]) for key in columns]
    cmap = matplotlib.colormaps['cividis_r']
    for rank, trial in enumerate(known):
        best = rank == len(known) - 1
        heights = [scale(trial.get(key)) for scale, key in zip(scales, columns, strict=True)]
        axes.plot(
            range(len(columns)),
            heights,
            linewidth=2.2 if best else 0.9,
            color=PALETTE[1] if best else cmap(0.15 + 0.85 * rank / len(known)),
            zorder=2 + best,
        )
    for place, key in enumerate(columns):
        axes.plot((place, place), (0, 1), color='black', linewidth=0.6, zorder=1)
        values = [trial.get(key) for trial in known]
        ends = dict.fromkeys((_least(values), _most(values)))
        for value in ends:
            height = scales[place](value)
            axes.annotate(
                mathtext(short(value)),
                (place, height),
                xytext=(0, 5 if height > 0.5 else -9),
                ha='center',
                size=6,
                textcoords='offset points',
            )
    axes.set_xticks(range(len(columns)), [mathtext(key.rpartition('.')[2]) for key in columns])
    axes.set(yticks=[], ylim=(-0.14, 1.12), xlim=(-0.2, len(columns) - 0.8))
    axes.grid(False)
    axes.spines[['left', 'bottom']].set_visible(False)


def _numbers(values: Sequence) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _least(values: Sequence):
    return min(values) if _numbers(values) else sorted(map(str, values))[0]


def _most(values: Sequence):
    return max(values) if _numbers(values) else sorted(map(str, values))[-1]


def _scale(values: Sequence) -> Callable[[object], float]:
    """Returns a map to [0, 1]: logarithmic for positive numbers over more than a decade, by rank for words."""
    if not _numbers(values):
        order = sorted(set(map(str, values)))
        return lambda value: order.index(str(value)) / max(len(order) - 1, 1)
    low, high = min(values), max(values)
    if low == high:
        return lambda value: 0.5
    if low > 0 and high / low > 10:
        return lambda value: math.log(value / low) / math.log(high / low)
    return lambda value: (value - low) / (high - low)


def short(value) -> str:
    """Returns a number in four digits or fewer, '25.6 M'; anything else as it is."""
    if not _numbers([value]):
        return str(value)
    for scale, letter in ((1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if abs(value) >= scale:
            return f'{value / scale:.3g}{letter}'
    return f'{value:.4g}'
