"""Where the pixels lie on which a unit of a feature map depends."""

import dataclasses
from collections.abc import Iterable, Sequence

from jax.extend import core

from cvresearch.inspect.jaxprs import opened
from cvresearch.inspect.program import Program, Step
from cvresearch.nn.conv_primitives import Window

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Field:
    """Receptive fields of the units of a map: unit i looks at `size` pixels from `start + i * jump` on.

    Attributes:
      start: (vertical, horizontal), of the first unit; negative where it looks at padding.
      size: pixels on which a unit depends.
      jump: pixels between neighbours.
    """

    start: Pair = (0, 0)
    size: Pair = (1, 1)
    jump: Pair = (1, 1)

    def window(self, extent: Sequence[int], strides: Sequence[int], padding: Sequence[int]) -> 'Field':
        """Returns the fields after a window of `extent` has moved by `strides` over a map with `padding` before it."""
        axes = list(zip(self.start, self.size, self.jump, extent, strides, padding, strict=True))
        return Field(
            _pair(start - pad * jump for start, _, jump, _, _, pad in axes),
            _pair(size + (cells - 1) * jump for _, size, jump, cells, _, _ in axes),
            _pair(jump * stride for _, _, jump, _, stride, _ in axes),
        )

    def union(self, other: 'Field') -> 'Field':
        """Returns the fields of what depends on both."""
        start = _pair(map(min, self.start, other.start))
        ends = [max(a + n, b + m) for a, n, b, m in zip(self.start, self.size, other.start, other.size, strict=True)]
        size = _pair(end - first for end, first in zip(ends, start, strict=True))
        return Field(start, size, _pair(map(max, self.jump, other.jump)))

    def box(self, row: int, column: int, image: Pair) -> tuple[int, int, int, int]:
        """Returns (top, left, height, width) of what a unit looks at, within an image (height, width)."""
        low = [s + i * j for s, i, j in zip(self.start, (row, column), self.jump, strict=True)]
        ends = [min(a + n, side) for a, n, side in zip(low, self.size, image, strict=True)]
        low = [max(a, 0) for a in low]
        return low[0], low[1], ends[0] - low[0], ends[1] - low[1]


def _pair(values: Iterable[int]) -> Pair:
    vertical, horizontal = values
    return vertical, horizontal


def field(program: Program, place: int) -> Field | None:
    """Returns the receptive fields of a map, as its windows make them; None for what is no map.

    Gates of squeeze and excitation, which depend on the whole image, are left out.
    """
    fields: dict[int, Field] = {program.images: Field()}
    for step in program.steps:
        known = [fields[x] for x in step.inputs if isinstance(x, int) and x in fields]
        if not known or len(program.shapes[step.outputs[0]]) != 4:
            continue
        joined = known[0]
        for other in known[1:]:
            joined = joined.union(other)
        for extent, strides, padding in _windows(step):
            joined = joined.window(extent, strides, padding)
        fields.update((output, joined) for output in step.outputs)
    return fields.get(place)


def _windows(step: Step):
    """Yields (extent, strides, padding before the first) of the windows that a step moves over the map."""
    parameters = step.equation.params
    window = parameters.get('window')
    if isinstance(window, Window):
        extent = tuple((k - 1) * d + 1 for k, d in zip(window.size, window.dilation, strict=True))
        yield extent, tuple(window.strides), tuple(pad[0] for pad in window.padding)
    elif step.function == 'slice' and len(parameters['start_indices']) == 4:
        strides = parameters['strides'] or (1, 1, 1, 1)
        yield (1, 1), tuple(strides[1:3]), tuple(-start for start in parameters['start_indices'][1:3])
    elif step.function == 'pad':
        yield (1, 1), (1, 1), tuple(low for low, _, _ in parameters['padding_config'][1:3])
    else:
        for equation in _pools(step.equation):
            dimensions, strides = equation.params['window_dimensions'], equation.params['window_strides']
            yield tuple(dimensions[1:3]), tuple(strides[1:3]), tuple(p[0] for p in equation.params['padding'][1:3])


def _pools(equation: core.JaxprEqn):
    """Yields the moving windows of pooling in an equation and in what it calls."""
    if equation.primitive.name.startswith('reduce_window'):
        yield equation
        return
    for value in equation.params.values():
        for body in value if isinstance(value, tuple) else (value,):
            if isinstance(body, core.Jaxpr | core.ClosedJaxpr):
                for inner in opened(body).eqns:
                    yield from _pools(inner)
