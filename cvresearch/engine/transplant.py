"""Variables of one net into another: strict, and by stated rules where heads or input channels differ."""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import numpy as np

from cvresearch.base import trees
from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError
from cvresearch.inspect import groups
from cvresearch.interop.classifier import Classifier
from cvresearch.models import registry
from cvresearch.optim.param_filters import matches

HEADS = ('new', 'keep')
INPUTS = ('adapt', 'strict')
SHOWN = 3  # paths in a message


@dataclasses.dataclass(frozen=True)
class Transplant:
    """What came of it.

    Attributes:
      variables: of the run's net, its blocks one by one.
      loaded: how many arrays are of the weights.
      new: modules, or single arrays, that are not of the weights: a head begins at zero (Kolesnikov et al. 2020,
        arXiv:1912.11370, "BiT"), anything else keeps its initial values.
      left_over: modules, or single arrays, of the weights that are not used.
      adapted: {path: by which rule}.
    """

    variables: dict
    loaded: int
    new: list[str]
    left_over: list[str]
    adapted: dict[str, str]


def transplanted(
    net: Classifier,
    initial: dict,
    skip: tuple[str, ...] = (),
    order: np.ndarray | None = None,
    inputs: str = 'adapt',
    channels: str = 'RGB',
) -> Transplant:
    """Puts a net's variables in the place of initial values.

    Args:
      net: whose weights are taken.
      initial: initial variables of the run's net, its blocks one by one.
      skip: patterns (`optim/param_filters.py`) of what is new all the same.
      order: at which outputs of `net` the run's classes are; None for a new head.
      inputs: 'adapt' the first layer to the run's input channels, or 'strict': refuse others.
      channels: of the run's images, 'RGB' or 'BGR'.

    Raises:
      UserError: arrays that are missing, left over or of another shape, of no head and not skipped; a pattern that
        matches nothing.
    """
    theirs, mine = (dict(trees.named_leaves(tree)) for tree in (net.variables, initial))
    _check_skip(skip, {_name(path) for path in (*theirs, *mine)})
    reorder = order is not None and not np.array_equal(order, np.arange(len(order)))
    auxiliary = _auxiliary(net.provenance.variant)
    first = f'params/{groups.input_kernel(net.module, net.input_shape)}'
    convert, rule = _converter(net, mine.get(first), theirs.get(first), inputs, channels)

    def is_new(path: str) -> bool:
        # Auxiliary heads are new with the head, and where its classes move.
        heads = (_module(path) == groups.HEAD and order is None) or (auxiliary(path) and (order is None or reorder))
        return heads or any(matches(pattern, _name(path)) for pattern in skip)

    def begins(path: str, leaf: AnyArray) -> AnyArray:
        # A head of few classes may have large initial values, and its gradient would spoil what is loaded.
        skipped = any(matches(pattern, _name(path)) for pattern in skip)
        return leaf if _module(path) != groups.HEAD or skipped else np.zeros_like(leaf)

    filled, new, adapted, missing, wrong = {}, [], {}, [], []
    for path, leaf in mine.items():
        if is_new(path) or (path not in theirs and (auxiliary(path) or path.endswith('/steps'))):
            filled[path] = begins(path, leaf)
            new.append(path)
            continue
        if path not in theirs:
            missing.append(_name(path))
            continue
        array = np.asarray(theirs[path])
        if path == first and rule:
            array, adapted[_name(path)] = convert(array), rule
        elif reorder and _module(path) == groups.HEAD:
            array, adapted[_name(path)] = array[..., order], "outputs in the order of the run's classes"
        if array.shape != leaf.shape:
            wrong.append(f'{_name(path)} {list(array.shape)} for {list(leaf.shape)}')
        filled[path] = array.astype(leaf.dtype)
    # What finds no place is refused: to drop it unsaid would start from half a net.
    unplaced = [path for path in theirs if path not in mine or path in new]
    refused = [_name(path) for path in unplaced if not is_new(path) and not auxiliary(path)]
    _check(net, (('missing', missing), ('of another shape', wrong), ('left over', refused)))
    variables = jax.tree_util.tree_map_with_path(lambda path, _: filled['/'.join(map(trees.key_name, path))], initial)
    return Transplant(variables, len(mine) - len(new), _collapsed(new, mine), _collapsed(unplaced, theirs), adapted)


