"""Weights of other libraries: from tensors under their names to our variables, and back.

Strict both ways: every tensor is used once, every parameter is filled, every shape is checked.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

import flax.linen as nn
import jax
import numpy as np

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.inspect import cost
from cvresearch.interop import weight_files
from cvresearch.interop.alignment import net_in
from cvresearch.interop.weight_files import say
from cvresearch.models import registry
from cvresearch.models.variant import Reference
from cvresearch.nn.stacked import unstack

Tensors = dict[str, np.ndarray]

# How the libraries call what we call kernel, scale, bias, mean and var. A name that is not
# here (a gain, say) is the same on both sides.
_TORCH = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
_KERAS_NORM = {'scale': 'gamma', 'bias': 'beta', 'mean': 'moving_mean', 'var': 'moving_variance'}
# What no net of ours takes: PyTorch's counters, and the layers of Keras that prepare the input.
_UNUSED = re.compile(r'(.*\.)?num_batches_tracked|(normalization|rescaling)(_\d+)?/.*')


def load(
    path: str | Path, reference: str, num_classes: int | None = None, note: Callable[[str], None] = say
) -> tuple[nn.Module, dict]:
    """Returns our module and its variables, filled from a file of weights.

    Args:
      path: as `weight_files.read`'s.
      reference: the net that the file's names are of, 'torchvision/resnet50'.
      num_classes: number of classes; if None, the length of the file's last layer.
      note: takes each line that a person should know, such as which of several weights are taken.

    Raises:
      UserError: an unknown reference, a file that cannot be read, or weights that do not fit.
    """
    registry.reference(reference)  # a misspelt one is said before a large file is read
    tensors = weight_files.read(path, note)
    try:
        return to_variables(tensors, reference, num_classes or classes_of(tensors, reference), note)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error


def save(path: str | Path, variables: dict, reference: str) -> None:
    """Writes our variables under a reference's names: `load(path, reference)` gives them back.

    A .pth file has what PyTorch asks of one besides, so that `load_state_dict` takes it strictly.

    Raises:
      UserError: an unknown reference, or the file cannot be written.
    """
    weight_files.write(path, to_tensors(variables, reference), registry.reference(reference).version)


def classes_of(tensors: Tensors, name: str) -> int | None:
    """Returns the number of classes of a reference's tensors, None where they have no last layer."""
    reference = registry.reference(name)
    keys = {
        tensor_name(name, reference, f'params/head/{leaf}', {}): axis
        for leaf, axis in (('bias', 0), ('kernel', -1 if name.startswith('keras/') else 0))
    }
    if not keys.keys() & needed(tensors, reference).keys():
        tensors = net_in(tensors, _names(name, reference)[0], lambda inside: needed(inside, reference), _nothing_said)
    tensors = needed(tensors, reference)
    return next((tensors[key].shape[axis] for key, axis in keys.items() if key in tensors and tensors[key].ndim), None)


def infer(tensors: Tensors, model: str) -> str:
    """Returns the one reference of a variant whose tensors have the names of `tensors`.

    Raises:
      UserError: none has (the difference to the nearest is shown), or several have.
    """
    candidates = {name: entry for name, entry in registry.references().items() if entry.variant == model}
    if not candidates:
        raise UserError(f"no library's weights are known for model {model!r}")
    names = {name: _names(name, entry) for name, entry in candidates.items()}
    names_in = {}
    for name, entry in candidates.items():
        named = functools.partial(needed, reference=entry)
        names_in[name] = set(named(net_in(tensors, names[name][0], named, _nothing_said)))
    fitting = [name for name, (every, training) in names.items() if names_in[name] in (every, every - training)]
    if len(fitting) > 1:
        raise UserError(f'the weights may be of {" or of ".join(fitting)}; say which with --reference')
    if not fitting:
        nearest = max(candidates, key=lambda name: len(names[name][0] & names_in[name]))
        to_variables(tensors, nearest)
    return fitting[0]


def _nothing_said(_: str) -> None:
    pass


