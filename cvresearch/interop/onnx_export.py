"""A net as an ONNX file, written from the traced program: every architecture that JAX traces, nothing by hand for any.

The program of one evaluation is walked through, equation by equation. What does not depend on the images (folded
norms, standardised kernels) is computed and stored; for the rest `onnx_primitives` has a rule per primitive.
"""

import json
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend import core
from onnx import TensorProto, helper

from cvresearch import __version__
from cvresearch.base.errors import UserError
from cvresearch.inspect.cost import module_path
from cvresearch.inspect.jaxprs import opened, shaped
from cvresearch.interop import onnx_moves as moves
from cvresearch.interop.onnx_graph import Graph, Tensor
from cvresearch.interop.onnx_primitives import FOLDED, RULES
from cvresearch.interop.onnx_quantised import int8_layer

OPSET = 18  # of September 2022: ReduceMean takes its axes as an input since then
_IR_VERSION = 8  # which belongs to it; runtimes refuse files that are newer than they are
MOST_BYTES = 2**31 - 1  # of a message of Protocol Buffers
NAMED = {'int8_layer': int8_layer}  # functions that are written as a whole
PROBABILITIES = {'softmax': ('Softmax', {'axis': -1}), 'sigmoid': ('Sigmoid', {})}
_FLOATS = {'float32': (np.float32, TensorProto.FLOAT), 'float16': (np.float16, TensorProto.FLOAT16)}


def to_onnx(
    logits_of: Callable,
    images: jax.ShapeDtypeStruct,
    float_type: str = 'float32',
    probabilities: str = '',
    metadata: Mapping[str, object] | None = None,
) -> onnx.ModelProto:
    """Returns a function of images as an ONNX model, checked.

    Its input is `images`, of the given shape and type; its output `logits`, float32 (batch, classes), and if asked
    for `probabilities`, what that function makes of them. The batch is free.

    Args:
      logits_of: images -> logits, with the weights inside; see `inference.function`.
      images: shape, with a symbol as batch, and type; see `inference.image_spec`.
      float_type: 'float32' or 'float16', in which the net computes and its weights are stored.
      probabilities: 'softmax' or 'sigmoid', '' for logits alone.
      metadata: kept in the file as text; whatever is not text, as JSON.

    Raises:
      UserError: an operation that has no rule, weights beyond the range of float16, more than 2 GB of them.
    """
    graph = Graph(_FLOATS[float_type][0], images.shape[0])
    traced = jax.make_jaxpr(logits_of)(images)
    (logits,) = _walk(graph, traced.jaxpr, traced.consts, [_input(graph, images)], '')
    graph.scope = ''
    if not isinstance(logits, Tensor):
        raise UserError('the logits do not depend on the images; there is no net to export')
    outputs = {'logits': graph.arranged(logits)}
    if probabilities:
        operation, attributes = PROBABILITIES[probabilities]
        outputs['probabilities'] = graph.node(operation, [outputs['logits']], **attributes)
    for name, inner in outputs.items():
        graph.node('Cast', [inner], name=name, to=TensorProto.FLOAT)
    model = _model(graph, images, dict.fromkeys(outputs, logits.shape), metadata or {})
    if (size := sum(len(tensor.raw_data) for tensor in graph.constants)) > MOST_BYTES:
        raise UserError(f'the weights are {size / 1e9:.1f} GB; an ONNX file holds 2.1 GB: export it in float16')
    onnx.checker.check_model(model, full_check=True)
    return model


def _input(graph: Graph, images: jax.ShapeDtypeStruct) -> Tensor:
    name = 'images'
    if images.dtype == jnp.float32 and graph.float_type != np.float32:
        name = graph.node('Cast', [name], to=helper.np_dtype_to_tensor_dtype(graph.float_type))
    return graph.tensor(name, images)


def _model(graph: Graph, images, outputs: Mapping[str, tuple], metadata: Mapping[str, object]) -> onnx.ModelProto:
    def described(name: str, dtype, shape) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    inputs = [described('images', images.dtype, ['batch', *images.shape[1:]])]
    results = [described(name, np.float32, ['batch', *shape[1:]]) for name, shape in outputs.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, 'net', inputs, results, graph.constants),
        opset_imports=[helper.make_opsetid('', OPSET)],
        ir_version=_IR_VERSION,
        producer_name='cvresearch',
        producer_version=__version__,
    )
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    helper.set_model_props(model, texts)
    return model


