"""How each JAX primitive that our nets consist of is written in ONNX.

A rule takes the graph, the equation and its operands (a `Tensor` where it depends on the images, an array where it is
constant) and returns the result, or a list of results. At least one operand is a `Tensor`, or a size is the batch's.
"""

import string
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from cvresearch.interop import onnx_moves as moves
from cvresearch.interop.onnx_graph import Graph, Layout, Tensor, channels_first, extent, natural


def _elementwise(operation: str) -> Callable:
    def rule(graph: Graph, equation, *operands):
        result = equation.outvars[0].aval
        layout = moves.layout_of(operands, result.ndim)
        return graph.tensor(graph.node(operation, [graph.operand(x, layout) for x in operands]), result, layout)

    return rule


def _chain(*steps: Callable) -> Callable:
    """Returns the rule of one tensor that is several nodes; a step takes graph, name and dtype, and returns a name."""

    def rule(graph: Graph, equation, x: Tensor):
        name = graph.arranged(x, x.layout)
        for step in steps:
            name = step(graph, name, x.dtype)
        return graph.tensor(name, equation.outvars[0].aval, x.layout)

    return rule


def _step(operation: str, constant: float | None = None, constant_first: bool = False) -> Callable:
    def step(graph: Graph, name: str, dtype) -> str:
        if constant is None:
            return graph.node(operation, [name])
        operands = [name, graph.constant(np.asarray(constant, dtype))]
        return graph.node(operation, operands[::-1] if constant_first else operands)

    return step


def _same(graph: Graph, equation, *operands):
    return list(operands)


def _scaled(operation: str) -> Callable:
    """Returns the rule of a product or quotient, into which a tensor's pending factor goes."""
    write = _elementwise(operation)

    def rule(graph: Graph, equation, x, y):
        if operation == 'Mul' and isinstance(y, Tensor):
            x, y = y, x
        if isinstance(y, Tensor) or not isinstance(x, Tensor):
            return write(graph, equation, x, y)
        result = equation.outvars[0].aval
        value = np.asarray(y, np.float64)
        scale = x.factor * value if operation == 'Mul' else x.factor / value
        if np.all(scale == 1.0) and result.shape == x.shape:
            return graph.tensor(graph.name(x), result, x.layout)
        if x.factor == 1.0:
            return write(graph, equation, x, y)
        plain = Tensor(x.shape, x.dtype, x.layout, x.names)
        return _elementwise('Mul')(graph, equation, plain, scale.astype(x.dtype))

    return rule


def _maximum(graph: Graph, equation, x, y):
    x, y = (y, x) if isinstance(y, Tensor) else (x, y)
    if not isinstance(y, Tensor) and np.ndim(y) == 0 and float(y) == 0.0:
        return graph.tensor(graph.node('Relu', [graph.arranged(x, x.layout)]), equation.outvars[0].aval, x.layout)
    return _elementwise('Max')(graph, equation, x, y)


def _clamp(graph: Graph, equation, low, x, high):
    result = equation.outvars[0].aval
    layout = moves.layout_of((x,), result.ndim)
    raised = graph.node('Max', [graph.operand(x, layout), graph.operand(low, layout)])
    return graph.tensor(graph.node('Min', [raised, graph.operand(high, layout)]), result, layout)


def _integer_pow(graph: Graph, equation, x: Tensor):
    exponent, name = equation.params['y'], graph.arranged(x, x.layout)
    if exponent in (2, 3):
        square = graph.node('Mul', [name, name])
        name = square if exponent == 2 else graph.node('Mul', [square, name])
    else:
        name = graph.node('Pow', [name, graph.constant(np.asarray(exponent, x.dtype))])
    return graph.tensor(name, equation.outvars[0].aval, x.layout)


def _select(graph: Graph, equation, which, *cases):
    if len(cases) != 2 or np.dtype(which.dtype) != bool:
        raise moves.unsupported(graph, f'a choice between {len(cases)}')
    result = equation.outvars[0].aval
    layout = moves.layout_of((which, *cases), result.ndim)
    names = [graph.operand(x, layout) for x in (which, cases[1], cases[0])]
    return graph.tensor(graph.node('Where', names), result, layout)


def _convert(graph: Graph, equation, x: Tensor):
    result = equation.outvars[0].aval
    target = graph.type_of(result.dtype)
    if target == graph.type_of(x.dtype):
        return Tensor(x.shape, np.dtype(result.dtype), x.layout, x.names, x.factor)
    name = graph.node('Cast', [graph.arranged(x, x.layout)], to=helper.np_dtype_to_tensor_dtype(target))
    return graph.tensor(name, result, x.layout)


