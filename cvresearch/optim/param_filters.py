"""Parameters chosen by the paths of their names: which are decayed, frozen, or learn at a rate of their own.

A pattern is a regular expression that must match a whole path, 'stage1_block0/conv1/kernel', or the whole path
of a module above it: 'stage1_block0', 'stage1_.*', '.*/bias'. Stacked blocks (nn/stacked.py) go by their own names.
"""

import difflib
import re
from collections.abc import Callable, Iterable

import jax
import numpy as np
import optax

from cvresearch.base import trees
from cvresearch.base.errors import UserError


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches a path or the path of a module above it."""
    parts = path.split('/')
    return any(re.fullmatch(pattern, '/'.join(parts[:depth])) for depth in range(1, len(parts) + 1))


def values(params, value_of: Callable[[str], float]):
    """Returns a tree like `params` of one number for each parameter.

    Args:
      params: of the stacked or of the plain layout.
      value_of: of the path of one parameter, block by block.

    Returns:
      For a stacked leaf whose blocks differ an array (blocks, 1, ...), to be multiplied with it; else a float.
    """

    def leaf(path, x):
        name = '/'.join(map(trees.key_name, path))
        factors = [float(value_of(block)) for block in trees.block_names(name)]
        if len(set(factors)) == 1:
            return factors[0]
        return np.array(factors, np.float32).reshape(-1, *[1] * (x.ndim - 1))

    return jax.tree_util.tree_map_with_path(leaf, params)


def is_stacked(params):
    """Returns a tree like `params`: whether the first axis of a leaf is the block."""

    def leaf(path, _):
        return trees.is_stacked('/'.join(map(trees.key_name, path)))

    return jax.tree_util.tree_map_with_path(leaf, params)


def without(tree, where: Callable[[str], bool]):
    """Returns the tree with an empty node in the place of each leaf whose path `where` chooses.

    A stacked leaf goes where all its blocks do.
    """

    def leaf(path, x):
        name = '/'.join(map(trees.key_name, path))
        return optax.MaskedNode() if all(map(where, trees.block_names(name))) else x

    return jax.tree_util.tree_map_with_path(leaf, tree)


def merged(part, filling):
    """Returns the tree `part` of `without` with the leaves of `filling` in its empty nodes."""
    is_empty = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda x, other: other if is_empty(x) else x, part, filling, is_leaf=is_empty)


def kept(old, new, where: Callable[[str], bool]):
    """Returns the tree `new` with the leaves of `old` whose paths `where` chooses."""

    def leaf(path, before, after):
        return before if where('/'.join(map(trees.key_name, path))) else after

    return jax.tree_util.tree_map_with_path(leaf, old, new)


def check(what: str, patterns: Iterable[str], params) -> None:
    """Checks that every pattern matches a parameter.

    Args:
      what: has them, for the message ("config.updates.freeze").

    Raises:
      UserError: a pattern is not a regular expression, or matches nothing (the nearest paths are shown).
    """
    paths = [block for name, _ in trees.named_leaves(params) for block in trees.block_names(name)]
    for pattern in patterns:
        try:
            matched = any(matches(pattern, path) for path in paths)
        except re.error as error:
            raise UserError(f'{what}: {pattern!r} is not a regular expression ({error})') from error
        if not matched:
            modules = {'/'.join(path.split('/')[:depth]) for path in paths for depth in range(1, path.count('/') + 2)}
            plain = re.sub(r'[^\w/]', '', pattern)
            close = difflib.get_close_matches(plain, sorted(modules), n=3, cutoff=0.3) or sorted(modules)[:3]
            raise UserError(f'{what}: {pattern!r} matches no parameter; the nearest paths are {", ".join(close)}')
