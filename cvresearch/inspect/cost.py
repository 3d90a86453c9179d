"""What a net costs, read off the traced program: multiply-adds, shapes, receptive fields.

Nothing is computed and nothing is compiled, so the largest nets take no memory. A multiply-add
counts once; only convolutions and dense layers (matrix products) count, as papers have it.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from cvresearch.base import trees
from cvresearch.inspect.jaxprs import opened, shaped
from cvresearch.nn.conv import plain_lowering
from cvresearch.nn.stacked import block_path, unstack


@dataclasses.dataclass
class Layer:
    """One row of a summary.

    Attributes:
      name: module path, 'C1' or 'stage1/block0/conv1'.
      kind: 'conv', 'dense', 'pool', 'norm', or 'other' (anything else with parameters).
      shape: of its output for one image, without the batch.
      params: trainable parameters.
      macs: multiply-adds for one image.
      activation_bytes: size of its output for one image, in the dtype it is computed in.
      receptive_field: (vertical, horizontal), in pixels of the input, on which one output depends;
        as the windows make it, not clipped at the border of the image.
    """

    name: str
    kind: str = 'other'
    shape: tuple[int, ...] = ()
    params: int = 0
    macs: int = 0
    activation_bytes: int = 0
    receptive_field: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True)
class _Field:
    """Receptive field of the elements of an array, and the distance between two neighbours'."""

    size: tuple[int, int] = (1, 1)
    jump: tuple[int, int] = (1, 1)

    def window(self, extent: Sequence[int], strides: Sequence[int] = (1, 1)) -> '_Field':
        height, width = (s + (e - 1) * j for s, e, j in zip(self.size, extent, self.jump, strict=True))
        down, right = (j * s for j, s in zip(self.jump, strides, strict=True))
        return _Field((height, width), (down, right))

    def union(self, other: '_Field | None') -> '_Field':
        if other is None:
            return self
        height, width = map(max, self.size, other.size)
        down, right = map(max, self.jump, other.jump)
        return _Field((height, width), (down, right))


def layers(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """Returns the layers of a net in the order in which they run, in evaluation mode.

    Blocks that are compiled once, as the body of a scan, have rows each, as if they were not.
    """
    variables = shapes(model, image_shape)
    separate = jax.eval_shape(unstack, variables['params'])
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    rows: dict[str, Layer] = {}
    params: dict[str, int] = {}
    for path, leaf in trees.named_leaves(separate):
        owner = path.rpartition('/')[0]
        params[owner] = params.get(owner, 0) + math.prod(leaf.shape)
    traced = _traced(lambda v, x: model.apply(v, x, train=False))(variables, image).jaxpr
    fields = dict(zip(traced.invars, [None] * (len(traced.invars) - 1) + [_Field()], strict=True))
    for path, equation, field in _equations(traced, fields):
        kind, macs = _cost(equation)
        if kind is None and path not in params:
            continue
        row = rows.setdefault(path, Layer(path, params=params.get(path, 0)))
        if kind and row.kind in ('other', 'pool'):
            row.kind = kind
        row.macs += macs
        result = shaped(equation.outvars[0])
        if kind or row.kind in ('other', 'norm'):
            row.shape = tuple(result.shape[1:])
            row.activation_bytes = math.prod(row.shape) * result.dtype.itemsize
        row.receptive_field = field.size if field else row.receptive_field
    for path in sorted(params.keys() - rows.keys()):  # parameters that evaluation does not use: auxiliary heads
        rows[path] = Layer(path, params=params[path])
    scales = {path.rpartition('/')[0] for path, _ in trees.named_leaves(separate) if path.endswith('/scale')}
    for row in rows.values():
        if row.kind == 'other' and row.name in scales:
            row.kind = 'norm'
    return list(rows.values())


def shapes(model: nn.Module, image_shape: tuple[int, int, int]) -> dict:
    """Returns the shapes of a net's variables, without computing them."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def block_shapes(model: nn.Module, image_shape: tuple[int, int, int]) -> dict:
    """Returns the shapes of a net's variables, block by block even where the net has them in one entry."""
    return jax.eval_shape(unstack, shapes(model, image_shape))


def macs(model: nn.Module, image_shape: tuple[int, int, int], variables: dict | None = None) -> int:
    """Returns the multiply-adds of one image in evaluation mode; `variables` are its `shapes`, if known."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = shapes(model, image_shape) if variables is None else variables
    return count_macs(lambda v, x: model.apply(v, x, train=False), variables, image)


def training_flops(model: nn.Module, image_shape: tuple[int, int, int], batch_size: int, gradients: int = 1) -> int:
    """Returns the floating-point operations of an update: two a multiply-add, and three forward passes a gradient.

    The gradient of a layer by its input and that by its weights cost as much as the layer. What a program computes
    anew to save memory does not count.

    Args:
      model: the net.
      image_shape: of the images that it sees.
      batch_size: images an update.
      gradients: an update: 2 for sharpness-aware minimisation.
    """
    return 2 * 3 * gradients * batch_size * macs(model, image_shape)


def count_macs(function, *arguments) -> int:
    """Returns the multiply-adds of convolutions and matrix products in one call of `function`.

    Args:
      function: anything JAX can trace.
      *arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    traced = _traced(function)(*arguments).jaxpr
    return sum(_cost(equation)[1] for _, equation, _ in _equations(traced, {}))


def _traced(function):
    """Returns `jax.make_jaxpr(function)` with every convolution as the one operation that it is."""

    def make(*arguments):
        with plain_lowering():
            return jax.make_jaxpr(function)(*arguments)

    return make


def _equations(
    jaxpr: core.Jaxpr, fields: dict, prefix: str = '', turn: int = 0
) -> Iterator[tuple[str, core.JaxprEqn, _Field | None]]:
    """Yields (module path, equation, receptive field of its result), entering every sub-program.

    `fields` maps variables to fields and is filled on the way. The body of a scan comes as often
    as it runs; `turn` counts how often it has.
    """
    for equation in jaxpr.eqns:
        path = module_path(equation, prefix, turn)
        known = [fields.get(v) if isinstance(v, core.Var) else None for v in equation.invars]
        inner = _inner(equation)
        if inner is None:
            field = _result_field(equation, known)
            fields.update((v, field) for v in equation.outvars)
            yield path.partition('/')[2], equation, field
            continue
        body, times, carried = inner
        for i in range(times):
            fields_inside = dict(zip(body.invars, known[-len(body.invars) :], strict=True))
            yield from _equations(body, fields_inside, path, turn if carried is None else i)
            results = [fields_inside.get(v) if isinstance(v, core.Var) else None for v in body.outvars]
            if carried is not None:  # the carry of a scan goes round
                first, count = carried
                known[first : first + count] = results[:count]
        fields.update(zip(equation.outvars, results, strict=True))


def module_path(equation: core.JaxprEqn, prefix: str = '', turn: int = 0) -> str:
    """Returns the module path of an equation: its scopes without what transformations and methods add.

    Args:
      equation: of a traced program.
      prefix: path of the program that it is in.
      turn: how often the loop around it has run; it says which of the blocks the equation belongs to.
    """
    parts = str(equation.source_info.name_stack).split('/')
    path = '/'.join(part for part in parts if part and not set('(.') & set(part))
    return '/'.join(filter(None, (prefix, block_path(path, turn))))


def _inner(equation: core.JaxprEqn):
    """Returns (body, how often it runs, position and number of a scan's carry), None for a plain equation."""
    parameters, name = equation.params, equation.primitive.name
    if name == 'scan':
        carry = (parameters['num_consts'], parameters['num_carry'])
        return parameters['jaxpr'].jaxpr, parameters['length'], carry
    if name == 'cond':  # one branch runs; for a choice by platform, the last is for all others
        return parameters['branches'][-1].jaxpr, 1, None
    for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):
        if key in parameters and not name.startswith('reduce'):  # a reduction's is its operator
            return opened(parameters[key]), 1, None
    return None


