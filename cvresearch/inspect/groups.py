"""The layers of a net in groups, from the input to the output: which may learn at rates of their own, or be frozen."""

import re
from typing import NamedTuple

import flax.linen as nn

from cvresearch.base.errors import UserError
from cvresearch.inspect import cost, features

HEAD = 'head'
BY = ('stage', 'block')


class Group(NamedTuple):
    """Layers that are frozen, or learn at one rate, together.

    Attributes:
      name: 'stem', 'stage2' or 'stage2_block0', 'last' (what is between the stages and the head), 'head'; in a net
        without stages a layer's name.
      pattern: a regular expression for the paths of its modules, as `updates.freeze` takes it.
    """

    name: str
    pattern: str


def param_groups(model: nn.Module, image_shape: tuple[int, int, int], by: str = 'stage') -> list[Group]:
    """Returns the groups of a net's parameters, from the input to the output; every parameter is in one.

    A norm is in the group of the layer before it. Auxiliary heads are in the last group, with the head.

    Args:
      model: of `registry.build`.
      image_shape: (height, width, channels).
      by: 'stage', or 'block': each block of a stage is a group, and what is between the stages and the head is with
        the last block, as in timm's `param_groups_layer_decay`.

    Raises:
      UserError: an unknown `by`.
    """
    if by not in BY:
        raise UserError(f'layers can be grouped by {" or by ".join(BY)}, not by {by!r}')
    params = cost.block_shapes(model, image_shape)['params']
    order = [name for name in features.names(model, image_shape) if name in params]
    stages = [place for place, name in enumerate(order) if features.stage_of(name)]
    members: dict[str, list[str]] = {}
    for place, name in enumerate(order):
        before = next(reversed(members), None)
        if name == HEAD:
            key = HEAD
        elif features.stage_of(name):
            key = name if by == 'block' else features.stage_of(name)
        elif not stages:
            key = before if before and _is_norm(params[name]) else name
        elif place < stages[0]:
            key = 'stem'
        else:
            key = 'last' if place > stages[-1] and by == 'stage' else str(before)
        members.setdefault(key, []).append(name)
    last = next(reversed(members))
    members[last] += [name for name in params if name not in order]  # auxiliary heads, which only training calls
    return [Group(name, _pattern(name, names, by)) for name, names in members.items()]


def _is_norm(params: dict) -> bool:
    return not params.keys() - {'scale', 'bias'} and 'scale' in params


def _pattern(group: str, names: list[str], by: str) -> str:
    if by == 'stage' and all(features.stage_of(name) == group for name in names):
        return f'{re.escape(group)}_.*'
    return '|'.join(map(re.escape, names))


def input_kernel(model: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """Returns the path of the kernel that is applied to the image, 'stem_conv/kernel'."""
    first: list[str] = []

    def note(call, arguments, keywords, context):
        result = call(*arguments, **keywords)
        if not first and 'kernel' in context.module.variables.get('params', {}):
            first.append('/'.join((*context.module.path, 'kernel')))
        return result

    with nn.intercept_methods(note):
        cost.shapes(model, image_shape)
    return first[0]
