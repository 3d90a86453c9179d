"""Identical blocks, one after another, compiled once: a deep stage costs the compile time of one block.

A block's variables have its own name (stage1_block3/conv1/kernel) whether the blocks are unrolled
or scanned, so that imported weights are the same for both. Scanning then joins the variables of all
blocks at the start of each call (a copy) and cuts the new batch statistics and the gradients up
again. Those pieces, and what an optimizer does to each, still cost compile time, more than in
proportion to the depth. `stacked=True` has neither cost: all blocks of a stage are one entry,
stage1_block1-17/conv1/kernel, with the block as first axis. The state of a run is kept so while it
trains; outside, in checkpoints and digests, every block has its names. `unstack` and `stack` turn the
one layout into the other, for variables and for whatever has their structure (optimizer states). An
optimizer must not go by the axes of a leaf, nor by its norm: those differ between the layouts.

Initial values, and dropout and other random draws, are the same in all three: block k of a stage
draws from the key of the stage with k folded in.
"""

import re
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core.scope import LazyRng, Scope
from jax import lax
from jaxtyping import Float, Shaped

from cvresearch.base.arrays import JaxArray
from cvresearch.base.trees import STACKED
from cvresearch.nn.remat import KEEP, marked, rematerialised

FEWEST = 3  # blocks that are scanned: fewer take longer to compile in a loop than one after another, and longer to run


def repeat(
    parent: nn.Module,
    block: Callable[..., nn.Module],
    prefix: str,
    numbers: Sequence[int],
    x: Float[JaxArray, '*shape'],
    *per_block: Shaped[JaxArray, 'blocks ...'],
    scan: bool = True,
    remat: bool = False,
    stacked: bool = False,
) -> Float[JaxArray, '*shape']:
    """Applies blocks to x, one after another; to be called in the `nn.compact` method of `parent`.

    Values that a block sows, and captured intermediates, are kept only where it is unrolled.

    Args:
      parent: the module whose children the blocks are.
      block: makes one of them, given `name` and `parent`: a linen class, or a partial of one. Its
        call takes x and one element of each of `per_block`, and returns an array like x.
      prefix: of their names, 'stage1_block'.
      numbers: the numbers in their names, consecutive; none at all returns x.
      x: input of the first block.
      *per_block: arrays whose first axis is the block, such as drop rates.
      scan: compile the block once, as the body of a `lax.scan`; otherwise, or where there are fewer than `FEWEST`
        blocks, as often as it occurs.
      remat: in the backward pass compute a block anew from its input, instead of keeping its values.
      stacked: keep the variables in one entry for all blocks (only where `scan`).

    Returns:
      The output of the last block, like x.
    """
    if not len(numbers):
        return x
    scan = scan and len(numbers) >= FEWEST
    names = [f'{prefix}{number}' for number in numbers]
    entry = f'{prefix}{numbers[0]}-{numbers[-1]}'
    keys = _keys(parent, len(names))
    if parent.is_initializing():
        _initialize(parent, block, names, entry if stacked and scan else None, keys, x, per_block)
    if scan:
        return _scanned(parent, block, names, entry, keys, x, per_block, remat)
    run = rematerialised(_call) if remat else _call
    for j, name in enumerate(names):
        scope = _scope(parent).push(name)
        scope.rngs = {stream: LazyRng.create(key[j]) for stream, key in keys.items()}
        x = run(block(name=name, parent=scope), x, *(values[j] for values in per_block))
    return x


class Repeating(nn.Module, kw_only=True):
    """A net whose stages are identical blocks, one after another.

    Attributes:
      scan, remat, stacked: as `repeat` takes them.
    """

    scan: bool = True
    remat: bool = False
    stacked: bool = False

    @nn.nowrap
    def repeat(
        self,
        block: Callable[..., nn.Module],
        prefix: str,
        numbers: Sequence[int],
        x: Float[JaxArray, '*shape'],
        *per_block: Shaped[JaxArray, 'blocks ...'],
    ) -> Float[JaxArray, '*shape']:
        """Applies blocks to x, see `repeat`; to be called in the net's `nn.compact` method."""
        knobs = dict(scan=self.scan, remat=self.remat, stacked=self.stacked)
        return repeat(self, block, prefix, numbers, x, *per_block, **knobs)


def with_stacked(model: nn.Module) -> nn.Module:
    """Returns the net with its variables in the stacked layout; itself where it repeats no blocks."""
    return model.clone(stacked=True) if isinstance(model, Repeating) else model


def with_remat(model: nn.Module) -> nn.Module:
    """Returns the net whose repeated blocks are computed anew in the backward pass; itself where it repeats none."""
    return model.clone(remat=True) if isinstance(model, Repeating) else model


def unrolled(model: nn.Module) -> nn.Module:
    """Returns the net with its blocks one by one, and their variables so; itself where it repeats none."""
    return model.clone(scan=False, stacked=False) if isinstance(model, Repeating) else model


def unstack(tree):
    """Returns the tree with every stacked entry replaced by one for each block.

    Args:
      tree: variables, or any pytree that holds dicts of their structure. Of NumPy's arrays the blocks
        are views, at no cost; JAX's are cut up on the device.
    """

    def of_dict(node):
        if not _has_entries(node):
            return node
        result = {}
        for name, value in node.items():
            match = STACKED.fullmatch(name)
            if match is None:
                result[name] = value
                continue
            names = _names(match)
            result.update(zip(names, _split(value, len(names)), strict=True))
        return result

    return jax.tree.map(of_dict, tree, is_leaf=_has_entries)