def _cost(equation: core.JaxprEqn) -> tuple[str | None, int]:
    """Returns the kind of layer an equation makes, None for none, and its multiply-adds."""
    name = equation.primitive.name
    if name == 'conv_general_dilated':
        result, kernel = shaped(equation.outvars[0]), shaped(equation.invars[1])
        numbers = equation.params['dimension_numbers']
        per_output = math.prod(kernel.shape) // kernel.shape[numbers.rhs_spec[0]]
        return 'conv', math.prod(result.shape) * per_output // equation.params['batch_group_count']
    if name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        x, result = shaped(equation.invars[0]), shaped(equation.outvars[0])
        depth = math.prod(x.shape[axis] for axis in contracted)
        return 'dense', math.prod(result.shape) * depth
    if name.startswith('reduce_window') or (name in ('reduce_sum', 'reduce_max') and _is_spatial(equation)):
        return 'pool', 0
    return None, 0


def _is_spatial(equation: core.JaxprEqn) -> bool:
    return len(shaped(equation.invars[0]).shape) == 4 and {1, 2} <= set(equation.params['axes'])


def _result_field(equation: core.JaxprEqn, known: list[_Field | None]) -> _Field | None:
    name, parameters = equation.primitive.name, equation.params
    fields = [field for field in known if field is not None]
    if not fields:
        return None
    field = fields[0]
    for other in fields[1:]:
        field = field.union(other)
    shape = shaped(equation.invars[0]).shape
    if name == 'conv_general_dilated':
        spatial = parameters['dimension_numbers'].rhs_spec[2:]
        kernel = [shaped(equation.invars[1]).shape[axis] for axis in spatial]
        extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, parameters['rhs_dilation'], strict=True))
        return field.window(extent, parameters['window_strides'])
    if name.startswith('reduce_window') and len(shape) == 4:
        return field.window(tuple(parameters['window_dimensions'][1:3]), tuple(parameters['window_strides'][1:3]))
    if name in ('reduce_sum', 'reduce_max') and _is_spatial(equation):
        return field.window(shape[1:3])
    if name == 'slice' and len(shape) == 4 and parameters['strides']:
        return field.window((1, 1), tuple(parameters['strides'][1:3]))
    result = shaped(equation.outvars[0]).shape
    if name == 'reshape' and len(shape) == 4 and result[1:3] != shape[1:3]:  # flattened
        return field.window(shape[1:3])
    return field