def _names(name: str, reference: Reference) -> tuple[set[str], set[str]]:
    """Returns the names of all tensors of a reference, and those that only training uses."""
    shapes = cost.shapes(registry.build(reference.variant, **reference.arguments), _image_shape(reference))
    names = {path: tensor_name(name, reference, path, shapes) for path, _ in trees.named_leaves(shapes)}
    return set(names.values()), {names[path] for path in names if _trains_only(path, reference)}


def _trains_only(path: str, reference: Reference) -> bool:
    return reference.training_only is not None and bool(re.fullmatch(reference.training_only, path))


def to_variables(
    tensors: Tensors, name: str, num_classes: int | None = None, note: Callable[[str], None] = say
) -> tuple[nn.Module, dict]:
    """Returns our module and its variables, filled from a reference's tensors.

    Where the tensors lack all parameters that only training uses (the auxiliary heads of GoogLeNet and Inception-v3),
    the module is the one without them, and `note` says so.

    Args:
      tensors: by the reference's names, or by those after a prefix that all share.
      name: of the reference, 'torchvision/resnet50'.
      num_classes: number of classes; if None, the variant's own.
      note: takes each line that a person should know.

    Raises:
      UserError: an unknown reference, or tensors that do not fit (the difference is shown).
    """
    reference = registry.reference(name)
    module = registry.build(reference.variant, num_classes, **reference.arguments)
    shapes = cost.shapes(module, _image_shape(reference))
    keys = {path: tensor_name(name, reference, path, shapes) for path, _ in trees.named_leaves(shapes)}
    named = functools.partial(needed, reference=reference)
    unused = named(net_in(tensors, set(keys.values()), named, note))
    heads = {path: key for path, key in keys.items() if _trains_only(path, reference)}
    if heads and not unused.keys() & set(heads.values()):
        first = sorted({path.split('/')[1] for path in heads})
        note(
            f'the weights have no {" and no ".join(first)}: they are loaded for evaluation; to train with '
            f'{"them" if len(first) > 1 else "it"}, {" and ".join(first)} will be new'
        )
        module = module.clone(**reference.without)
        shapes = cost.shapes(module, _image_shape(reference))
    return module, _filled(shapes, unused, name, reference)


def _filled(shapes: dict, unused: Tensors, name: str, reference: Reference) -> dict:
    """Returns the variables of these shapes, each from its tensor; `unused` loses what is used.

    Raises:
      UserError: tensors that are missing, left over or of another shape.
    """
    missing, wrong, filled = [], [], {}
    for path, leaf in trees.named_leaves(shapes):
        key = tensor_name(name, reference, path, shapes)
        if key not in unused:
            missing.append(key)
            continue
        tensor = unused.pop(key)
        array = _to_ours(name, reference, path, tensor, leaf.shape)
        if array is None:
            wrong.append(f'{key} {list(tensor.shape)} for {path} {list(leaf.shape)}')
        else:
            filled[path] = array
    problems = [
        f'{len(keys)} {what} ({", ".join(sorted(keys)[:3])}{", ..." if len(keys) > 3 else ""})'
        for what, keys in (('missing', missing), ('left over', list(unused)), ('of another shape', wrong))
        if keys
    ]
    if problems:
        raise UserError(f'the weights do not fit {name}: {"; ".join(problems)}')
    return jax.tree_util.tree_map_with_path(lambda path, _: filled['/'.join(map(trees.key_name, path))], shapes)


def to_tensors(variables: dict, name: str) -> Tensors:
    """Returns our variables, in either layout of nn/stacked.py, under a reference's names: back from `to_variables`."""
    reference, variables = registry.reference(name), unstack(jax.device_get(variables))
    return {
        tensor_name(name, reference, path, variables): _to_theirs(name, reference, path, cast(np.ndarray, leaf))
        for path, leaf in trees.named_leaves(variables)
    }


