"""How a layer of int8 is written in ONNX: as QuantizeLinear and DequantizeLinear around a convolution or product.

The form that runtimes read (QDQ): each takes the pairs and the operator between as one operation on integers, if it has
one, and computes it as written if it has none. Kernels are stored in int8.
"""

from collections.abc import Iterator

import numpy as np
from jax.extend import core

from cvresearch.base.errors import UserError
from cvresearch.interop.onnx_graph import Graph, Tensor
from cvresearch.interop.onnx_primitives import RULES

PRODUCTS = ('conv_general_dilated', 'dot_general')


def int8_layer(graph: Graph, equation, x: Tensor, kernel, kernel_scale, input_scale, zero_point, bias=None) -> Tensor:
    """Writes a call of `nn.stored.int8_layer`.

    Raises:
      UserError: the graph is not of float32, in which opset 18 has the scales.
    """
    if graph.float_type != np.float32:
        raise UserError('a net of int8 computes in float32 between its layers; export it without --float16')
    (product,) = _products(equation.params['jaxpr'].jaxpr)
    scale, zero = graph.constant(np.float32(input_scale)), graph.constant(np.asarray(zero_point, np.uint8))
    levels = graph.node('QuantizeLinear', [graph.arranged(x, x.layout), scale, zero])
    rounded = Tensor(x.shape, x.dtype, x.layout, {x.layout: graph.node('DequantizeLinear', [levels, scale, zero])})
    y = RULES[product.primitive.name](graph, product, rounded, _kernel(graph, product, kernel, kernel_scale))
    if bias is None:
        return y
    if product.primitive.name == 'conv_general_dilated':  # runtimes look for the bias in the convolution
        graph.nodes[-1].input.append(graph.constant(bias))
        return y
    return RULES['add'](graph, product, y, np.asarray(bias)[None])


def _kernel(graph: Graph, product, kernel, kernel_scale) -> Tensor:
    """Returns the kernel in the order of axes that the product takes, each feature with its scale."""
    kernel, kernel_scale = np.asarray(kernel), np.asarray(kernel_scale, np.float32)
    numbers = product.params['dimension_numbers']
    layout = tuple(numbers.rhs_spec) if product.primitive.name == 'conv_general_dilated' else (0, 1)
    axis = layout.index(kernel.ndim - 1)
    names = [
        graph.constant(np.transpose(kernel, layout)),
        graph.constant(kernel_scale),
        graph.constant(np.zeros(kernel_scale.shape, np.int8)),
    ]
    name = graph.node('DequantizeLinear', names, axis=axis if kernel_scale.ndim else 1)  # 1: what it is unless said
    return Tensor(kernel.shape, np.dtype(np.float32), layout, {layout: name})


def _products(jaxpr: core.Jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            yield equation
        elif 'jaxpr' in equation.params:
            yield from _products(equation.params['jaxpr'].jaxpr)
