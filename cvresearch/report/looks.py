"""Pictures of what inspect/ computes: overlays on photographs, contact sheets, points of an embedding.

Each function returns a Matplotlib figure, which a notebook shows and `saved` writes.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from cvresearch.base.errors import UserError, lookup
from cvresearch.base.escape import mathtext
from cvresearch.base.paths import local
from cvresearch.report import fonts
from cvresearch.report.plots import LINES, MARKERS, PALETTE, PAPER, WHEN

STYLE: Any = PAPER | {'axes.grid': False, 'savefig.bbox': None}
SIDE = 2.2  # inches of a panel
CLIPPED = 0.998  # share of a map's pixels within its colour bar
MOST_LABELS = 20  # in a legend


@dataclasses.dataclass(frozen=True)
class Panel:
    """A map over a photograph.

    Attributes:
      title: above it.
      map: float (height, width) of the photograph's size; below zero only where it speaks against the class.
      note: said in the picture, such as that nothing speaks for the class.
    """

    title: str
    map: np.ndarray
    note: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
    """A photograph and the maps of it.

    Attributes:
      photograph: uint8 (height, width, 3).
      title: above the photograph, a line for each of the likeliest classes.
      panels: beside it.
      box: (top, left, height, width) that the net saw, drawn as a frame; None for all.
    """

    photograph: np.ndarray
    title: str
    panels: Sequence[Panel]
    box: tuple[float, float, float, float] | None = None


def overlays(rows: Sequence[Row]) -> Figure:
    """Returns a sheet with a row for each photograph: itself, then its maps laid over it, each with a colour bar."""
    columns = 1 + max(len(row.panels) for row in rows)
    shapes = [row.photograph.shape for row in rows]
    heights = [SIDE * min(height / width, 2) + 0.75 for height, width, _ in shapes]  # five lines of title
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(columns * (SIDE + 0.55), sum(heights)), layout='constrained')
        grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={'height_ratios': heights})
        for axes in grid.ravel():
            axes.axis('off')
        for line, row in zip(grid, rows, strict=True):
            line[0].imshow(row.photograph)
            line[0].set_title(_lines(row.title), fontsize=6, loc='left')
            for axes, panel in zip(line[1:], row.panels, strict=False):
                _overlay(figure, axes, row, panel)
    return figure


def _overlay(figure: Figure, axes: Axes, row: Row, panel: Panel) -> None:
    grey = row.photograph.mean(-1)
    axes.imshow(grey, cmap='gray', vmin=0, vmax=255)
    largest = float(np.abs(panel.map).max())
    # Of gradients a few pixels would leave all others black.
    end = float(np.quantile(np.abs(panel.map), CLIPPED)) or largest
    if largest > 0:
        # Two hues where the sign matters, one scale of lightness where it does not.
        signed = panel.map.min() < 0
        shown = axes.imshow(
            panel.map, cmap='RdBu_r' if signed else 'inferno', alpha=0.6, vmin=-end if signed else 0, vmax=end
        )
        beyond = 'neither' if end > 0.8 * largest else 'both' if signed else 'max'
        # As high as the photograph, however wide that is.
        bar = figure.colorbar(shown, cax=axes.inset_axes((1.02, 0, 0.045, 1)), extend=beyond)
        if bar.solids is not None:
            bar.solids.set_alpha(1)
        bar.ax.tick_params(labelsize=5)
        bar.ax.yaxis.get_offset_text().set_fontsize(5)
    if row.box is not None:
        top, left, height, width = row.box
        axes.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5), width, height, fill=False, edgecolor='white', linewidth=0.6, linestyle=':'
            )
        )
    axes.set_title(_lines(panel.title), fontsize=6, loc='left')
    if panel.note:
        axes.text(
            0.5,
            0.5,
            _lines(panel.note),
            transform=axes.transAxes,
            ha='center',
            va='center',
            fontsize=6,
            color='white',
            bbox=dict(facecolor='black', alpha=0.7, linewidth=0),
        )


def contact_sheet(
    images: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    columns: int | None = None,
    shared: bool = False,
    side: float | None = None,
) -> Figure:
    """Returns a sheet of small pictures: filters, templates, feature maps, crops.

    Args:
      images: uint8 as they are; floats (height, width) in false colours, (height, width, channels) of one channel in
        grey and of three in colour. Other numbers of channels are shown channel by channel.
      titles: of the pictures, in one line or more.
      columns: pictures a row; about as many as rows if None.
      shared: one scale for all floats, from their least to their largest, rather than one for each.
      side: inches of a picture; as many as fit a page if None.
    """
    titles = list(titles) or [''] * len(images)
    if not len(images):
        raise UserError('there is no picture for the sheet')
    images, titles = _by_channel(images, titles)
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = -(-len(images) // columns)
    side = side or max(0.5, min(1.2, 9 / columns))
    ends = (min(float(i.min()) for i in images), max(float(i.max()) for i in images)) if shared else None
    with matplotlib.rc_context(STYLE):
        above = 0.06 + 0.1 * (1 + max(title.count('\n') for title in titles)) if any(titles) else 0
        figure = Figure(figsize=(columns * side + 0.1, rows * (side + above) + 0.1), layout='constrained')
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.axis('off')
        for axes, image, title in zip(grid, images, titles, strict=False):
            _show(axes, image, ends)
            axes.set_title(_lines(title), fontsize=5, pad=1)
        cast(ConstrainedLayoutEngine, figure.get_layout_engine()).set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    return figure


def _by_channel(images: Sequence[np.ndarray], titles: Sequence[str]) -> tuple[list[np.ndarray], list[str]]:
    pairs = []
    for image, title in zip(images, titles, strict=True):
        if image.ndim == 2 or image.shape[-1] in (1, 3):
            pairs.append((image, title))
        else:
            pairs += [(image[..., c : c + 1], f'{title} {c}'.strip()) for c in range(image.shape[-1])]
    return [image for image, _ in pairs], [title for _, title in pairs]


def _show(axes: Axes, image: np.ndarray, ends: tuple[float, float] | None) -> None:
    if image.dtype == np.uint8:
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap='gray', vmin=0, vmax=255)
        return
    low, high = ends or (float(image.min()), float(image.max()))
    scaled = (image - low) / (high - low if high > low else 1)
    if image.ndim == 2:
        axes.imshow(scaled, cmap='viridis', vmin=0, vmax=1, interpolation='nearest')
    else:
        axes.imshow(
            scaled.squeeze(-1) if image.shape[-1] == 1 else scaled, cmap='gray', vmin=0, vmax=1, interpolation='nearest'
        )


def points(places: np.ndarray, labels: Sequence[str] | None = None, title: str = '') -> Figure:
    """Returns the points of an embedding, (images, 2), told apart by colour and marker where they have labels."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4, 3.4), layout='constrained')
        axes = figure.subplots()
        names = list(dict.fromkeys(labels)) if labels is not None else ['']
        for i, name in enumerate(names):
            of_class = places if labels is None else places[[label == name for label in labels]]
            axes.scatter(
                *of_class.T,
                s=8,
                color=PALETTE[i % len(PALETTE)],
                marker=MARKERS[i // len(PALETTE) % len(MARKERS)],
                linewidth=0,
                label=mathtext(name),
            )
        axes.set(xticks=[], yticks=[], title=mathtext(title))
        if 1 < len(names) <= MOST_LABELS:
            axes.legend(fontsize=5, loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, names: tuple[str, str] = ('', '')
) -> Figure:
    """Returns a table of numbers from 0 to 1 as colours, such as the similarity of layers.

    Args:
      values: (rows, columns).
      rows, columns: what each is called.
      label: of the colour bar.
      names: what the rows and the columns are together, such as two nets.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 0.22 * len(columns), 1.4 + 0.2 * len(rows)), layout='constrained')
        axes = figure.subplots()
        shown = axes.imshow(values, cmap='magma', vmin=0, vmax=1)
        axes.set_xticks(range(len(columns)), [mathtext(name) for name in columns], rotation=90, fontsize=5)
        axes.set_yticks(range(len(rows)), [mathtext(name) for name in rows], fontsize=5)
        figure.colorbar(shown, ax=axes, label=label)
        axes.set_ylabel(mathtext(names[0]), fontsize=6)
        axes.set_xlabel(mathtext(names[1]), fontsize=6)
    return figure


def surface(places: np.ndarray, losses: np.ndarray, title: str = '') -> Figure:
    """Returns contours of a loss, (number, number), over places along two directions; the net is in the middle."""
    finite = losses[np.isfinite(losses)]
    low, high = float(finite.min()), float(finite.max())
    # By equal ratios where the loss spans more than a decade, or the valley would be one colour.
    far = low > 0 and high > 10 * low
    levels = np.geomspace(low, high, 25) if far else np.linspace(low, high if high > low else low + 1, 25)
    norm = LogNorm() if far else None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.0, 3.3), layout='constrained')
        axes = figure.subplots()
        shown = axes.contourf(places, places, np.ma.masked_invalid(losses.T), levels, cmap='viridis', norm=norm)
        axes.contour(places, places, np.ma.masked_invalid(losses.T), levels[::2], colors='white', linewidths=0.3)
        axes.plot(0, 0, marker='+', color='black', markersize=7)
        bar = figure.colorbar(shown, ax=axes, label='loss', ticks=levels[::6])
        bar.ax.yaxis.set_major_formatter(lambda value, _: f'{value:.3g}')
        bar.ax.minorticks_off()
        axes.set(xlabel='first direction', ylabel='second direction', title=mathtext(title), aspect='equal')
    return figure


def curves(series: dict[str, tuple[np.ndarray, np.ndarray]], xlabel: str, ylabel: str, log: bool = False) -> Figure:
    """Returns lines by name, each (x, y); with `log` on a logarithmic scale."""
    with matplotlib.rc_context({**STYLE, 'axes.grid': True}):
        figure = Figure(figsize=(3.4, 2.4), layout='constrained')
        axes = figure.subplots()
        for i, (name, (x, y)) in enumerate(series.items()):
            axes.plot(
                x,
                y,
                color=PALETTE[i % len(PALETTE)],
                linestyle=LINES[i % len(LINES)],
                label=mathtext(name),
                marker='' if len(x) > 1 else MARKERS[i % len(MARKERS)],
                markersize=3,
            )
        axes.set(xlabel=xlabel, ylabel=ylabel, yscale='log' if log else 'linear')
        axes.legend()
    return figure


def _lines(text: str) -> str:
    """Returns text that Matplotlib draws as it is, each line on its own."""
    return '\n'.join(map(mathtext, text.split('\n')))


def check(path: Path, replace: bool = False) -> None:
    """Refuses a file that cannot be written as a picture.

    Raises:
      UserError: another ending than .png, .pdf or .svg, or a file that is there already, unless it is to be replaced.
    """
    lookup('kind of picture', WHEN, path.suffix.removeprefix('.'))
    if path.exists() and not replace:
        raise UserError(f'{path} is there already and is not overwritten; remove it or choose another --out')


def saved(figure: Figure, path: str | Path, replace: bool = False) -> Path:
    """Writes a figure as PNG, PDF or SVG; equal figures give equal files.

    Raises:
      UserError: as `check`.
    """
    path = local(path, '--out')
    check(path, replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, unfinished = path.suffix.removeprefix('.'), path.with_name(f'{path.name}.tmp')
    with matplotlib.rc_context(STYLE), fonts.quiet():
        fonts.for_all(figure)
        figure.savefig(unfinished, format=kind, metadata=WHEN[kind], dpi=200)
    return unfinished.rename(path)


def check_arrays(path: Path) -> None:
    """Refuses a file that cannot be written as arrays.

    Raises:
      UserError: another ending than .npz, or a file that is there already.
    """
    if path.suffix != '.npz':
        raise UserError(f'--arrays is {str(path)!r}; expected a name that ends in .npz')
    if path.exists():
        raise UserError(f'{path} is there already and is not overwritten; choose another --arrays')


def written(options: SimpleNamespace, figure: Figure, arrays: Mapping) -> None:
    """Writes a figure to `options.out`, which is printed, and the arrays to `options.arrays` if that is given."""
    if options.arrays:
        options.arrays.parent.mkdir(parents=True, exist_ok=True)
        unfinished = options.arrays.with_name(f'{options.arrays.name}.tmp')
        with open(unfinished, 'wb') as file:
            np.savez_compressed(file, **arrays)
        unfinished.rename(options.arrays)
    print(saved(figure, options.out))
