"""Pictures for papers: colour-blind safe (Okabe & Ito 2008), told apart without colour too, one column wide.

Each function draws on an `Axes`; `saved` writes PNG, PDF or SVG, the same bytes for the same picture.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from cvresearch.base.errors import UserError, lookup

PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
LINES = ('-', '--', '-.', ':')
MARKERS = 'osD^vP*'
PAPER = {
    'font.size': 8, 'axes.titlesize': 8, 'legend.fontsize': 7, 'figure.dpi': 200, 'savefig.bbox': 'tight',
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.alpha': 0.3, 'grid.linewidth': 0.5,
    'pdf.fonttype': 42, 'svg.fonttype': 'none', 'svg.hashsalt': 'cvresearch', 'legend.frameon': False,
}  # fmt: skip
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
    path = Path(path)
    lookup('kind of picture', WHEN, path.suffix.removeprefix('.'))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f'{path.name}.tmp'), 'wb') as file:
        written(draw, file, path.suffix.removeprefix('.'), width, height)
    return path.with_name(f'{path.name}.tmp').rename(path)


def written(draw: Callable[[Axes], None], file: IO, kind: str, width: float = WIDTH, height: float = HEIGHT) -> None:
    """Draws a picture into an open file; `kind` is png, pdf or svg."""
    with pyplot.rc_context(PAPER):
        figure, axes = pyplot.subplots(figsize=(width, height))
        try:
            draw(axes)
            figure.savefig(file, format=kind, metadata=WHEN[kind])
        finally:
            pyplot.close(figure)


def balls(axes: Axes, points: Sequence[Mapping], x: str = 'macs', size: str = 'params') -> None:
    """The chart of Canziani et al. 2017 (arXiv:1605.07678, figure 2): accuracy against cost, balls as large as the net.

    Args:
      axes: to draw on.
      points: {'name', 'top1' (percent), 'family'} and the numbers that `x` and `size` name.
      x: 'macs', 'params', 'latency_ms' or 'memory_mib'.
      size: likewise.
    """
    need = [point for point in points if None not in (point.get('top1'), point.get(x), point.get(size))]
    if not need:
        raise UserError(f'no point has top1, {x} and {size}; nothing to draw')
    largest = max(point[size] for point in need)
    families = list(dict.fromkeys(point['family'] for point in need))
    for i, family in enumerate(families):
        own = [point for point in need if point['family'] == family]
        axes.scatter(
            [p[x] for p in own], [p['top1'] for p in own], s=[20 + 380 * p[size] / largest for p in own],
            color=PALETTE[i % len(PALETTE)], alpha=0.55, linewidth=0.8, edgecolor='black', zorder=2,
        )  # fmt: skip
        axes.scatter([p[x] for p in own], [p['top1'] for p in own], s=6, color='black',
                     marker=MARKERS[i % len(MARKERS)], zorder=3)  # fmt: skip
    axes.set(xscale='log', xlabel=AXES[x], ylabel='top-1 accuracy (%)')
    axes.margins(x=0.2, y=0.22)
    radii = [math.sqrt((20 + 380 * point[size] / largest) / math.pi) for point in need]  # points
    _named(axes, [(point[x], point['top1'], point['name']) for point in need], radii)
    note = f'area: {AXES[size]}, largest {_short(largest)}'
    axes.text(0.99, 0.02, note, transform=axes.transAxes, ha='right', size=6)


AXES = {
    'macs': 'multiply-adds of an image', 'params': 'parameters', 'latency_ms': 'latency of an image (ms)',
    'memory_mib': 'memory of a forward pass (MiB)',
}  # fmt: skip


def curves(
    axes: Axes, groups: Mapping[str, Sequence[Sequence[dict]]], split: str = 'test', metric: str = 'top1'
) -> None:
    """Learning curves: the mean over the seeds, the band from the lowest to the highest.

    Args:
      axes: to draw on.
      groups: by name, the rows of metrics.jsonl of each seed.
      split: whose rows.
      metric: of them.
    """
    drawn = 0
    for i, (name, seeds) in enumerate(groups.items()):
        by_epoch: dict[float, list[float]] = {}
        for rows in seeds:
            for row in rows:
                if row['split'] == split:
                    by_epoch.setdefault(row['epoch'], []).append(row[metric])
        whole = {epoch: values for epoch, values in sorted(by_epoch.items()) if len(values) == len(seeds)}
        if not whole:
            continue
        color, drawn = PALETTE[i % len(PALETTE)], drawn + 1
        axes.plot(list(whole), [statistics.mean(v) for v in whole.values()], label=name, linewidth=1.2, color=color,
                  linestyle=LINES[i % len(LINES)], marker=MARKERS[i % len(MARKERS)], markersize=2.5)  # fmt: skip
        axes.fill_between(list(whole), *zip(*((min(v), max(v)) for v in whole.values()), strict=True),
                          color=color, alpha=0.2, linewidth=0)  # fmt: skip
    if not drawn:
        raise UserError(f'no run has rows of {split} {metric}; nothing to draw')
    unit = ' (%)' if metric.startswith('top') else ''
    axes.set(xlabel='epoch', ylabel=f'{split} {metric.replace("top", "top-")}{unit}')
    axes.legend()


def schedule(axes: Axes, rates: Mapping[str, Sequence[float]], steps_per_epoch: float) -> None:
    """Learning rates over the run; restarts show as jumps.

    Args:
      axes: to draw on.
      rates: by name, the rate of every step.
      steps_per_epoch: of the run.
    """
    for i, (name, values) in enumerate(rates.items()):
        axes.plot([step / steps_per_epoch for step in range(len(values))], values, label=name, linewidth=1.2,
                  color=PALETTE[i % len(PALETTE)], linestyle=LINES[i % len(LINES)])  # fmt: skip
    axes.set(xlabel='epoch', ylabel='learning rate')
    if len(rates) > 1:
        axes.legend()


def ensemble(axes: Axes, curve: Sequence[tuple[int, float]], singles: Sequence[float] = ()) -> None:
    """The accuracy of an ensemble of the last M snapshots (Huang et al. 2017, figure 3), and of each alone.

    Args:
      axes: to draw on.
      curve: (M, top-1 in percent).
      singles: top-1 of the M-th last snapshot by itself.
    """
    axes.plot(*zip(*curve, strict=True), color=PALETTE[0], marker='o', markersize=3.5, label='ensemble of M')
    if singles:
        axes.plot(range(1, len(singles) + 1), singles, color=PALETTE[1], marker='s', markersize=3.5, linestyle='--',
                  label='snapshot M alone')  # fmt: skip
    axes.set(xlabel='snapshots M, latest first', ylabel='top-1 accuracy (%)')
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()


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
        axes.plot(range(len(columns)), heights, linewidth=2.2 if best else 0.9,
                  color=PALETTE[1] if best else cmap(0.15 + 0.85 * rank / len(known)), zorder=2 + best)  # fmt: skip
    for place, key in enumerate(columns):
        axes.plot((place, place), (0, 1), color='black', linewidth=0.6, zorder=1)
        values = [trial.get(key) for trial in known]
        ends = dict.fromkeys((_least(values), _most(values)))
        for value in ends:
            height = scales[place](value)
            axes.annotate(_short(value), (place, height), xytext=(0, 5 if height > 0.5 else -9), ha='center', size=6,
                          textcoords='offset points')  # fmt: skip
    axes.set_xticks(range(len(columns)), [key.rpartition('.')[2] if '.' in key else key for key in columns])
    axes.set(yticks=[], ylim=(-0.14, 1.12), xlim=(-0.2, len(columns) - 0.8))
    axes.grid(False)
    axes.spines[['left', 'bottom']].set_visible(False)


def _named(axes: Axes, points: Sequence[tuple[float, float, str]], radii: Sequence[float]) -> None:
    """Writes each name beside its ball, where it touches neither a ball nor another name."""
    axes.figure.canvas.draw()
    pixels = axes.figure.dpi / 72
    centres = [axes.transData.transform(point[:2]) for point in points]
    taken = [Bbox([c - r * pixels, c + r * pixels]) for c, r in zip(centres, radii, strict=True)]
    for (x, y, name), r in zip(points, radii, strict=True):
        places = [(r + 1, -2, 'left'), (-r - 1, -2, 'right'), (0, r + 2, 'center'), (0, -r - 7, 'center'),
                  (r + 1, -r - 4, 'left'), (-r - 1, r, 'right'), (r + 8, -r - 12, 'left')]  # fmt: skip
        for right, up, side in places:
            note = axes.annotate(
                name, (x, y), xytext=(right, up), textcoords='offset points', size=6, ha=side, zorder=4
            )
            box = note.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
            if (right, up, side) != places[-1]:
                note.remove()
        taken.append(box)


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


def _short(value) -> str:
    if not _numbers([value]):
        return str(value)
    for scale, letter in ((1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if abs(value) >= scale:
            return f'{value / scale:.3g}{letter}'
    return f'{value:.4g}'
