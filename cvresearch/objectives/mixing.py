"""Images and targets mixed with another example's: mixup and CutMix, with soft labels."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Real

from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError, construct_only


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How a training batch is mixed; a config's `mixing`.

    With both mixup and CutMix, each of them is drawn half of the time (as in timm).

    Attributes:
      mixup: alpha of mixup (Zhang et al. 2018, arXiv:1710.09412): images and targets are weighted sums, with a
        weight from Beta(alpha, alpha); 0 for none.
      cutmix: alpha of CutMix (Yun et al. 2019, arXiv:1905.04899): a box of the image is the other's, and the
        targets are weighted by area; 0 for none.
      per_example: each example has a weight and a box of its own, and its partner is drawn; otherwise there is
        one weight for the batch, and each example is mixed with the one opposite, the first with the last.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    per_example: bool = False

    def __post_init__(self):
        for name in ('mixup', 'cutmix'):
            if getattr(self, name) < 0:
                raise UserError(f'config.mixing.{name} is {getattr(self, name)}; expected at least 0')
        if self.per_example and not self:
            raise UserError('config.mixing.per_example is True, but neither mixup nor cutmix is above 0')

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(
        self,
        images: Float[AnyArray, 'batch height width channels'],
        target: Real[AnyArray, 'batch classes'],
        key: PRNGKeyArray,
    ) -> tuple[Float[AnyArray, 'batch height width channels'], Real[AnyArray, 'batch classes']]:
        """Returns mixed images (batch, height, width, channels) and targets (batch, classes).

        Args:
          images: of floats.
          target: distributions; so are those returned.
          key: of the step.
        """
        if not self:
            return images, target
        shape, partner = (), slice(None, None, -1)
        if self.per_example:
            shape, partner = images.shape[:1], jax.random.permutation(jax.random.fold_in(key, 3), len(images))
        weight = keep = cast(Any, None)
        if self.mixup:
            weight = jax.random.beta(key, self.mixup, self.mixup, shape).astype(images.dtype)
            keep = _over(weight, 3)
        if self.cutmix:
            cut_key = jax.random.fold_in(key, 1)
            inside = boxes(cut_key, jax.random.beta(cut_key, self.cutmix, self.cutmix, shape), images.shape[1:3])
            cut_weight = 1 - jnp.mean(inside, (-2, -1), dtype=images.dtype)  # after the box was clipped
            if self.mixup:
                cut = jax.random.bernoulli(jax.random.fold_in(key, 2), shape=shape)
                weight = jnp.where(cut, cut_weight, weight)
                keep = jnp.where(_over(cut, 3), ~inside[..., None], keep)
            else:
                weight, keep = cut_weight, ~inside[..., None]
        keep, weight = keep.astype(images.dtype), _over(weight, 1)
        target = target.astype(images.dtype)
        return keep * images + (1 - keep) * images[partner], weight * target + (1 - weight) * target[partner]


def make(spec: Mapping[str, Any]) -> Mixing:
    """Returns what a config's `mixing` says.

    Raises:
      UserError: an unknown argument, or a value out of range.
    """
    return construct_only('mixing', Mixing, spec)


def boxes(
    key: PRNGKeyArray, weight: Float[Array, '*batch'], size: tuple[int, ...]
) -> Bool[Array, '*batch height width']:
    """Returns which pixels are in the box that the other image fills, bool (..., height, width).

    A box has sides of sqrt(1 - weight) times the image's, rounded down, and a centre drawn over the whole image;
    what lies outside of the image is cut off (Yun et al. 2019, equation 2 and algorithm 1 of the appendix).

    Args:
      key: for the centres.
      weight: (...), the part of the image that stays, before the box is cut off.
      size: (height, width).
    """
    inside = cast(Any, True)
    for axis, (axis_key, length) in enumerate(zip(jax.random.split(key), size, strict=True)):
        side = jnp.floor(length * jnp.sqrt(1 - weight)).astype(jnp.int32)
        centre = jax.random.randint(axis_key, weight.shape, 0, length)
        low = jnp.clip(centre - side // 2, 0, length)[..., None]
        high = jnp.clip(centre + side // 2, 0, length)[..., None]
        along = (jnp.arange(length) >= low) & (jnp.arange(length) < high)
        inside = inside & jnp.expand_dims(along, -1 if axis == 0 else -2)
    return inside


def _over(x: jax.Array, axes: int) -> jax.Array:
    return jnp.expand_dims(x, tuple(range(-axes, 0)))