def _check(net: Classifier, problems: Iterable[tuple[str, list[str]]]) -> None:
    phrases = [
        f'{len(names)} {what} ({", ".join(sorted(names)[:SHOWN])}{", ..." if len(names) > SHOWN else ""})'
        for what, names in problems
        if names
    ]
    if phrases:
        raise UserError(
            f"the weights of {net.provenance.name} do not fit the run's net: {'; '.join(phrases)}; give the net the "
            'arguments (config.model) and the size of images of the weights, or name what is to be new in '
            'config.init.skip'
        )


def _check_skip(skip: tuple[str, ...], names: set[str]) -> None:
    for pattern in skip:
        if not any(matches(pattern, name) for name in names):
            raise UserError(f'config.init.skip: {pattern!r} matches no array; expected such as {min(names)}')


def _converter(
    net: Classifier, initial: AnyArray | None, kernel: AnyArray | None, inputs: str, channels: str
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Returns what is done to the kernel of the first layer, and in words; '' where it stays.

    Raises:
      UserError: it cannot be done.
    """
    if initial is None or kernel is None:
        return np.asarray, ''
    order = net.preprocessing.channels
    reverse = {order, channels} == {'RGB', 'BGR'}
    had, has = kernel.shape[-2], initial.shape[-2]
    if kernel.ndim != 4 or had == has:
        if not reverse:
            return np.asarray, ''
        if kernel.ndim == 4:
            return lambda k: k[:, :, ::-1], f'input channels from {order} to {channels}'
    if (
        kernel.ndim != 4
        or inputs == 'strict'
        or kernel.shape[:2] + kernel.shape[3:] != initial.shape[:2] + initial.shape[3:]
    ):
        raise UserError(
            f"{net.provenance.name} takes {order} images in its first layer, {list(kernel.shape)}, and the run's net "
            f'has {list(initial.shape)} for {channels}; expected '
            + ('the same (config.init.input is strict)' if inputs == 'strict' else 'a convolution with the same kernel')
        )
    turned = (lambda k: k[:, :, ::-1]) if reverse and had == 3 else (lambda k: k)
    if has == 1:
        return lambda k: k.sum(2, keepdims=True), f'{had} input channels summed: exact for grey images'
    if had == 1:
        return lambda k: np.repeat(k / has, has, 2), f'the input channel, 1/{has} for each of {has}: exact for grey'
    if has > had:
        rule = f'{had} input channels as they are, {has - had} more from 0'
        return lambda k: np.pad(turned(k), ((0, 0), (0, 0), (0, has - had), (0, 0))), rule
    raise UserError(
        f"{net.provenance.name} takes {had} input channels, and the run's images have {has}; expected 1, {had} or more"
    )


def _auxiliary(variant: str) -> Callable[[str], bool]:
    """Returns whether a path, with its collection, is of an auxiliary head, which only training uses."""
    references = [reference for reference in registry.references().values() if reference.variant == variant]
    modules = [reference.training_only for reference in references if reference.training_only]
    return lambda path: any(matches(pattern, path) for pattern in modules)


def _name(path: str) -> str:
    return path.partition('/')[2]


def _module(path: str) -> str:
    return _name(path).partition('/')[0]


def _collapsed(paths: list[str], every: Iterable[str]) -> list[str]:
    """Returns the names of modules all of whose arrays are among the paths, and of the other arrays."""
    chosen = set(paths)
    complete = {_module(path) for path in paths} - {_module(path) for path in every if path not in chosen}
    return list(dict.fromkeys(_module(path) if _module(path) in complete else _name(path) for path in paths))