def _convolution(graph: Graph, equation, x, kernel):
    parameters = equation.params
    numbers = parameters['dimension_numbers']
    if set(parameters['lhs_dilation']) != {1} or parameters['batch_group_count'] != 1:
        raise moves.unsupported(graph, 'a transposed convolution')
    if min(map(min, parameters['padding'])) < 0:
        raise moves.unsupported(graph, 'a negative padding')
    inputs = [graph.operand(x, numbers.lhs_spec), graph.operand(kernel, numbers.rhs_spec)]
    name = graph.node(
        'Conv',
        inputs,
        strides=list(parameters['window_strides']),
        dilations=list(parameters['rhs_dilation']),
        pads=moves.pads_of(parameters['padding']),
        group=parameters['feature_group_count'],
        kernel_shape=[kernel.shape[axis] for axis in numbers.rhs_spec[2:]],
    )
    return graph.tensor(name, equation.outvars[0].aval, numbers.out_spec)


def _dot(graph: Graph, equation, x, y):
    (contracted, batched) = equation.params['dimension_numbers']
    result = equation.outvars[0].aval
    if not any(batched) and contracted == ((len(x.shape) - 1,), (0,)) and len(y.shape) == 2:
        names = [graph.operand(value, natural(len(value.shape))) for value in (x, y)]
        return graph.tensor(graph.node('MatMul', names), result)
    letters = iter(string.ascii_lowercase)
    left, right = ([''] * len(value.shape) for value in (x, y))
    shared = []
    for a, b in zip(*batched, strict=True):
        left[a] = right[b] = letter = next(letters)
        shared.append(letter)
    for a, b in zip(*contracted, strict=True):
        left[a] = right[b] = next(letters)
    free = []
    for side in (left, right):
        for axis, letter in enumerate(side):
            if not letter:
                side[axis] = next(letters)
                free.append(side[axis])
    names = [graph.operand(value, natural(len(value.shape))) for value in (x, y)]
    terms = f'{"".join(left)},{"".join(right)}->{"".join(shared + free)}'
    return graph.tensor(graph.node('Einsum', names, equation=terms), result)


def _pooled(operation: str) -> Callable:
    def rule(graph: Graph, equation, x: Tensor):
        parameters = equation.params
        size, padding = parameters['window_dimensions'], parameters['padding']
        if set(parameters['base_dilation']) != {1} or min(map(min, padding)) < 0:
            raise moves.unsupported(graph, 'a window over a dilated or cropped map')
        strides = parameters['window_strides']
        moved = [axis for axis, k in enumerate(size) if k != 1 or strides[axis] != 1 or any(padding[axis])]
        layout = _spatial_last(x, moved)
        if layout is None:
            raise moves.unsupported(graph, f'a window over the axes {moved} of {len(size)}')
        axes = layout[2:]
        pads, name = moves.pads_of([padding[axis] for axis in axes]), graph.arranged(x, layout)
        attributes: dict[str, Any] = dict(
            kernel_shape=[size[axis] for axis in axes],
            strides=[strides[axis] for axis in axes],
            dilations=[parameters['window_dilation'][axis] for axis in axes],
        )
        if any(pad >= size[axes[place % len(axes)]] for place, pad in enumerate(pads)):  # runtimes refuse it in a pool
            outside = graph.constant(np.asarray(0 if operation == 'AveragePool' else -np.inf, x.dtype))
            front, back = pads[: len(axes)], pads[len(axes) :]
            name = graph.node('Pad', [name, graph.integers([0, 0, *front, 0, 0, *back]), outside])
            pads = [0] * len(pads)
        if operation == 'MaxPool':
            name = graph.node('MaxPool', [name], pads=pads, **attributes)
            return graph.tensor(name, equation.outvars[0].aval, layout)
        if set(attributes.pop('dilations')) != {1}:
            raise moves.unsupported(graph, 'a sum over a dilated window')
        name = graph.node('AveragePool', [name], pads=pads, count_include_pad=1, **attributes)
        return graph.tensor(name, equation.outvars[0].aval, layout, float(extent(size, axes)))

    return rule


