"""Weights of other libraries: from tensors under their names to our variables, and back.

Strict both ways: every tensor is used once, every parameter is filled, every shape is checked.
"""


import flax.linen as nn
import jax
import numpy as np

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.base.variant import Reference
from cvresearch.engine import trace
from cvresearch.models import registry

Tensors = dict[str, np.ndarray]

# How the libraries call what we call kernel, scale, bias, mean and var. A name that is not
# here (a gain, say) is the same on both sides.
_TORCH = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
_KERAS_NORM = {'scale': 'gamma', 'bias': 'beta', 'mean': 'moving_mean', 'var': 'moving_variance'}
_UNUSED = ('num_batches_tracked',)


def to_variables(tensors: Tensors, name: str, num_classes: int | None = None) -> tuple[nn.Module, dict]:
    """Returns our module and its variables, filled from a reference's tensors.

    Args:
      tensors: by the reference's names.
      name: of the reference, 'torchvision/resnet50'.
      num_classes: number of classes; the variant's own where not given.

    Raises:
      UserError: an unknown reference, or tensors that do not fit (the difference is shown).
    """
    reference = registry.reference(name)
    module = registry.build(reference.variant, num_classes, **reference.arguments)
    shapes = trace.shapes(module, _image_shape(reference))
    left = {key: value for key, value in tensors.items() if not key.endswith(_UNUSED)}
    missing, wrong, filled = [], [], {}
    for path, leaf in trees.named_leaves(shapes):
        key = tensor_name(name, reference, path, shapes)
        if key not in left:
            missing.append(key)
            continue
        tensor = left.pop(key)
        array = _to_ours(name, reference, path, tensor, leaf.shape)
        if array is None:
            wrong.append(f'{key} {list(tensor.shape)} for {path} {list(leaf.shape)}')
        else:
            filled[path] = array
    problems = [
        f'{len(found)} {what} ({", ".join(sorted(found)[:3])}{", ..." if len(found) > 3 else ""})'
        for what, found in (('missing', missing), ('left over', list(left)), ('of another shape', wrong))
        if found
    ]
    if problems:
        raise UserError(f'the weights do not fit {name}: {"; ".join(problems)}')
    paths = jax.tree_util.tree_map_with_path(lambda path, _: filled['/'.join(map(trees.key_name, path))], shapes)
    return module, paths


def to_tensors(variables: dict, name: str) -> Tensors:
    """Returns our variables as tensors under a reference's names: the inverse of `to_variables`."""
    reference = registry.reference(name)
    return {
        tensor_name(name, reference, path, variables): _to_theirs(name, reference, path, np.asarray(leaf))
        for path, leaf in trees.named_leaves(variables)
    }


def tensor_name(name: str, reference: Reference, path: str, variables: dict) -> str:
    """Returns the reference's name of the leaf 'params/stage1/block0/conv1/kernel'."""
    _, _, rest = path.partition('/')
    module, _, leaf = rest.rpartition('/')
    if name.startswith('keras/'):
        norm = leaf != 'kernel' and (leaf != 'bias' or _is_norm(module, variables))
        return f'{reference.rename(module)}/{_KERAS_NORM.get(leaf, leaf) if norm else leaf}'
    return '.'.join(filter(None, (reference.rename(module), _TORCH.get(leaf, leaf))))


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
        elif path.endswith('/kernel') and tensor.ndim == 4:
            tensor = tensor.transpose(2, 3, 1, 0)
    elif path.endswith('/kernel') and tensor.ndim == 4 and tensor.shape[3] == 1 and shape[2:] == (1, tensor.shape[2]):
        tensor = tensor.transpose(0, 1, 3, 2)  # depthwise
    if tensor.shape != shape and _squeezed(tensor.shape) == _squeezed(shape):
        tensor = tensor.reshape(shape)  # a 1x1 convolution for a dense layer, or the other way round
    return tensor if tensor.shape == shape else None


def _to_theirs(name: str, reference: Reference, path: str, array: np.ndarray) -> np.ndarray:
    module = path.partition('/')[2].rpartition('/')[0]
    if name.startswith('keras/') or not path.endswith('/kernel'):
        return array
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    if module in reference.flatten:
        channels, height, width = reference.flatten[module]
        rows = array.reshape(height, width, channels, -1).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(rows.reshape(array.shape).T)
    return np.ascontiguousarray(array.T)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


