"""How the JAX primitives that only move numbers are written in ONNX: shapes, parts, indexing. See `onnx_primitives`."""

import itertools

import jax
import numpy as np
from jax import lax

from cvresearch.base.errors import UserError
from cvresearch.interop.onnx_graph import Graph, Layout, Tensor, channels_first, natural


def unsupported(graph: Graph, what: str) -> UserError:
    """Returns the error for an operation that has no rule here."""
    return UserError(f'cannot write {graph.scope or "the net"} as ONNX: {what} has no rule in interop/onnx_primitives')


def layout_of(operands, rank: int) -> Layout:
    """Returns the layout in which operands meet: the first that is not the traced program's own."""
    layouts = [x.layout for x in operands if isinstance(x, Tensor) and len(x.shape) == rank]
    return next((layout for layout in layouts if layout != natural(rank)), natural(rank))


def pads_of(padding) -> list[int]:
    """Returns padding as ONNX has it, all beginnings, then all ends."""
    return [int(low) for low, _ in padding] + [int(high) for _, high in padding]


def reshape(graph: Graph, equation, x: Tensor):
    """Writes a change of shape."""
    return _to_shape(graph, x, equation.outvars[0].aval)


def _to_shape(graph: Graph, x: Tensor, result) -> Tensor:
    before, after = x.shape, tuple(result.shape)
    if len(before) > 3 and len(after) > 3 and before[:3] == after[:3]:  # the channels alone, as in a channel shuffle
        name = graph.arranged(x, channels_first(len(before)))
        layout = channels_first(len(after))
        return graph.tensor(graph.reshaped(name, [after[axis] for axis in layout]), result, layout)
    extended = [axis for axis in x.layout if before[axis] != 1]
    name = graph.arranged(x, x.layout if extended == sorted(extended) else natural(len(before)))
    return graph.tensor(graph.reshaped(name, after), result)


def broadcast(graph: Graph, equation, x):
    """Writes an array repeated along new or longer axes."""
    result, places = equation.outvars[0].aval, equation.params['broadcast_dimensions']
    shape = [1] * len(result.shape)
    for axis, place in enumerate(places):
        shape[place] = x.shape[axis]
    if isinstance(x, Tensor):
        layout, name = _placed(graph, x, places, shape)
    else:
        layout, name = natural(len(shape)), graph.constant(np.asarray(x).reshape(shape))
    if tuple(shape) != tuple(result.shape):
        # Sizes that stay are 1 here: Expand keeps the larger, and the batch need not be known.
        grown = [1 if before == after else after for before, after in zip(shape, result.shape, strict=True)]
        name = graph.node('Expand', [name, graph.sizes([grown[axis] for axis in layout])])
    return graph.tensor(name, result, layout)


def _placed(graph: Graph, x: Tensor, places, shape: list) -> tuple[Layout, str]:
    """Returns the layout and the name of a tensor whose axes are put at places among axes of size 1."""
    for layout in (channels_first(len(shape)) if len(shape) > 2 else natural(len(shape)), natural(len(shape))):
        order = [layout.index(places[axis]) for axis in x.layout]
        if order == sorted(order):
            name = graph.arranged(x, x.layout)
            break
    else:
        name = graph.arranged(x)
    if len(shape) == len(x.shape):
        return layout, name
    return layout, graph.reshaped(name, [shape[axis] for axis in layout])


def transpose(graph: Graph, equation, x: Tensor):
    """Writes an order of axes."""
    order = equation.params['permutation']
    name = graph.arranged(x, x.layout)
    return graph.tensor(name, equation.outvars[0].aval, [order.index(axis) for axis in x.layout])


def concatenate(graph: Graph, equation, *operands):
    """Writes arrays joined along an axis."""
    result = equation.outvars[0].aval
    layout = layout_of(operands, result.ndim)
    names = [graph.operand(x, layout) for x in operands]
    return graph.tensor(graph.node('Concat', names, axis=layout.index(equation.params['dimension'])), result, layout)


def stack(graph: Graph, equation, *operands):
    """Writes arrays joined along a new axis."""
    result, axis = equation.outvars[0].aval, equation.params['axis']
    shape = [*result.shape[:axis], 1, *result.shape[axis + 1 :]]
    names = [graph.reshaped(graph.operand(x, natural(len(x.shape))), shape) for x in operands]
    return graph.tensor(names[0] if len(names) == 1 else graph.node('Concat', names, axis=axis), result)


def split(graph: Graph, equation, x: Tensor):
    """Writes the parts of an array along an axis."""
    sizes, axis = equation.params['sizes'], x.layout.index(equation.params['axis'])
    names = graph.parts('Split', [graph.arranged(x, x.layout), graph.integers(sizes)], len(sizes), axis=axis)
    return [graph.tensor(name, v.aval, x.layout) for name, v in zip(names, equation.outvars, strict=True)]


def pad(graph: Graph, equation, x, value):
    """Writes an array with a margin of one value."""
    result, config = equation.outvars[0].aval, equation.params['padding_config']
    if any(inner for *_, inner in config) or isinstance(value, Tensor) or not isinstance(x, Tensor):
        raise unsupported(graph, 'padding between elements')
    pads = pads_of([config[axis][:2] for axis in x.layout])  # negative ones crop, in both
    inputs = [graph.arranged(x, x.layout), graph.integers(pads), graph.constant(np.asarray(value))]
    return graph.tensor(graph.node('Pad', inputs), result, x.layout)


