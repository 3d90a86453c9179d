"""Which pixels a logit depends on: gradients of several kinds, and occlusion.

Each function takes the net, its variables, images (batch, height, width, channels), normalized as the net expects,
and the class of all images or of each (None: the largest logit). Each returns float32 (batch, height, width, channels),
occlusion (batch, height, width); `as_map` makes maps of the former. All raise UserError for a class out of range.
"""

import functools
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cvresearch.base.errors import UserError
from cvresearch.inspect.class_activation import Classes, chosen
from cvresearch.inspect.program import ACTIVATIONS, Images, logits, outline, trace
from cvresearch.nn.overrides import separate

Seen = Float[np.ndarray, 'batch height width channels']
Maps = Float[np.ndarray, 'batch height width']
# Activations that are zero, or nearly so, below zero: those to which guided backpropagation and deconvolution apply.
RECTIFIERS = ('relu', 'relu6', 'silu')


def gradient(module: nn.Module, variables: dict, images: Images, classes: Classes = None) -> Seen:
    """Returns the gradient of the logit; saliency is its absolute value.

    Simonyan, Vedaldi & Zisserman 2013, arXiv:1312.6034, section 3.
    """
    module, variables, targets = _prepared(module, variables, images, classes)
    return np.asarray(_gradient(module, None, variables, jnp.asarray(images), targets))


def smooth_gradient(
    module: nn.Module,
    variables: dict,
    images: Images,
    classes: Classes = None,
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
) -> Seen:
    """Returns the mean of the absolute gradients at noisy copies of each image.

    Smilkov et al. 2017, arXiv:1706.03825, equation 2, of the absolute values as in section 3.2.

    Args:
      module, variables, images, classes: as everywhere in this file.
      samples: copies of each image.
      noise: standard deviation of the noise, as a part of the image's range of values.
      seed: of the noise.
    """
    random = np.random.default_rng(seed)
    spread = noise * (np.max(images, (1, 2, 3), keepdims=True) - np.min(images, (1, 2, 3), keepdims=True))
    # The same for all images, so that no map depends on what else is in the batch.
    draws = (random.standard_normal(images.shape[1:], np.float32) * spread for _ in range(samples))
    return mean_gradient(module, variables, images, classes, draws)


def mean_gradient(
    module: nn.Module, variables: dict, images: Images, classes: Classes, draws: Iterable[np.ndarray]
) -> Seen:
    """Returns the mean over the draws of the absolute gradients at `images + draw`; the images choose the class."""
    module, variables, targets = _prepared(module, variables, images, classes)
    total, count = np.zeros(()), 0
    for draw in draws:
        noisy = jnp.asarray(images + draw, jnp.result_type(images))
        total = total + np.abs(_gradient(module, None, variables, noisy, targets), dtype=np.float64)
        count += 1
    return np.asarray(total / count, np.float32)


def integrated_gradients(
    module: nn.Module,
    variables: dict,
    images: Images,
    classes: Classes = None,
    *,
    steps: int = 50,
    baseline: float | np.ndarray = 0.0,
) -> Seen:
    """Returns how much each pixel adds to the logit on the way from a baseline; all together, the logits' difference.

    Sundararajan, Taly & Yan 2017, arXiv:1703.01365, equation 1; integrated by Gauss and Legendre, as captum does.

    Args:
      module, variables, images, classes: as everywhere in this file.
      steps: places on the way at which the gradient is taken.
      baseline: image without evidence, normalized; 0 is the mean colour of the training images.
    """
    module, variables, targets = _prepared(module, variables, images, classes)
    away = np.asarray(images) - baseline
    places, weights = np.polynomial.legendre.leggauss(steps)
    total = np.zeros(np.shape(images))
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        between = jnp.asarray(baseline + place * away, jnp.result_type(images))
        total += weight * np.asarray(_gradient(module, None, variables, between, targets), np.float64)
    return np.asarray(total * away, np.float32)


def guided_backpropagation(module: nn.Module, variables: dict, images: Images, classes: Classes = None) -> Seen:
    """Returns the gradient in which each rectifier passes back what is positive and where its input was positive.

    Springenberg et al. 2014, arXiv:1412.6806, section 3.4. ReLU: [x > 0][dy > 0] dy; ReLU6: [0 < x < 6][dy > 0] dy;
    swish: [x > 0][dy > 0] f'(x) dy. Other activations keep their gradient.

    Raises:
      UserError: a net without a rectifier, where it would be the plain gradient.
    """
    return _ruled(module, variables, images, classes, 'guided')


def deconvolution(module: nn.Module, variables: dict, images: Images, classes: Classes = None) -> Seen:
    """Returns the gradient in which each rectifier passes back what is positive, whatever its input was.

    Zeiler & Fergus 2013, arXiv:1311.2901, section 2.1: [dy > 0] dy for ReLU, ReLU6 and swish; maxima go back to where
    they came from (switches), and convolutions are transposed, as in any gradient.

    Raises:
      UserError: a net without a rectifier, where it would be the plain gradient.
    """
    return _ruled(module, variables, images, classes, 'deconv')


