"""A net as a program: every value inside it by name, and other gradients for its activations.

The net is traced once and run equation by equation. So whatever it computes can be read, have a
gradient, or follow another rule of backpropagation, and no model needs a change: an activation is
found by the function that the program calls, whether a layer, a table or an argument named it.

Names of values:
- 'stage4_block1/conv2' is what that module returns;
- 'last_bn+relu' is what the function `relu` returns, called after `last_bn` by the module around it;
- 'pool5' is the result of that scope, which is no module; 'stage2' is the result of the stage's last module.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core
from jaxtyping import Array, Float

from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError, nearest
from cvresearch.inspect.jaxprs import shaped
from cvresearch.nn.overrides import Net, separate

# Functions that are one step of the program, by the name that JAX gives them.
ACTIVATIONS = ('relu', 'relu6', 'silu', 'elu', 'leaky_relu', 'hard_swish', 'hard_sigmoid')
Rule = Callable[[str, jax.Array], jax.Array | None]
Images = Float[AnyArray, 'batch height width channels']
Logits = Float[Array, 'batch classes']


@dataclasses.dataclass(frozen=True)
class Literal:
    """A number that stands in the program itself."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Step:
    """One equation.

    Attributes:
      equation: of the traced program.
      inputs: places of its arguments among the values; literals as they are.
      outputs: places of its results.
      function: the name of what is called: 'relu', 'conv', 'add'.
    """

    equation: core.JaxprEqn
    inputs: tuple[int | Literal, ...]
    outputs: tuple[int, ...]
    function: str


@dataclasses.dataclass
class Program:
    """A net, traced for a batch of images, as a flat list of steps.

    Attributes:
      net: name of the net's class, for messages.
      steps: in the order in which they run.
      constants: values that the program holds, by place.
      variables: places of the leaves of the variables.
      images: place of the images.
      logits: place of the result.
      shapes: shape of the value at each place.
      names: place of each value that has a name.
      modules: the names that are modules'.
      auxiliary: places of the logits of auxiliary heads, which a net may have in training.
    """

    net: str
    steps: list[Step]
    constants: dict[int, Any]
    variables: tuple[int, ...]
    images: int
    logits: int
    shapes: dict[int, tuple[int, ...]]
    names: dict[str, int]
    modules: frozenset[str] = frozenset()
    auxiliary: tuple[int, ...] = ()

    def place(self, name: str) -> int:
        """Returns the place of a value by its name.

        Raises:
          UserError: the net has no such value.
        """
        if name not in self.names:
            raise UserError(f'{self.net} has no layer {name!r}; {nearest(name, self.names)}')
        return self.names[name]

    def map_place(self, name: str) -> int:
        """Returns the place of a feature map, a value with height and width.

        Raises:
          UserError: the net has no such value, or it has no spatial extent.
        """
        place = self.place(name)
        if not _is_map(self.shapes[place]):
            shape = 'x'.join(map(str, self.shapes[place][1:]))
            raise UserError(
                f'layer {name!r} of {self.net} gives {shape}, no map with height and width; choose a layer before it, '
                f'such as {self.name(last_map(self))!r}'
            )
        return place

    def name(self, place: int) -> str:
        """Returns the shortest name of a place."""
        return min((name for name, other in self.names.items() if other == place), key=lambda n: ('+' in n, len(n)))

    def run(
        self,
        variables: dict,
        images: Images,
        keep: Sequence[int] = (),
        add: Mapping[int, jax.Array] | None = None,
        rule: Rule | None = None,
    ) -> tuple[Logits, list[jax.Array]]:
        """Runs the program.

        Args:
          variables: as those it was traced with.
          images: likewise.
          keep: places whose values are returned.
          add: numbers that are added to values, by place: zeros, whose gradient equals the value's.
          rule: takes the name of an activation and its input; returns its output, with whatever gradient it
            likes, or None to leave the activation as it is.

        Returns:
          (logits, the kept values).
        """
        values = dict(self.constants)
        values |= dict(zip(self.variables, jax.tree.leaves(variables), strict=True)) | {self.images: images}
        for step in self.steps:
            arguments = [x.value if isinstance(x, Literal) else values[x] for x in step.inputs]
            result = rule(step.function, arguments[0]) if rule and step.function in ACTIVATIONS else None
            if result is None:
                equation = step.equation
                result = equation.primitive.bind(*arguments, **equation.primitive.get_bind_params(equation.params))
                result = result if equation.primitive.multiple_results else [result]
            else:
                result = [result]
            for place, value in zip(step.outputs, result, strict=True):
                values[place] = value + add[place] if add and place in add else value
        return values[self.logits], [values[place] for place in keep]