def _sliced(graph: Graph, x: Tensor, result, starts, stops, steps) -> Tensor:
    """Returns a part of a tensor; along the batch, all of it."""
    axes = [axis for axis, (before, after) in enumerate(zip(x.shape, result.shape, strict=True)) if before != after]
    if not axes:
        return x
    values = [[row[axis] for axis in axes] for row in (starts, stops)]
    where, by = [x.layout.index(axis) for axis in axes], [steps[axis] for axis in axes]
    inputs = [graph.arranged(x, x.layout), *map(graph.integers, (*values, where, by))]
    return graph.tensor(graph.node('Slice', inputs), result, x.layout)


def slice(graph: Graph, equation, x: Tensor):
    """Writes a part of an array between fixed places."""
    parameters = equation.params
    steps = parameters['strides'] or (1,) * len(x.shape)
    return _sliced(graph, x, equation.outvars[0].aval, parameters['start_indices'], parameters['limit_indices'], steps)


def dynamic_slice(graph: Graph, equation, x, *starts):
    """Writes a part of an array from a place that is computed."""
    sizes = equation.params['slice_sizes']
    if not isinstance(x, Tensor) or any(isinstance(start, Tensor) for start in starts):
        raise unsupported(graph, 'a slice that depends on the image')
    rows = list(zip(starts, sizes, x.shape, strict=True))
    starts = [0 if size == length else min(max(int(start), 0), length - size) for start, size, length in rows]
    stops = [start if size == length else start + size for start, (_, size, length) in zip(starts, rows, strict=True)]
    return _sliced(graph, x, equation.outvars[0].aval, starts, stops, (1,) * len(sizes))


def gather(graph: Graph, equation, x, indices):
    """Writes the two kinds that indexing by constants makes: one window, or a grid of single places."""
    numbers, sizes = equation.params['dimension_numbers'], equation.params['slice_sizes']
    result = equation.outvars[0].aval
    if not isinstance(x, Tensor) or isinstance(indices, Tensor) or numbers.operand_batching_dims:
        raise unsupported(graph, 'an index that depends on the image')
    indices = np.asarray(indices)
    mapped = numbers.start_index_map
    rows = indices.reshape(-1, len(mapped))
    limits = [x.shape[axis] - sizes[axis] if sizes[axis] != x.shape[axis] else 0 for axis in mapped]
    if (rows < 0).any() or (rows > np.asarray(limits, np.int64)).any():
        if equation.params['mode'] != lax.GatherScatterMode.CLIP:
            raise unsupported(graph, 'an index outside the array')
        rows = np.clip(rows, 0, np.asarray(limits, np.int64))
    if indices.ndim == 1:
        starts = [0] * len(x.shape)
        for axis, start in zip(mapped, rows[0], strict=True):
            starts[axis] = int(start)
        window = jax.ShapeDtypeStruct(sizes, result.dtype)
        stops = [s + n if n != length else s for s, n, length in zip(starts, sizes, x.shape, strict=True)]
        part = _sliced(graph, x, window, starts, stops, (1,) * len(sizes))
        return _to_shape(graph, part, result) if numbers.collapsed_slice_dims else part
    return _grid(graph, x, rows.reshape(indices.shape), numbers, sizes, result)


def _grid(graph: Graph, x: Tensor, indices: np.ndarray, numbers, sizes, result) -> Tensor:
    """Writes indexing of some axes by a grid of places: an axis at a time, each by its own row of places."""
    mapped, dims = numbers.start_index_map, indices.ndim - 1
    complete = all(size == n for axis, (size, n) in enumerate(zip(sizes, x.shape, strict=True)) if axis not in mapped)
    if not complete or set(numbers.collapsed_slice_dims) != set(mapped) or dims != len(mapped):
        raise unsupported(graph, 'indexing by windows')
    free = [place for place in range(result.ndim) if place not in numbers.offset_dims]
    target, shape = {}, list(x.shape)
    for column, axis in enumerate(mapped):
        places = indices[..., column]
        changing = [dim for dim in range(dims) if (places != places.take([0], dim)).any()] or [column]
        row = np.moveaxis(places, changing[0], 0).reshape(places.shape[changing[0]], -1)
        if len(changing) > 1 or free[changing[0]] in target.values():
            raise unsupported(graph, 'indexing by places that form no grid')
        target[axis] = free[changing[0]]
        shape[axis] = len(row)
        x = _taken(graph, x, row[:, 0], axis, jax.ShapeDtypeStruct(tuple(shape), result.dtype))
    kept = [axis for axis in range(len(x.shape)) if axis not in mapped]
    target |= dict(zip(kept, numbers.offset_dims, strict=True))
    return graph.tensor(graph.arranged(x, x.layout), result, [target[axis] for axis in x.layout])


def _taken(graph: Graph, x: Tensor, places, axis: int, result) -> Tensor:
    """Returns a tensor with only some places of an axis; a slice where they are evenly spaced."""
    place, steps = x.layout.index(axis), {b - a for a, b in itertools.pairwise(map(int, places))}
    if len(steps) == 1 and min(steps) > 0:
        step = min(steps)
        vectors = [[places[0]], [places[-1] + 1], [place], [step]]
        name = graph.node('Slice', [graph.arranged(x, x.layout), *map(graph.integers, vectors)])
    else:
        name = graph.node('Gather', [graph.arranged(x, x.layout), graph.integers(places)], axis=place)
    return graph.tensor(name, result, x.layout)


def reverse(graph: Graph, equation, x: Tensor):
    """Writes an array with some axes turned round."""
    result = equation.outvars[0].aval
    for axis in equation.params['dimensions']:
        x = _taken(graph, x, range(x.shape[axis] - 1, -1, -1), axis, result)
    return x
