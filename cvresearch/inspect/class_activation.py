"""Which places of the last feature map speak for a class: CAM, Grad-CAM and Grad-CAM++.

All differentiate the logit of the class, not its probability, whose gradient vanishes where the net is certain. Maps
have the size of the layer and no scale of their own; a map of zeros says that nothing speaks for the class.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError, lookup
from cvresearch.inspect.program import Images, Program, last_map, outline, trace
from cvresearch.nn.overrides import separate

Classes = int | Sequence[int] | np.ndarray | None
Maps = Float[AnyArray, 'batch rows columns channels']
Weights = Float[AnyArray, 'batch channels']


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """Maps of a batch of images.

    Attributes:
      map: float32 (images, rows, columns), not negative.
      layer: name of the layer that the maps are of.
      logits: float32 (images, classes).
      classes: int (images,), the class that each map is for.
    """

    map: Float[np.ndarray, 'images rows columns']
    layer: str
    logits: Float[np.ndarray, 'images classes']
    classes: Int[np.ndarray, ' images']

    @property
    def has_evidence(self) -> Bool[np.ndarray, ' images']:
        """Whether anything speaks for the class, bool (images,)."""
        return self.map.reshape(len(self.map), -1).max(1) > 0


def cam(module: nn.Module, variables: dict, images: Images, classes: Classes = None) -> ClassMap:
    """Returns class activation maps, sum_k w_k f_k, without what is negative.

    Zhou et al. 2016, "Learning deep features for discriminative localization", section 2: f_k are the maps before
    global average pooling, w_k the weights of the class in the one dense layer after it. Where the net averages one
    map for each class, as NIN and SqueezeNet do, the class' own map is taken.

    Args:
      module: the net.
      variables: its parameters and statistics, in any layout of its blocks.
      images: (batch, height, width, channels), normalized as the net expects.
      classes: class of all images or of each; by default the one with the largest logit.

    Raises:
      UserError: a net that does not end in global average pooling and at most one dense layer, or a class out of range.
    """
    module, variables = separate(module, variables)
    program = outline(module, variables, images)
    place = last_map(program)
    _kernel_of_pooled(program, place)
    maps, logits, kernel = _cam(module, variables, images)
    targets = chosen(np.asarray(logits), classes)
    maps = maps.astype(jnp.float32)
    if kernel is None:
        evidence = jnp.take_along_axis(maps, jnp.asarray(targets)[:, None, None, None], axis=3)[..., 0]
    else:
        evidence = jnp.einsum('bhwk,kb->bhw', maps, kernel.astype(jnp.float32)[:, targets], precision='highest')
    return ClassMap(np.maximum(evidence, 0), program.name(place), np.asarray(logits), targets)


def grad_cam(
    module: nn.Module,
    variables: dict,
    images: Images,
    classes: Classes = None,
    layer: str | None = None,
    method: str = 'gradcam',
) -> ClassMap:
    """Returns maps of Grad-CAM or Grad-CAM++.

    Costs one forward pass and a backward pass from the logits to the layer.

    Args:
      module: the net.
      variables: its parameters and statistics, in any layout of its blocks.
      images: (batch, height, width, channels), normalized as the net expects.
      classes: class of all images or of each; by default the one with the largest logit.
      layer: name of the feature map (inspect/program.py); by default the last one through which everything passes.
      method: name of an entry of METHODS.

    Raises:
      UserError: an unknown layer or one without height and width, a class out of range, an unknown method.
    """
    lookup('method', METHODS, method)
    module, variables = separate(module, variables)
    program = outline(module, variables, images)
    place = last_map(program) if layer is None else program.map_place(layer)
    name = program.name(place) if layer is None else layer
    if classes is None:
        maps, logits, targets = _grad_cam(module, name, method, variables, images, None)
        return ClassMap(np.asarray(maps), name, np.asarray(logits), np.asarray(targets))
    targets = chosen(np.empty((len(images), program.shapes[program.logits][-1])), classes)
    maps, logits, _ = _grad_cam(module, name, method, variables, images, jnp.asarray(targets))
    return ClassMap(np.asarray(maps), name, np.asarray(logits), targets)


def chosen(logits: Float[np.ndarray, 'images classes'], classes: Classes) -> Int[np.ndarray, ' images']:
    """Returns the class of each image.

    Args:
      logits: (images, classes).
      classes: one for all, one for each, or None for the largest logit.

    Raises:
      UserError: a class out of range, or another number of classes than of images.
    """
    images, number = logits.shape
    targets = logits.argmax(1) if classes is None else np.asarray(classes)
    if targets.ndim and len(targets) != images:
        raise UserError(f'got {len(targets)} classes for {images} images; expected one for all or one for each')
    targets = np.broadcast_to(targets, images)
    wrong = targets[(targets < 0) | (targets >= number)]
    if wrong.size:
        raise UserError(f'class {wrong[0]} is out of range; expected 0 to {number - 1}')
    return targets


def gradient_means(maps: Maps, gradients: Maps, scores: Float[AnyArray, ' batch']) -> Weights:
    """Grad-CAM: mean over the positions. Selvaraju et al. 2017, arXiv:1610.02391, equation 1.

    Args:
      maps: A, (batch, rows, columns, channels).
      gradients: of the class's logit by them.
      scores: the logits, (batch,).

    Returns:
      The weight of each channel, (batch, channels).
    """
    return gradients.mean((1, 2))


def plus_plus(maps: Maps, gradients: Maps, scores: Float[AnyArray, ' batch']) -> Weights:
    """Grad-CAM++ as grad-cam 1.5.7: Chattopadhay et al. 2018, arXiv:1710.11063, equation 19, and weights of equation 7.

    The gradient is of the logit, without the factor exp(logit), and alphas are not normalized.
    """
    square, cube = gradients**2, gradients**3
    alpha = square / (2 * square + maps.sum((1, 2), keepdims=True) * cube + 1e-6)
    return (jnp.maximum(gradients, 0) * jnp.where(gradients != 0, alpha, 0)).sum((1, 2))


def plus_plus_exponential(maps: Maps, gradients: Maps, scores: Float[AnyArray, ' batch']) -> Weights:
    """Grad-CAM++ as tf-keras-vis 0.8.7: the gradient is of exp(logit), and alphas of a channel sum to one.

    Multiplied by exp(-logit), a factor of the whole map, without which large logits overflow.
    """
    square, cube = gradients**2, gradients**3
    # Of exp(y), the three derivatives of equations 12 to 14 share the factor exp(y), which alpha is free of.
    below = 2 * square + maps.sum((1, 2), keepdims=True) * cube
    alpha = square / jnp.where(square == 0, 1, below)
    total = alpha.sum((1, 2), keepdims=True)
    return (jnp.maximum(gradients, 0) * alpha / jnp.where(total == 0, 1, total)).sum((1, 2))


# Weights of channels by maps, gradients and scores.
METHODS: dict[str, Callable] = {
    'gradcam': gradient_means,
    'gradcam++': plus_plus,
    'gradcam++exp': plus_plus_exponential,
}


@functools.partial(jax.jit, static_argnames=('module', 'layer', 'method'))
def _grad_cam(module, layer, method, variables, images, classes):
    program = trace(module, variables, images)
    place = program.place(layer)

    def logits_of(zeros):
        logits, (maps,) = program.run(variables, images, keep=[place], add={place: zeros})
        return logits, maps

    dtype = jax.eval_shape(lambda: program.run(variables, images, keep=[place])[1][0]).dtype
    logits, pull_back, maps = jax.vjp(logits_of, jnp.zeros(program.shapes[place], dtype), has_aux=True)
    classes = logits.argmax(-1) if classes is None else classes
    one_hot = jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    (gradients,) = pull_back(one_hot)
    maps, gradients = maps.astype(logits.dtype), gradients.astype(logits.dtype)
    weights = METHODS[method](maps, gradients, (logits * one_hot).sum(-1))
    weighted = jnp.einsum('bhwk,bk->bhw', maps, weights, precision='highest')
    return jnp.maximum(weighted, 0), logits, classes


@functools.partial(jax.jit, static_argnames='module')
def _cam(module, variables, images):
    """Returns (maps before the pooling, logits, kernel of the dense layer or None)."""
    program = trace(module, variables, images)
    place = last_map(program)
    kernel = _kernel_of_pooled(program, place)
    keep = [place] if kernel is None else [place, kernel]
    logits, (maps, *kernels) = program.run(variables, images, keep=keep)
    return maps, logits, kernels[0] if kernels else None


def _kernel_of_pooled(program: Program, place: int) -> int | None:
    """Returns the place of the kernel of the one dense layer after global average pooling, None where there is none.

    Raises:
      UserError: the net ends in another way.
    """
    dependent, kernel, pooled = {place}, None, False
    for step in program.steps:
        inputs = [x for x in step.inputs if isinstance(x, int)]
        if not dependent & set(inputs):
            continue
        dependent |= set(step.outputs)
        function = step.function
        is_pool = function == 'reduce_sum' and tuple(step.equation.params['axes']) == (1, 2)
        if is_pool and len(program.shapes[inputs[0]]) == 4:
            pooled = True
        elif function == 'dot_general' and pooled and kernel is None and inputs[0] in dependent:
            kernel = inputs[1]
        elif (function in _SCALES and len(inputs) == 1) or (function == 'add' and kernel is not None):
            continue  # divided by the number of positions; a bias
        elif function not in _UNCHANGED:
            pooled = False
            break
    if not pooled:
        raise UserError(
            f'{program.net} does not end in global average pooling and one dense layer, which CAM needs; '
            'use gradcam, which needs neither'
        )
    return kernel


_SCALES = ('div', 'mul')
_UNCHANGED = ('name', 'convert_element_type', 'reshape', 'squeeze', 'broadcast_in_dim', 'copy')