def tensor_name(name: str, reference: Reference, path: str, variables: dict) -> str:
    """Returns the reference's name of the leaf 'params/stage1/block0/conv1/kernel'."""
    _, _, rest = path.partition('/')
    module, _, leaf = rest.rpartition('/')
    if name.startswith('keras/'):
        renamed = reference.rename(module)
        layer, _, part = renamed.rpartition('/')
        if (part := part.removesuffix('_kernel')) in ('depthwise', 'pointwise'):  # the two of a separable layer
            return f'{layer}/{part}_kernel' if leaf == 'kernel' else f'{layer}/{leaf}'
        norm = leaf != 'kernel' and (leaf != 'bias' or _is_norm(module, variables))
        return f'{renamed}/{_KERAS_NORM.get(leaf, leaf) if norm else leaf}'
    return '.'.join(filter(None, (reference.rename(module), _TORCH.get(leaf, leaf))))


def needed(tensors: Tensors, reference: Reference) -> Tensors:
    """Returns the tensors without those that no net of ours takes, by the names that the library's code gives today."""
    kept = {}
    for key, tensor in tensors.items():
        if _UNUSED.fullmatch(key) or any(re.fullmatch(pattern, key) for pattern in reference.ignore):
            continue
        today = key
        for pattern, replacement in reference.published:
            if match := re.fullmatch(pattern, today):
                today = match.expand(replacement)
        taken = today in tensors or today in kept  # two tensors under one name would hide one
        kept[key if taken else today] = tensor
    return kept


def _is_norm(module: str, variables: dict) -> bool:
    node = variables.get('batch_stats', {})
    for part in module.split('/'):
        node = node.get(part, {})
    return bool(node)


def _image_shape(reference: Reference) -> tuple[int, int, int]:
    return registry.variant(reference.variant).input_shape


def _to_ours(name: str, reference: Reference, path: str, tensor: np.ndarray, shape: tuple[int, ...]):
    """Returns the tensor in our layout, None where its shape does not fit."""
    tensor = np.asarray(tensor, np.float32)
    module = path.partition('/')[2].rpartition('/')[0]
    if not name.startswith('keras/'):
        if path.endswith('/kernel') and tensor.ndim == 2:
            if module in reference.flatten and tensor.shape[1] == int(np.prod(reference.flatten[module])):
                tensor = tensor.reshape(-1, *reference.flatten[module]).transpose(0, 2, 3, 1).reshape(tensor.shape)
            tensor = tensor.T
        elif tensor.ndim == 4:
            whole_map = tensor.shape[1:] == reference.flatten.get(module)
            tensor = tensor.transpose(2, 3, 1, 0)
            tensor = tensor.reshape(-1, tensor.shape[-1]) if whole_map else tensor
    elif path.endswith('/kernel') and tensor.ndim == 4 and tensor.shape[3] == 1 and shape[2:] == (1, tensor.shape[2]):
        tensor = tensor.transpose(0, 1, 3, 2)  # depthwise
    if tensor.shape != shape and _squeezed(tensor.shape) == _squeezed(shape):
        tensor = tensor.reshape(shape)  # a 1x1 convolution for a dense layer, or the other way round
    return tensor if tensor.shape == shape else None


def _to_theirs(name: str, reference: Reference, path: str, array: np.ndarray) -> np.ndarray:
    module = path.partition('/')[2].rpartition('/')[0]
    if path.endswith('/kernel') and any(re.fullmatch(pattern, module) for pattern in reference.as_convolution):
        channels, height, width = reference.flatten.get(module, (len(array), 1, 1))
        array = array.reshape(height, width, channels, -1)
    if name.startswith('keras/'):
        depthwise = array.ndim == 4 and array.shape[2] == 1
        return np.ascontiguousarray(array.transpose(0, 1, 3, 2)) if depthwise else array
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    if not path.endswith('/kernel'):
        return array
    if module in reference.flatten:
        channels, height, width = reference.flatten[module]
        rows = array.reshape(height, width, channels, -1).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(rows.reshape(array.shape).T)
    return np.ascontiguousarray(array.T)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
