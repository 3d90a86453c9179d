"""Pictures of how a net trains, layer by layer: what layers give, their gradients, and how far updates go.

Each function returns a Matplotlib figure; `keep` writes the picture of a run.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cvresearch.base.errors import RunError, UserError
from cvresearch.base.escape import mathtext
from cvresearch.base.workdir import cannot_write
from cvresearch.inspect.training import Distribution
from cvresearch.report import looks
from cvresearch.report.plots import LINES, PALETTE

PICTURE = 'layers.png'  # in a workdir
MOST_LAYERS, MOST_STEPS = 10, 4  # columns and rows of histograms
MOST_NAMES = 12  # of lines in a legend; more lines are told apart by a colour scale of depth
STYLE = looks.STYLE | {'axes.grid': True}


def histograms(rows: Mapping[str, Mapping[str, Distribution]], what: str) -> Figure:
    """Returns histograms of layers, a column for each, evenly chosen where there are many, and a row for each moment.

    The mean and the standard deviation stand above each, and the share of units that are zero for every image.

    Args:
      rows: by a name for the moment ('step 0'), the distribution of each layer.
      what: is counted, such as 'activations'.
    """
    moments = _evenly(list(rows), MOST_STEPS)
    layers = _evenly(list(rows[moments[0]]), MOST_LAYERS)
    with matplotlib.rc_context(STYLE | {'axes.grid': False, 'axes.spines.left': False}):
        figure = Figure(figsize=(1.0 + 1.15 * len(layers), 0.3 + 1.3 * len(moments)), layout='constrained')
        grid = figure.subplots(len(moments), len(layers), squeeze=False)
        for line, moment in zip(grid, moments, strict=True):
            for axes, layer in zip(line, layers, strict=True):
                _histogram(axes, rows[moment][layer], f'{_short(layer)}\n' if moment == moments[0] else '')
            line[0].set_ylabel(mathtext(moment), fontsize=6)
        figure.supxlabel(what, fontsize=7)
    return figure


def _histogram(axes: Axes, distribution: Distribution, above: str) -> None:
    axes.stairs(
        distribution.counts / max(distribution.counts.sum(), 1), distribution.edges, fill=True, color=PALETTE[0]
    )
    phrases = [
        f'{distribution.mean:.2g} ± {distribution.std:.2g}',
        f'{distribution.dead:.0%} dead' if distribution.dead else '',
        f'{1 - distribution.finite:.0%} not finite' if distribution.finite < 1 else '',
    ]
    axes.set_title(above + '\n'.join(filter(None, phrases)), fontsize=5.5, loc='left')
    axes.set_yticks([])
    axes.tick_params(labelsize=4.5, length=2)
    axes.xaxis.get_offset_text().set_fontsize(4.5)
    axes.xaxis.set_major_locator(MaxNLocator(3))


def over_run(rows: Sequence[Mapping]) -> Figure:
    """Returns four panels over the steps of a run: sizes of activations and of gradients, dead units, update ratios.

    Args:
      rows: of the records, as a watched run writes them.
    """
    steps = [row['step'] for row in rows]
    panels = [
        ('standard deviation of activations', _series(rows, 'activations', 'std'), 'log'),
        ('standard deviation of gradients', _series(rows, 'gradients', 'std'), 'log'),
        ('dead units (share)', _series(rows, 'activations', 'dead'), 'linear'),
        ('update / weight (norms)', _ratios(rows), 'log'),
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.6), layout='constrained')
        for axes, (title, series, scale) in zip(figure.subplots(2, 2).ravel(), panels, strict=True):
            _lines(figure, axes, steps, series)
            axes.set(xlabel='step', title=title)
            axes.set_xlim(steps[0] - 0.03 * (steps[-1] or 1), 1.03 * (steps[-1] or 1))
            axes.xaxis.get_major_locator().set_params(integer=True)
            drawn = [y for line in series.values() for y in line if y and y > 0]
            axes.set_yscale(scale if drawn else 'linear')
            if scale == 'linear':
                axes.set_ylim(-0.03, 1.03)
            if title.startswith('update'):
                axes.axhline(1e-3, color='black', linewidth=0.6, linestyle=':')  # what is usual
    return figure


def _lines(figure: Figure, axes: Axes, steps: Sequence[int], series: Mapping[str, Sequence]) -> None:
    many, names = len(series) > MOST_NAMES, list(series)
    scale = matplotlib.colormaps['viridis']
    for i, (name, values) in enumerate(series.items()):
        pairs = [(x, math.nan if y is None else y) for x, y in zip(steps, values, strict=True)]
        color = scale(i / max(len(names) - 1, 1)) if many else PALETTE[i % len(PALETTE)]
        axes.plot(
            *zip(*pairs, strict=True),
            color=color,
            linewidth=1,
            label=_short(name),
            linestyle='-' if many else LINES[i // len(PALETTE) % len(LINES)],
            marker='o' if sum(math.isfinite(y) for _, y in pairs) == 1 else '',
            markersize=2,
        )
    if many:
        shown = ScalarMappable(Normalize(0, 1), scale)
        bar = figure.colorbar(shown, ax=axes, ticks=[0, 1], fraction=0.05, pad=0.02)
        bar.ax.set_yticklabels(['first', 'last'], fontsize=5)
    elif names:
        axes.legend(fontsize=5, loc='upper left', bbox_to_anchor=(1, 1), handlelength=1.5)


def _series(rows: Sequence[Mapping], what: str, key: str) -> dict[str, list]:
    return {layer: [row[what].get(layer, {}).get(key) for row in rows] for layer in rows[0][what]}


def _ratios(rows: Sequence[Mapping]) -> dict[str, list]:
    """Returns the ratios of kernels and embeddings: what begins at zero, as biases do, has none that means anything."""
    known = [path for path in rows[0].get('update_ratio', {}) if path.endswith('kernel')]
    return {path.removesuffix('/kernel'): [row.get('update_ratio', {}).get(path) for row in rows] for path in known}


def keep(rows: Sequence[Mapping], workdir: Path) -> Path:
    """Writes the picture of a run so far into its folder, in place of the one before.

    Raises:
      RunError: the disk is full or cannot be written.
    """
    try:
        return looks.saved(over_run(rows), workdir / PICTURE, replace=True)
    except OSError as error:
        raise cannot_write(workdir / PICTURE, error, RunError) from error


def distributions(rows: Sequence[Mapping], what: str) -> dict[str, dict[str, Distribution]]:
    """Returns the distributions of a run's rows, by step and layer; `what` is 'activations' or 'gradients'.

    Raises:
      UserError: no row has any.
    """
    by_step = {
        f'step {row["step"]:,}': {layer: Distribution.from_record(record) for layer, record in row[what].items()}
        for row in rows
    }
    if not by_step:
        raise UserError('nothing was watched in this run; train with --config.watch.name=layers')
    return by_step


def _evenly(items: list, most: int) -> list:
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def _short(name: str) -> str:
    text = name if len(name) <= 20 else f'…{name[-19:]}'
    return mathtext(text)