def stack(tree, like):
    """Returns the tree with blocks joined where `like`, of the stacked layout, has one entry for them.

    Args:
      tree: as `unstack` returns it.
      like: the same in the stacked layout; only its structure counts.
    """

    def of_dict(node, blocks):
        if not _has_entries(node):
            return blocks
        result = {}
        for name in node:
            match = STACKED.fullmatch(name)
            result[name] = blocks[name] if match is None else _join([blocks[block] for block in _names(match)])
        return result

    return jax.tree.map(of_dict, like, tree, is_leaf=_has_entries)


def block_path(path: str, number: int) -> str:
    """Returns a module path with the name of one block in place of the entry of all, if it has one.

    Args:
      path: 'stage1_block1-17/conv1', as the body of the scan has it.
      number: of the block in the entry, from 0: 2 gives 'stage1_block3/conv1'.
    """
    parts = [(part, STACKED.fullmatch(part)) for part in path.split('/')]
    return '/'.join(f'{match[1]}{int(match[2]) + number}' if match else part for part, match in parts)


def _has_entries(node) -> bool:
    return isinstance(node, dict) and any(isinstance(name, str) and STACKED.fullmatch(name) for name in node)


def _names(match: re.Match) -> list[str]:
    prefix, first, last = match.groups()
    return [f'{prefix}{number}' for number in range(int(first), int(last) + 1)]


def _call(module: nn.Module, *arguments) -> jax.Array:
    return module(*arguments)


def _scope(module: nn.Module) -> Scope:
    if module.scope is None:
        raise ValueError(f'{type(module).__name__} is not bound: blocks are repeated in an `nn.compact` method')
    return module.scope


def _keys(parent: nn.Module, count: int) -> dict[str, jax.Array]:
    """Returns, for each random stream of the call, the keys of the blocks."""
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    return {stream: fold(parent.make_rng(stream), jnp.arange(count)) for stream in _scope(parent).rngs}


def _initialize(parent: nn.Module, block, names: list[str], entry: str | None, keys, x, per_block) -> None:
    """Makes the variables of all blocks by initialising one in a loop.

    A loop, since random numbers for a batch of keys (`vmap`) take several times as long to compile.
    """
    module = block(name=names[0], parent=None)
    example = jnp.zeros_like(x)  # the block's output is not used, so the compiler drops its convolutions
    variables = lax.map(lambda slices: module.init(slices[0], example, *slices[1]), (keys, per_block))
    for collection, tree in variables.items():
        if entry:
            parent.put_variable(collection, entry, tree)
        else:
            _put_each(parent, collection, names, tree)


def _scanned(parent: nn.Module, block, names: list[str], entry: str, keys, x, per_block, remat: bool) -> jax.Array:
    collections = parent.variables
    stacked = any(entry in tree for tree in collections.values())
    if stacked:
        variables = {collection: tree[entry] for collection, tree in collections.items() if entry in tree}
    else:
        variables = {
            collection: _join([tree[name] for name in names])
            for collection, tree in collections.items()
            if names[0] in tree
        }
    mutable = [name for name in variables if name != 'params' and parent.is_mutable_collection(name)]
    module = block(name=entry, parent=None)

    def body(x, slices):
        variables, keys, arguments = slices
        return module.apply(variables, x, *arguments, rngs=keys, mutable=mutable)

    # Inside a scan the compiler cannot undo it by sharing values, so the guard against that would only cost.
    body = jax.checkpoint(marked(body), prevent_cse=False, policy=KEEP) if remat else body
    x, changed = lax.scan(body, x, (variables, keys, per_block))
    if not parent.is_initializing():
        for collection, tree in changed.items():
            if stacked:
                parent.put_variable(collection, entry, tree)
            else:
                _put_each(parent, collection, names, tree)
    return x


def _put_each(parent: nn.Module, collection: str, names: list[str], tree) -> None:
    for name, part in zip(names, _split(tree, len(names)), strict=True):
        parent.put_variable(collection, name, part)


def _join(trees: list):
    """Stacks trees leaf by leaf, along a new first axis."""

    def leaf(*leaves):
        if isinstance(leaves[0], np.ndarray):
            return np.stack(leaves)
        if leaves[0].ndim == 0:
            return jnp.stack(leaves)
        # Not jnp.stack: that traces one more operation for each of what may be thousands of leaves.
        return lax.concatenate(leaves, 0).reshape(len(leaves), *leaves[0].shape)

    return jax.tree.map(leaf, *trees)


def _split(tree, count: int) -> list:
    """Returns the `count` trees that `_join` stacked."""

    def leaf(stacked):
        if isinstance(stacked, np.ndarray):
            return [stacked[j, ...] for j in range(count)]
        if stacked.ndim == 1:
            return list(stacked)
        rows = stacked.shape[1]
        return lax.split(stacked.reshape(count * rows, *stacked.shape[2:]), (rows,) * count)

    leaves, structure = jax.tree.flatten(tree)
    if not leaves:  # the part of an optimizer that has nothing to do with these blocks
        return [tree] * count
    return [structure.unflatten(parts) for parts in zip(*map(leaf, leaves), strict=True)]
