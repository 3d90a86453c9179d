"""Pytrees whose leaves have names: 'C1/kernel'.

Identical blocks of a net may be one entry, named after its first and last, 'stage1_block1-17', whose
leaves have the block as first axis (nn/stacked.py).
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax import tree_util

STACKED = re.compile(r'(.*?)(\d+)-(\d+)')  # stage1_block1-17


def key_name(entry) -> str:
    """Returns the plain name of one entry of a JAX key path."""
    match entry:
        case tree_util.DictKey(key=name) | tree_util.FlattenedIndexKey(key=name):
            return str(name)
        case tree_util.GetAttrKey(name=name) | tree_util.SequenceKey(idx=name):
            return str(name)
    return str(entry)


def named_leaves(tree) -> list[tuple[str, jax.Array]]:
    """Returns [(path, leaf)], sorted by path, with '/' between the names."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return sorted((('/'.join(map(key_name, path)), leaf) for path, leaf in leaves), key=lambda pair: pair[0])


def nested(leaves: Mapping[str, Any]) -> dict:
    """Returns the nested dict of leaves by path, 'params/conv1/kernel'; what `named_leaves` is of."""
    return traverse_util.unflatten_dict(leaves, sep='/')


def owner(path: str, names) -> str:
    """Returns the name that a path ends with, '' where there is none.

    Args:
      path: of a moment or an average, 'opt_state/1/0/trace/C1/kernel'.
      names: of the parameters, with 'C1/kernel' among them.
    """
    while path and path not in names:
        path = path.partition('/')[2]
    return path


def count(tree) -> int:
    """Returns the number of elements of all leaves (arrays or shape structs)."""
    return sum(int(np.prod(leaf.shape, dtype=np.int64)) for leaf in jax.tree.leaves(tree))


def sha256(tree) -> str:
    """Returns the hexadecimal SHA-256 over names, shapes, dtypes and bytes of all leaves.

    Two trees have one digest exactly when they are equal bit for bit.
    """
    digest = hashlib.sha256()
    for name, leaf in named_leaves(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f'{name} {array.shape} {array.dtype}\n'.encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def is_stacked(path: str) -> bool:
    """Whether the first axis of the leaf of this path is the block."""
    return any(STACKED.fullmatch(part) for part in path.split('/'))


def block_names(path: str) -> list[str]:
    """Returns the paths of the blocks that a path stands for; the path alone where it stands for itself.

    Args:
      path: 'stage1_block1-2/conv1/kernel' gives ['stage1_block1/conv1/kernel', 'stage1_block2/conv1/kernel'].
    """
    parts = path.split('/')
    for place, part in enumerate(parts):
        if match := STACKED.fullmatch(part):
            prefix, first, last = match.groups()
            return [
                '/'.join([*parts[:place], f'{prefix}{number}', *parts[place + 1 :]])
                for number in range(int(first), int(last) + 1)
            ]
    return [path]