def _walk(graph: Graph, jaxpr: core.Jaxpr, constants, arguments, prefix: str, turn: int = 0) -> list:
    """Returns the results of a program: tensors of the graph, and arrays where they do not depend on the images.

    Args:
      graph: to which nodes are appended.
      jaxpr: the program.
      constants: values of its constants.
      arguments: a tensor or an array each.
      prefix: the module that the program belongs to.
      turn: how often the body of a loop has run before.
    """
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def value(variable):
        return variable.val if isinstance(variable, core.Literal) else known[variable]

    for equation in jaxpr.eqns:
        operands = [value(variable) for variable in equation.invars]
        path = module_path(equation, prefix, turn)
        graph.scope = path.partition('/')[2]
        results = _results(graph, equation, operands, path)
        known.update(zip(equation.outvars, results, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def _results(graph: Graph, equation: core.JaxprEqn, operands: list, path: str) -> list:
    parameters, name = equation.params, equation.primitive.name
    if name == 'scan':
        return _unrolled(graph, equation, operands, path)
    if name == 'cond' and not isinstance(operands[0], Tensor):
        branch = parameters['branches'][min(max(int(operands[0]), 0), len(parameters['branches']) - 1)]
        return _walk(graph, branch.jaxpr, branch.consts, operands[1:], path)
    if parameters.get('name') in NAMED and 'jaxpr' in parameters:
        return [NAMED[parameters['name']](graph, equation, *operands)]
    for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
        if key in parameters and not name.startswith('reduce'):  # a reduction's is its operator
            body = parameters[key]
            constants = body.consts if isinstance(body, core.ClosedJaxpr) else ()
            return _walk(graph, opened(body), constants, operands, path)
    if not any(isinstance(operand, Tensor) for operand in operands) and _is_concrete(equation):
        results = _computed(equation, operands)
    elif name in RULES:
        results = RULES[name](graph, equation, *operands)
    else:
        raise moves.unsupported(graph, f'the operation {name!r}')
    return list(results) if isinstance(results, (list, tuple)) else [results]


def _computed(equation: core.JaxprEqn, operands: list):
    """Returns the value of an equation that does not depend on the images."""
    rule = FOLDED.get(equation.primitive.name)
    if rule is None or not all(np.issubdtype(np.asarray(x).dtype, np.floating) for x in operands):
        return equation.primitive.bind(*operands, **equation.params)
    dtype = shaped(equation.outvars[0]).dtype
    return np.asarray(rule(*(np.asarray(x, dtype) for x in operands), **equation.params), dtype)


def _is_concrete(equation: core.JaxprEqn) -> bool:
    return all(isinstance(size, (int, np.integer)) for v in equation.outvars for size in shaped(v).shape)


def _unrolled(graph: Graph, equation: core.JaxprEqn, operands: list, path: str) -> list:
    """Writes the body of a loop as often as it runs: blocks that are compiled once are nodes of their own here."""
    parameters, body = equation.params, equation.params['jaxpr']
    consts, carried = parameters['num_consts'], parameters['num_carry']
    fixed, carry, rows = operands[:consts], operands[consts : consts + carried], operands[consts + carried :]
    if any(isinstance(row, Tensor) for row in rows):
        raise moves.unsupported(graph, 'a loop over a part of the image')
    turns = range(parameters['length'])
    kept = []
    for turn in reversed(turns) if parameters['reverse'] else turns:
        results = _walk(graph, body.jaxpr, body.consts, [*fixed, *carry, *(row[turn] for row in rows)], path, turn)
        carry = results[:carried]
        kept.append(results[carried:])
    if any(isinstance(result, Tensor) for results in kept for result in results):
        raise moves.unsupported(graph, 'a loop that keeps a part of each turn')
    kept = kept[::-1] if parameters['reverse'] else kept
    return [*carry, *(jnp.stack(column) for column in zip(*kept, strict=True))]