def trace(module: nn.Module, variables: dict, images: Images | jax.ShapeDtypeStruct, train: bool = False) -> Program:
    """Returns the program of a net.

    Args:
      module: the net.
      variables: its parameters and statistics with every block by itself (`separate`), or their shapes.
      images: (batch, height, width, channels), or their shape.
      train: as in training: norms by the statistics of the batch, one draw of dropout, auxiliary heads; the running
        statistics stay as they are. In evaluation mode otherwise.
    """

    def net(variables, images):
        with nn.intercept_methods(_named):
            if not train:
                return module.apply(variables, images, train=False)
            kept = [name for name in variables if name != 'params']
            rngs = {'dropout': jax.random.key(0)}
            outputs, _ = cast(tuple, module.apply(variables, images, train=True, mutable=kept, rngs=rngs))
            return outputs  # logits, or (logits, those of auxiliary heads)

    closed = jax.make_jaxpr(net)(variables, images)
    wrapped = isinstance(module, Net)  # whose scope is around the net's
    return _Flattening(type(module.model if wrapped else module).__name__, 1 + wrapped).program(closed)


def outline(module: nn.Module, variables: dict, images: Images) -> Program:
    """Returns the program, kept from call to call, for its names and shapes: tracing takes longer than many runs."""
    leaves, structure = jax.tree.flatten((variables, images))
    return _outline(module, structure, tuple((tuple(leaf.shape), jnp.dtype(leaf.dtype)) for leaf in leaves))


@functools.lru_cache(maxsize=8)
def _outline(module: nn.Module, structure, leaves: tuple) -> Program:
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves]
    return trace(module, *structure.unflatten(shapes))


@functools.partial(jax.jit, static_argnames='module')
def logits(module: nn.Module, variables: dict, images: Images) -> Logits:
    """Returns the logits of images in evaluation mode."""
    return cast(jax.Array, module.apply(variables, images, train=False))


