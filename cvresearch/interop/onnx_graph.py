"""An ONNX graph while it is written: its nodes, its constants, and in which order a tensor's axes lie.

Our nets have the channels last, ONNX's convolutions have them first. A tensor keeps its axes in the order in which the
operation that made it left them, and says which; whoever needs another order asks for it. So the images are
transposed once, in front of the first convolution, and a map once more where it is flattened.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper

from cvresearch.base.errors import UserError

Layout = tuple[int, ...]
_SMALL = 4096  # bytes of a constant; one copy of a smaller one serves all nodes


@dataclasses.dataclass(eq=False)
class Tensor:
    """A value of the graph that depends on the images.

    Attributes:
      shape: as in the traced program; the batch is a symbol.
      dtype: as in the traced program.
      layout: for each axis of the tensor in the graph, the axis of the traced program that it is.
      names: of the tensor in the graph, by layout.
      factor: what the tensor in the graph must still be multiplied by: a sum over a window is written as a mean, and
        the division that follows makes a mean of it again, without a node.
    """

    shape: tuple
    dtype: np.dtype
    layout: Layout
    names: dict[Layout, str]
    factor: float = 1.0


def natural(rank: int) -> Layout:
    """Returns the layout of the traced program."""
    return tuple(range(rank))


def channels_first(rank: int) -> Layout:
    """Returns the layout (batch, channels, height, width) of an array with the channels last."""
    return (0, *range(3, rank), 1, 2) if rank > 3 else (0, rank - 1, *range(1, rank - 1))


class Graph:
    """Nodes and constants of an ONNX graph.

    Attributes:
      float_type: in which floating-point numbers are computed and stored.
      batch: the symbol of the batch.
      scope: the module whose operations are being written; nodes are named after it.
    """

    def __init__(self, float_type: np.dtype, batch):
        self.float_type = np.dtype(float_type)
        self.batch = batch
        self.scope = ''
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._small: dict[tuple, str] = {}
        self._counts: dict[str, int] = {}
        self._batch_name: str | None = None

    def type_of(self, dtype: np.dtype) -> np.dtype:
        """Returns the type in the graph of a type of the traced program."""
        return self.float_type if jax.numpy.issubdtype(dtype, np.floating) else np.dtype(dtype)

    def node(self, operation: str, inputs: Sequence[str], name: str | None = None, **attributes) -> str:
        """Appends a node of one output; returns its name.

        Args:
          operation: 'Conv'.
          inputs: names of tensors.
          name: of the output; one after the module and the operation if None.
          **attributes: of the node.
        """
        base = self._fresh(f'{self.scope}/{operation}'.lstrip('/'))
        self.nodes.append(helper.make_node(operation, list(inputs), [name or base], name=base, **attributes))
        return name or base

    def parts(self, operation: str, inputs: Sequence[str], outputs: int, **attributes) -> list[str]:
        """Appends a node of several outputs; returns their names."""
        if outputs == 1:
            return [self.node(operation, inputs, **attributes)]
        base = self._fresh(f'{self.scope}/{operation}'.lstrip('/'))
        names = [f'{base}/{i}' for i in range(outputs)]
        self.nodes.append(helper.make_node(operation, list(inputs), names, name=base, **attributes))
        return names

    def constant(self, value) -> str:
        """Returns the name of a constant; floating-point numbers are stored in `float_type`.

        Raises:
          UserError: a number that is finite is not so in `float_type`.
        """
        value = np.asarray(value)
        with np.errstate(over='ignore'):
            stored = np.asarray(value, self.type_of(value.dtype), order='C')
        if stored.dtype != value.dtype and not np.isfinite(stored).all() and np.isfinite(value).all():
            raise UserError(
                f'a constant of {self.scope or "the net"} is {np.abs(value).max():g}, more than {stored.dtype} holds; '
                'export it in float32'
            )
        key = (stored.dtype, stored.shape, stored.tobytes()) if stored.nbytes <= _SMALL else None
        if key not in self._small:
            name = self._fresh(f'{self.scope}/constant'.lstrip('/'))
            self.constants.append(numpy_helper.from_array(stored, name))
            if key is None:
                return name
            self._small[key] = name
        return self._small[key]

    def integers(self, values: Sequence[Any] | np.ndarray) -> str:
        """Returns the name of a constant of whole numbers, such as axes."""
        return self.constant(np.asarray([int(value) for value in values], np.int64))

    def tensor(self, name: str, aval: Any, layout: Sequence[int] | None = None, factor: float = 1.0) -> Tensor:
        """Returns the tensor of that name in the graph, with shape and type of the traced program's value `aval`."""
        order = natural(len(aval.shape)) if layout is None else tuple(layout)
        return Tensor(tuple(aval.shape), np.dtype(aval.dtype), order, {order: name}, factor)

    def settled(self, tensor: Tensor) -> Tensor:
        """Returns the tensor with its factor multiplied in."""
        if tensor.factor != 1.0:
            product = self.node('Mul', [self.name(tensor), self.constant(np.asarray(tensor.factor, tensor.dtype))])
            tensor.names, tensor.factor = {tensor.layout: product}, 1.0
        return tensor

    def name(self, tensor: Tensor) -> str:
        """Returns the name in the tensor's own layout, whatever its factor."""
        return tensor.names[tensor.layout]

    def arranged(self, tensor: Tensor, layout: Layout | None = None) -> str:
        """Returns the name of a tensor in a layout, in the traced program's own if None."""
        tensor = self.settled(tensor)
        layout = natural(len(tensor.shape)) if layout is None else tuple(layout)
        if layout not in tensor.names:
            order = [tensor.layout.index(axis) for axis in layout]
            tensor.names[layout] = self.node('Transpose', [self.name(tensor)], perm=order)
        return tensor.names[layout]

    def operand(self, value, layout: Layout) -> str:
        """Returns the name of a tensor or constant in a layout; a scalar has none."""
        if len(value.shape) != len(layout):
            layout = natural(len(value.shape))
        if isinstance(value, Tensor):
            return self.arranged(value, layout)
        return self.constant(np.transpose(np.asarray(value), layout))

    def sizes(self, shape: Sequence) -> str:
        """Returns the name of a vector of sizes, for nodes that make a tensor of them.

        Raises:
          UserError: a size is neither a number nor the batch.
        """
        if all(isinstance(size, (int, np.integer)) for size in shape):
            return self.integers(shape)
        if self._batch_name is None:
            self._batch_name = self.node('Shape', ['images'], start=0, end=1)
        parts = []
        for size in shape:
            if not isinstance(size, (int, np.integer)) and size != self.batch:
                raise UserError(f'{self.scope}: a size of {size} for a batch of {self.batch} cannot be written as ONNX')
            parts.append(self._batch_name if size == self.batch else self.integers([size]))
        return self.node('Concat', parts, axis=0)

    def reshaped(self, name: str, shape: Sequence) -> str:
        """Returns the name of a tensor in another shape.

        Raises:
          UserError: several sizes depend on the batch.
        """
        symbolic = [not isinstance(size, (int, np.integer)) for size in shape]
        if sum(symbolic) > 1:
            raise UserError(f'{self.scope}: the shape {tuple(shape)} depends on the batch twice; ONNX cannot have it')
        target = [-1 if unknown else size for size, unknown in zip(shape, symbolic, strict=True)]
        return self.node('Reshape', [name, self.integers(target)])

    def _fresh(self, base: str) -> str:
        count = self._counts[base] = self._counts.get(base, 0) + 1
        return base if count == 1 else f'{base}_{count}'


def extent(shape: Sequence, axes: Sequence[int]) -> int:
    """Returns how many elements the axes span."""
    return math.prod(int(shape[axis]) for axis in axes)
