"""Augmentation on the device, inside the jitted step; one random stream per example."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Real

from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError, construct_only, lookup

BORDERS = {'black': 'constant', 'reflect': 'reflect', 'edge': 'edge'}


@dataclasses.dataclass(frozen=True)
class Augment:
    """What is done to a training batch.

    Attributes:
      resize: side in pixels to which images are brought before anything else (bilinear, antialiased); 0 for none.
      shift: largest random translation, in pixels, of each image in both directions. The same as to pad the image
        by so much and to cut out a part of the old size anywhere (He et al. 2015, section 4.2: 4).
      border: what a shift uncovers: 'black' (the value 0 of the uint8 image), 'reflect' or 'edge'.
      flip: whether to mirror each image left to right with probability 1/2.
      cutout: side in pixels of a square that is set to the mean, its centre anywhere (DeVries & Taylor 2017).
      erasing: probability of setting a rectangle to the mean (Zhong et al. 2017, section 4).
      erasing_area: smallest and largest share of the image that such a rectangle covers.
      erasing_ratio: smallest and largest height over width of it.
    """

    resize: int = 0
    shift: int = 0
    border: str = 'black'
    flip: bool = False
    cutout: int = 0
    erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 1 / 3)
    erasing_ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self):
        for name in ('resize', 'shift', 'cutout', 'erasing'):
            if getattr(self, name) < 0:
                raise UserError(f'config.augment.{name} is {getattr(self, name)}; expected at least 0')
        if self.erasing > 1:
            raise UserError(f'config.augment.erasing is {self.erasing}; expected a probability')
        for name, most in (('erasing_area', 1), ('erasing_ratio', float('inf'))):
            limits = getattr(self, name)
            if len(limits) != 2 or not 0 < limits[0] <= limits[1] <= most:
                raise UserError(f'config.augment.{name} is {limits}; expected two numbers, the smaller first, above 0')
        lookup('augment.border', BORDERS, self.border)

    def images(
        self, images: Real[AnyArray, 'batch height width channels'], keys: Key[Array, ' batch']
    ) -> Real[AnyArray, 'batch to_height to_width channels']:
        """Returns resized, translated and mirrored images, uint8 as they come."""
        # First, since a shift is told in pixels of what the net sees.
        if self.resize:
            shape = (len(images), self.resize, self.resize, images.shape[-1])
            smooth = jax.image.resize(images.astype(jnp.float32), shape, 'bilinear')
            images = jnp.clip(jnp.round(smooth), 0, 255).astype(jnp.uint8)
        if self.shift:
            images = jax.vmap(self._shifted)(images, keys)
        if self.flip:
            mirrored = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1)))(keys)
            images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
        return images

    def erase(
        self, images: Float[AnyArray, 'batch height width channels'], keys: Key[Array, ' batch']
    ) -> Float[AnyArray, 'batch height width channels']:
        """Returns normalized images with parts of them set to 0, the mean."""
        return jax.vmap(self._erased)(images, keys) if self.cutout or self.erasing else images

    def _shifted(self, image: AnyArray, key: jax.Array) -> jax.Array:
        # Each change has a number of its own in the example's key, so that one more leaves the others as they were.
        offset = jax.random.randint(jax.random.fold_in(key, 0), (2,), 0, 2 * self.shift + 1)
        margins = ((self.shift, self.shift), (self.shift, self.shift), (0, 0))
        padded = jnp.pad(image, margins, BORDERS[self.border])
        return jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), image.shape)

    def _erased(self, image: AnyArray, key: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]
        erase = jnp.zeros((height, width), bool)
        if self.cutout:
            y, x = jax.random.randint(jax.random.fold_in(key, 2), (2,), 0, jnp.array([height, width]))
            top, left = y - self.cutout // 2, x - self.cutout // 2
            erase |= (row >= top) & (row < top + self.cutout) & (column >= left) & (column < left + self.cutout)
        if self.erasing:
            erase |= self._rectangle(row, column, jax.random.fold_in(key, 3))
        return jnp.where(erase[..., None], 0, image)

    def _rectangle(self, row: jax.Array, column: jax.Array, key: jax.Array) -> jax.Array:
        """Draws ten rectangles at once and takes the first that fits; whether it is drawn at all is the last number."""
        height, width = len(row), column.shape[1]
        area, ratio, top, left, chance = jax.random.uniform(key, (5, 10))
        smallest, largest = self.erasing_area
        area = height * width * (smallest + (largest - smallest) * area)
        lowest, highest = map(jnp.log, self.erasing_ratio)
        ratio = jnp.exp(lowest + (highest - lowest) * ratio)
        h, w = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
        fits = (h < height) & (w < width)
        h, w, top, left = (x[jnp.argmax(fits)] for x in (h, w, top, left))
        top, left = jnp.floor(top * (height - h + 1)), jnp.floor(left * (width - w + 1))
        inside = (row >= top) & (row < top + h) & (column >= left) & (column < left + w)
        return inside & fits.any() & (chance[0] < self.erasing)


def make(spec) -> Augment:
    """Returns the augmentation of a config's `augment`.

    Raises:
      UserError: an unknown knob or a value out of range.
    """
    return construct_only('augment', Augment, spec)