def _spatial_last(x: Tensor, moved: list[int]) -> Layout | None:
    """Returns a layout in which the axes over which a window moves are behind the first two, None where none has."""
    candidates = (x.layout, channels_first(len(x.shape)), natural(len(x.shape)))
    return next((layout for layout in candidates if not set(moved) & set(layout[:2])), None)


def _reduced(operation: str) -> Callable:
    def rule(graph: Graph, equation, x: Tensor):
        axes = equation.params['axes']
        mean = operation == 'ReduceSum' and np.issubdtype(x.dtype, np.floating)
        mean = mean and all(isinstance(x.shape[axis], int) for axis in axes)
        kept = [axis for axis in x.layout if axis not in axes]
        layout = tuple(sorted(kept).index(axis) for axis in kept)
        places = graph.integers(sorted(x.layout.index(axis) for axis in axes))
        name = graph.node('ReduceMean' if mean else operation, [graph.arranged(x, x.layout), places], keepdims=0)
        return graph.tensor(name, equation.outvars[0].aval, layout, float(extent(x.shape, axes)) if mean else 1.0)

    return rule


_ONE_NODE = {
    'add': 'Add',
    'add_any': 'Add',
    'sub': 'Sub',
    'min': 'Min',
    'pow': 'Pow',
    'neg': 'Neg',
    'abs': 'Abs',
    'sign': 'Sign',
    'floor': 'Floor',
    'ceil': 'Ceil',
    'exp': 'Exp',
    'log': 'Log',
    'sqrt': 'Sqrt',
    'tanh': 'Tanh',
    'logistic': 'Sigmoid',
    'erf': 'Erf',
    'sin': 'Sin',
    'cos': 'Cos',
    'gt': 'Greater',
    'lt': 'Less',
    'ge': 'GreaterOrEqual',
    'le': 'LessOrEqual',
    'eq': 'Equal',
}


def _spread(x: np.ndarray, shape, broadcast_dimensions, **_) -> np.ndarray:
    sizes = np.ones(len(shape), int)
    sizes[list(broadcast_dimensions)] = x.shape
    return np.broadcast_to(x.reshape(sizes), shape)


# The primitives that fold norms, by NumPy: JAX would compile each anew for every shape.
FOLDED: dict[str, Callable] = {
    'add': lambda x, y: x + y,
    'sub': lambda x, y: x - y,
    'mul': lambda x, y, **_: x * y,
    'div': lambda x, y: x / y,
    'neg': np.negative,
    'square': np.square,
    'rsqrt': lambda x, **_: 1 / np.sqrt(x),
    'sqrt': lambda x, **_: np.sqrt(x),
    'reduce_sum': lambda x, axes, **_: x.sum(axes, dtype=x.dtype),
    'reshape': lambda x, new_sizes, **_: x.reshape(new_sizes),
    'transpose': lambda x, permutation: x.transpose(permutation),
    'broadcast_in_dim': _spread,
}

RULES: dict[str, Callable] = {
    **{name: _elementwise(operation) for name, operation in _ONE_NODE.items()},
    **dict.fromkeys(('copy', 'copy_p', 'stop_gradient', 'optimization_barrier', 'sharding_constraint'), _same),
    'mul': _scaled('Mul'),
    'div': _scaled('Div'),
    'max': _maximum,
    'clamp': _clamp,
    'square': lambda graph, equation, x: _elementwise('Mul')(graph, equation, x, x),
    'integer_pow': _integer_pow,
    'rsqrt': _chain(_step('Sqrt'), _step('Reciprocal')),
    'log1p': _chain(_step('Add', 1.0), _step('Log')),
    'erfc': _chain(_step('Erf'), _step('Sub', 1.0, constant_first=True)),
    'select_n': _select,
    'convert_element_type': _convert,
    'conv_general_dilated': _convolution,
    'dot_general': _dot,
    'reduce_window_max': _pooled('MaxPool'),
    'reduce_window_sum': _pooled('AveragePool'),
    'reduce_sum': _reduced('ReduceSum'),
    'reduce_max': _reduced('ReduceMax'),
    'reduce_min': _reduced('ReduceMin'),
    'reshape': moves.reshape,
    'squeeze': moves.reshape,
    'broadcast_in_dim': moves.broadcast,
    'transpose': moves.transpose,
    'concatenate': moves.concatenate,
    'stack': moves.stack,
    'split': moves.split,
    'pad': moves.pad,
    'slice': moves.slice,
    'dynamic_slice': moves.dynamic_slice,
    'gather': moves.gather,
    'rev': moves.reverse,
}
