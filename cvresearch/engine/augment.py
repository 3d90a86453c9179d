"""Augmentation on the device, inside the jitted step; one random stream per example."""

import dataclasses

import jax
import jax.numpy as jnp

from cvresearch.base.errors import UserError, check_arguments
from cvresearch.objectives.mixing import Mixing


@dataclasses.dataclass(frozen=True)
class Augment:
    """What is done to a training batch.

    Attributes:
      shift: largest random translation, in pixels, of each image in both directions; the uncovered
        border is black (the value 0 of the uint8 image).
      flip: whether to mirror each image left to right with probability 1/2.
    """

    shift: int = 0
    flip: bool = False

    def __post_init__(self):
        for name in ('shift',):
            if getattr(self, name) < 0:
                raise UserError(f'config.augment.{name} is {getattr(self, name)}; expected at least 0')

    def images(self, images: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns translated and mirrored images, uint8 (batch, height, width, channels)."""
        if self.shift:
            images = jax.vmap(self._shifted)(images, keys)
        if self.flip:
            mirrored = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1)))(keys)
            images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        return images

    def _shifted(self, image: jax.Array, key: jax.Array) -> jax.Array:
        offset = jax.random.randint(jax.random.fold_in(key, 0), (2,), 0, 2 * self.shift + 1)
        padded = jnp.pad(image, ((self.shift, self.shift), (self.shift, self.shift), (0, 0)))
        return jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), image.shape)


def make(spec) -> Augment:
    """Returns the augmentation of a config's `augment`, less how images are mixed (objectives/mixing.py).

    Raises:
      UserError: an unknown knob or a value out of range.
    """
    knobs = {field.name: field.default for field in dataclasses.fields(Augment)}
    mixing = {field.name: field.default for field in dataclasses.fields(Mixing)}
    check_arguments('config.augment', spec, knobs | mixing)
    return Augment(**{name: value for name, value in spec.items() if name in knobs})