def occlusion(
    module: nn.Module,
    variables: dict,
    images: Images,
    classes: Classes = None,
    *,
    window: int,
    stride: int,
    baseline: float = 0.0,
) -> Maps:
    """Returns how much the logit falls when a square is covered, (batch, height, width).

    Zeiler & Fergus 2013, section 4.2, of the logit rather than the probability. A pixel's value is the mean over the
    squares that cover it, as captum's `Occlusion`. The last square of a row may reach over the border.

    Args:
      module, variables, images, classes: as everywhere in this file.
      window: side of the square.
      stride: from square to square; not more than `window`.
      baseline: normalized colour of the square; 0 is the mean colour of the training images.

    Raises:
      UserError: a window larger than the image, or a stride that leaves pixels out.
    """
    height, width = np.shape(images)[1:3]
    if not 0 < window <= min(height, width) or not 0 < stride <= window:
        raise UserError(
            f'occlusion by squares of {window} every {stride} pixels in {height}x{width}; expected a window of at most '
            f'{min(height, width)} and a stride of at most the window'
        )
    module, variables, targets = _prepared(module, variables, images, classes)
    unhidden = np.asarray(_occluded(module, variables, images, targets, 0, 0, 0, baseline), np.float64)
    total, count = np.zeros(np.shape(images)[:3]), np.zeros((height, width))
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            fallen = unhidden - np.asarray(_occluded(module, variables, images, targets, top, left, window, baseline))
            total[:, top : top + window, left : left + window] += fallen[:, None, None]
            count[top : top + window, left : left + window] += 1
    return np.asarray(total / count, np.float32)


def as_map(values: Seen | Maps) -> Maps:
    """Returns the largest absolute value over the channels, (batch, height, width); maps stay as they are."""
    return np.abs(values).max(-1) if values.ndim == 4 else values


def _starts(length: int, window: int, stride: int) -> range:
    return range(0, -(-(length - window) // stride) * stride + 1, stride)


def _prepared(module, variables, images, classes: Classes):
    """Returns the net and variables with separate blocks, and the class of each image."""
    module, variables = separate(module, variables)
    if classes is None:
        answer = np.asarray(logits(module, variables, images))
    else:
        answer = np.empty(jax.eval_shape(functools.partial(logits, module), variables, images).shape)
    return module, variables, jnp.asarray(chosen(answer, classes))


@functools.partial(jax.jit, static_argnames='module')
def _occluded(module, variables, images, classes, top, left, window, baseline):
    """Returns the logits of the classes with a square covered."""
    rows, columns = (jnp.arange(n) for n in images.shape[1:3])
    inside = ((rows >= top) & (rows < top + window))[:, None] & (columns >= left) & (columns < left + window)
    covered = jnp.where(inside[..., None], jnp.asarray(baseline, images.dtype), images)
    return jnp.take_along_axis(module.apply(variables, covered, train=False), classes[:, None], 1)[:, 0]


@functools.partial(jax.jit, static_argnames=('module', 'rule'))
def _gradient(module, rule, variables, images, classes):
    program = trace(module, variables, images)

    def total(images):
        answer, _ = program.run(variables, images, rule=rule and functools.partial(_rectified, rule))
        return jnp.take_along_axis(answer, classes[:, None], 1).sum()

    return jax.grad(total)(images)


def _ruled(module, variables, images, classes: Classes, rule: str) -> np.ndarray:
    module, variables, targets = _prepared(module, variables, images, classes)
    program = outline(module, variables, images)
    activations = {step.function for step in program.steps if step.function in ACTIVATIONS}
    if not activations & set(RECTIFIERS):
        raise UserError(
            f'{program.net} has no {", ".join(RECTIFIERS)}: the result would be the plain gradient; use saliency'
        )
    return np.asarray(_gradient(module, rule, variables, jnp.asarray(images), targets))


def _rectified(rule: str, name: str, x: jax.Array) -> jax.Array | None:
    """Returns a rectifier's output, with another gradient; None for any other activation."""
    return _RULED[rule](name, x) if name in RECTIFIERS else None


def _with_gradient(backward: Callable) -> Callable:
    """Returns rectifiers by name, whose gradient is `backward(name, x, dy)`."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def rectifier(name, x):
        return getattr(nn, name)(x)

    rectifier.defvjp(lambda name, x: (rectifier(name, x), x), lambda name, x, dy: (backward(name, x, dy),))
    return rectifier


def _guided(name: str, x: jax.Array, dy: jax.Array) -> jax.Array:
    (plain,) = jax.vjp(functools.partial(getattr(nn, name)), x)[1](dy)
    return jnp.where((x > 0) & (dy > 0), plain, 0)


def _deconvolved(name: str, x: jax.Array, dy: jax.Array) -> jax.Array:
    return jnp.maximum(dy, 0)


_RULED = {'guided': _with_gradient(_guided), 'deconv': _with_gradient(_deconvolved)}
