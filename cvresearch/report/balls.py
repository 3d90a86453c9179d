"""Ball charts: accuracy against cost, balls as large as the net; published figures and runs told apart."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cvresearch.base.errors import UserError
from cvresearch.base.escape import mathtext
from cvresearch.report.plots import MARKERS, PALETTE, legend, short

AXES = {
    'macs': 'multiply-adds of an image',
    'params': 'parameters',
    'latency_ms': 'latency of an image (ms)',
    'memory_mib': 'memory of a forward pass (MiB)',
}
SHAPES = 'osD^vP'  # of a series; the first is the circle
GAPS = (1, 7, 14, 24)  # points between a ball and its name
SIZE = 6  # points of the names
FAR = 4  # points from which on a line leads to the name


def draw(axes: Axes, points: Sequence[Mapping], x: str = 'macs', size: str = 'params') -> None:
    """The chart of Canziani et al. 2017 (arXiv:1605.07678, figure 2): accuracy against cost, balls as large as the net.

    Args:
      axes: to draw on.
      points: {'name', 'top1' (percent), 'family'}, the numbers that `x` and `size` name, and 'series', 'published' or
        'ours', where there are several: each has a shape and a line in the legend.
      x: 'macs', 'params', 'latency_ms' or 'memory_mib'.
      size: likewise.

    Raises:
      UserError: no point has all of them.
    """
    need = [point for point in points if None not in (point.get('top1'), point.get(x), point.get(size))]
    if not need:
        raise UserError(f'no point has top1, {x} and {size}; nothing to draw')
    largest = max(point[size] for point in need)
    families = list(dict.fromkeys(point['family'] for point in need))
    series = list(dict.fromkeys(point.get('series', '') for point in need))
    areas = [20 + 380 * point[size] / largest for point in need]
    for point, area in zip(need, areas, strict=True):
        shape, i = SHAPES[series.index(point.get('series', '')) % len(SHAPES)], families.index(point['family'])
        axes.scatter(
            point[x],
            point['top1'],
            s=area,
            marker=shape,
            color=PALETTE[i % len(PALETTE)],
            alpha=0.55,
            linewidth=0.8,
            edgecolor='black',
            zorder=2,
        )
        axes.scatter(point[x], point['top1'], s=6, color='black', marker=MARKERS[i % len(MARKERS)], zorder=3)
    axes.set(xscale='log', xlabel=AXES[x], ylabel='top-1 accuracy (%)')
    axes.margins(x=0.2, y=0.22)
    if len(series) > 1:
        _legend(axes, series)
    note = axes.text(
        0.99, 0.02, f'area: {AXES[size]}, largest {short(largest)}', transform=axes.transAxes, ha='right', size=SIZE
    )
    radii = [math.sqrt(area / math.pi) for area in areas]  # points
    _name(axes, [(point[x], point['top1'], point['name']) for point in need], radii, note)


def _legend(axes: Axes, series: Sequence[str]) -> None:
    """Puts the legend above the axes, and the axes' top below it."""
    outline: dict[str, Any] = dict(s=24, color='white', linewidth=0.8, edgecolor='black')
    drawn = {name: axes.scatter([], [], marker=SHAPES[i % len(SHAPES)], **outline) for i, name in enumerate(series)}
    drawn_legend = legend(axes, drawn, loc='lower left', bbox_to_anchor=(0, 1), borderaxespad=0.2, handletextpad=0.2)
    axes.figure.canvas.draw()
    height = drawn_legend.get_window_extent().height / axes.figure.bbox.height
    axes.figure.subplots_adjust(top=0.98 - height)


def _name(axes: Axes, points: Sequence[tuple[float, float, str]], radii: Sequence[float], note: Text) -> None:
    """Writes each name beside its ball and inside the axes, where it covers least of balls and other names."""
    axes.figure.canvas.draw()
    pixels, frame = axes.figure.dpi / 72, axes.get_window_extent()
    centres = [axes.transData.transform(point[:2]) for point in points]
    covered = [Bbox([c - r * pixels, c + r * pixels]) for c, r in zip(centres, radii, strict=True)]
    names = [note.get_window_extent()]
    for (_, _, name), centre, radius in zip(points, centres, radii, strict=True):
        text = axes.text(0, 0, mathtext(name), transform=axes.transAxes, size=SIZE, zorder=4, va='bottom')
        box = _fitted(text, name, 0.96 * frame.width)
        places = [_inside(place, frame) for place in _places(centre, radius, pixels, box)]
        # The first of equals. On another name neither could be read.
        best = min(places, key=lambda place: _shared(place, covered) + 5 * _shared(place, names))
        # In parts of the axes: the figure may be written with other pixels.
        left, bottom = axes.transAxes.inverted().transform(best.p0)
        text.set_position((left, bottom))
        names.append(best.padded(pixels))
        _lead(axes, centre, radius * pixels, best)


def _lead(axes: Axes, centre: Sequence[float] | np.ndarray, radius: float, box: Bbox) -> None:
    """Draws a hairline from a ball to a name that stands away from it."""
    near = [min(max(centre[0], box.x0), box.x1), min(max(centre[1], box.y0), box.y1)]
    if math.dist(near, centre) > 1.2 * radius + FAR * axes.figure.dpi / 72:
        ends = axes.transAxes.inverted().transform(np.array([centre, near]))
        axes.plot(*ends.T, transform=axes.transAxes, color='black', linewidth=0.4, zorder=3)


def _fitted(text: Text, name: str, width: float) -> Bbox:
    """Shortens a name until it fits the axes; returns the box that it takes."""
    while (box := text.get_window_extent()).width > width and len(name) > 1:
        name = name[: min(len(name) - 1, int(len(name) * width / box.width))]
        text.set_text(mathtext(f'{name}…'))
    return box


def _places(centre: Sequence[float] | np.ndarray, radius: float, pixels: float, box: Bbox) -> list[Bbox]:
    """Returns where the name of a ball may stand: near first; right, left, above, below, then the corners."""
    boxes = []
    for gap in GAPS:
        away, x, y = (radius + gap) * pixels, centre[0], centre[1]
        slant = 0.75 * away
        corners = [
            (x + away, y - box.height / 2),
            (x - away - box.width, y - box.height / 2),
            (x - box.width / 2, y + away),
            (x - box.width / 2, y - away - box.height),
            (x + slant, y - slant - box.height),
            (x - slant - box.width, y + slant),
            (x + slant, y + slant),
            (x - slant - box.width, y - slant - box.height),
        ]
        boxes += [Bbox.from_bounds(left, bottom, box.width, box.height) for left, bottom in corners]
    return boxes


def _inside(box: Bbox, frame: Bbox) -> Bbox:
    left = min(max(box.x0, frame.x0), frame.x1 - box.width)
    bottom = min(max(box.y0, frame.y0), frame.y1 - box.height)
    return Bbox.from_bounds(left, bottom, box.width, box.height)


def _shared(box: Bbox, others: Sequence[Bbox]) -> float:
    """Returns how much of other boxes a box covers, square pixels."""
    common = [both for other in others if (both := Bbox.intersection(box, other))]
    return sum(both.width * both.height for both in common)