def layers(module: nn.Module, variables: dict, image_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Returns the names of a net's values, and the shape of each for one image; nothing is computed."""
    module, variables = separate(module, variables)
    program = trace(module, variables, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return {name: program.shapes[place][1:] for name, place in program.names.items()}


def last_map(program: Program) -> int:
    """Returns the place of the last feature map through which everything passes, before pooling.

    Grad-CAM's "last convolutional layer" (Selvaraju et al. 2017, section 3): from there on no value but this map leads
    from the image to the logits. A pooling after the last layer with parameters is left out, since it only makes
    the map coarser: VGG's is 14x14, not 7x7.

    Raises:
      UserError: the net has no such map (a perceptron).
    """
    last_use = {place: i for i, step in enumerate(program.steps) for place in step.inputs if isinstance(place, int)}
    last_use[program.logits] = len(program.steps)
    parameters, alive, segment = set(program.variables), {program.images}, 0
    dependent = {program.images}
    maps: list[tuple[int, int]] = []  # (number of layers with parameters so far, place)
    for i, step in enumerate(program.steps):
        inputs = {place for place in step.inputs if isinstance(place, int)}
        if not inputs & dependent:
            parameters |= set(step.outputs) if inputs & parameters else set()
            continue
        segment += bool(inputs & parameters)
        dependent |= set(step.outputs)
        alive = {place for place in alive | set(step.outputs) if last_use.get(place, -1) > i}
        if len(alive) == 1 and _is_map(program.shapes[next(iter(alive))]):
            maps.append((segment, next(iter(alive))))
    if not maps:
        raise UserError(f'{program.net} has no feature map with height and width to look at')
    places = [place for number, place in maps if number == maps[-1][0]]
    size = program.shapes[places[0]][1:3]
    pooled = [i for i, place in enumerate(places) if program.shapes[place][1:3] != size]
    return places[: pooled[0] if pooled else None][-1]


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and math.prod(shape[1:3]) > 1


def _named(call, arguments, keywords, context):
    result = call(*arguments, **keywords)
    if context.method_name == '__call__' and context.module.path and isinstance(result, jax.Array):
        return checkpoint_name(result, '/'.join(context.module.path))
    return result


class _Flattening:
    """Puts a traced program and those that it calls into one list of steps."""

    def __init__(self, net: str, outside: int):
        self.net = net
        self.outside = outside  # scopes around the modules' own
        self.steps: list[Step] = []
        self.constants: dict[int, Any] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.names: dict[str, int] = {}
        self.modules: set[str] = set()
        self.latest: dict[str, str] = {}  # by scope, the module in it that was called last

    def program(self, closed: core.ClosedJaxpr) -> Program:
        jaxpr = closed.jaxpr
        places = {v: self._new(v) for v in [*jaxpr.constvars, *jaxpr.invars]}
        self.constants |= {places[v]: value for v, value in zip(jaxpr.constvars, closed.consts, strict=True)}
        *variables, images = (places[v] for v in jaxpr.invars)
        self._enter(jaxpr, places, '')
        logits, *auxiliary = (places[v] for v in jaxpr.outvars)
        return Program(
            self.net,
            self.steps,
            self.constants,
            tuple(variables),
            images,
            logits,
            self.shapes,
            self.names,
            frozenset(self.modules),
            tuple(auxiliary),
        )

    def _new(self, variable: core.Var) -> int:
        place = len(self.shapes)
        self.shapes[place] = tuple(shaped(variable).shape)
        return place

    def _enter(self, jaxpr: core.Jaxpr, places: dict[Any, Any], prefix: str) -> None:
        for equation in jaxpr.eqns:
            inputs = tuple(Literal(v.val) if isinstance(v, core.Literal) else places[v] for v in equation.invars)
            scope = '/'.join(filter(None, (prefix, _scope(equation))))
            body, function = _body(equation), _function(equation)
            if body is None:
                outputs = tuple(self._new(v) for v in equation.outvars)
                self.steps.append(Step(equation, inputs, outputs, function))
            else:
                inner: dict[Any, Any] = dict(zip(body.jaxpr.invars, inputs, strict=True))
                for v, value in zip(body.jaxpr.constvars, body.consts, strict=True):
                    inner[v] = self._new(v)
                    self.constants[inner[v]] = value
                self._enter(body.jaxpr, inner, scope)
                outputs = tuple(inner[v] if isinstance(v, core.Var) else Literal(v.val) for v in body.jaxpr.outvars)
            places |= dict(zip(equation.outvars, outputs, strict=True))
            if isinstance(outputs[0], int):
                self._name(equation, '/'.join(scope.split('/')[self.outside :]), function, outputs[0])

    def _name(self, equation: core.JaxprEqn, scope: str, function: str, place: int) -> None:
        if equation.primitive.name == 'name':
            path = equation.params['name']
            self.names[path] = place
            self.modules.add(path)
            self.latest[path.rpartition('/')[0]] = path
            if stage := re.fullmatch(r'(stage\d+)_\w+', path):
                self.names[stage[1]] = place
            return
        if scope and scope not in self.modules and '.' not in scope:
            self.names[scope] = place  # until the module returns, or for good where it is a scope only
        if scope in self.latest or not scope:
            name = f'{self.latest.get(scope, "image")}+{function}'
            while self.names.get(name, place) != place:  # called more than once
                name += "'"
            self.names[name] = place


def _scope(equation: core.JaxprEqn) -> str:
    """Returns the path of an equation without what transformations add."""
    parts = str(equation.source_info.name_stack).split('/')
    return '/'.join(part for part in parts if part and '(' not in part)


def _body(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the program that an equation calls, None where it is one step."""
    if equation.primitive.name in ('jit', 'pjit', 'closed_call', 'remat2', 'checkpoint'):
        body = equation.params['jaxpr']
        if _function(equation) not in ACTIVATIONS:
            return body if isinstance(body, core.ClosedJaxpr) else core.ClosedJaxpr(body, ())
    return None


def _function(equation: core.JaxprEqn) -> str:
    """Returns the name of the function that an equation calls, or of the operation that it is."""
    if equation.primitive.name == 'custom_jvp_call':
        return equation.params['call_jaxpr'].jaxpr.debug_info.func_name.rpartition('.')[2].strip('_')
    return equation.params.get('name', equation.primitive.name) if _calls(equation) else equation.primitive.name


def _calls(equation: core.JaxprEqn) -> bool:
    return equation.primitive.name in ('jit', 'pjit', 'closed_call')
