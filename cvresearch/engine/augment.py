"""Augmentation on the device, inside the jitted step; one random stream per example."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key, Real

from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError, construct_only, lookup

# What `jnp.pad` and SciPy's interpolation call a border.
BORDERS = {'black': 'constant', 'reflect': 'reflect', 'edge': 'edge'}
SAMPLED = {'black': 'constant', 'reflect': 'mirror', 'edge': 'nearest'}


@dataclasses.dataclass(frozen=True)
class Augment:
    """What is done to a training batch.

    Attributes:
      resize: side in pixels to which images are brought before anything else (bilinear, antialiased); 0 for none.
      shift: largest random translation, in pixels, of each image in both directions. The same as to pad the image
        by so much and to cut out a part of the old size anywhere (He et al. 2015, section 4.2: 4).
      rotate: largest rotation about the centre in degrees, either way, before the shift (bilinear).
      shear: largest shear in degrees, either way, each axis on its own.
      stretch: largest change of width and of height, each on its own: 0.1 is 1/1.1 to 1.1.
      border: what these uncover: 'black' (the value 0 of the uint8 image), 'reflect' or 'edge'.
      flip: whether to mirror each image left to right with probability 1/2.
      cutout: side in pixels of a square that is set to the mean, its centre anywhere (DeVries & Taylor 2017).
      erasing: probability of setting a rectangle to the mean (Zhong et al. 2017, section 4).
      erasing_area: smallest and largest share of the image that such a rectangle covers.
      erasing_ratio: smallest and largest height over width of it.
    """

    resize: int = 0
    shift: int = 0
    rotate: float = 0.0
    shear: float = 0.0
    stretch: float = 0.0
    border: str = 'black'
    flip: bool = False
    cutout: int = 0
    erasing: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 1 / 3)
    erasing_ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self):
        for name in ('resize', 'shift', 'rotate', 'shear', 'stretch', 'cutout', 'erasing'):
            if not getattr(self, name) >= 0:
                raise UserError(f'config.augment.{name} is {getattr(self, name)}; expected at least 0')
        for name, most in (('rotate', 180), ('shear', 60), ('stretch', 10)):
            if getattr(self, name) > most:
                raise UserError(f'config.augment.{name} is {getattr(self, name)}; expected at most {most}')
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
        """Returns resized, turned, translated and mirrored images, uint8 as they come."""
        # First, since a shift is told in pixels of what the net sees.
        if self.resize:
            shape = (len(images), self.resize, self.resize, images.shape[-1])
            smooth = jax.image.resize(images.astype(jnp.float32), shape, 'bilinear')
            images = jnp.clip(jnp.round(smooth), 0, 255).astype(jnp.uint8)
        if self.rotate or self.shear or self.stretch:
            images = jax.vmap(self._turned)(images, keys)
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

    def _turned(self, image: AnyArray, key: jax.Array) -> jax.Array:
        degrees, sx, sy, width, height = jax.random.uniform(jax.random.fold_in(key, 4), (5,), minval=-1, maxval=1)
        inverse = inverse_affine(
            degrees * self.rotate, (sx * self.shear, sy * self.shear),
            ((1 + self.stretch) ** width, (1 + self.stretch) ** height),
        )  # fmt: skip
        return sampled(image, inverse, SAMPLED[self.border])

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


def inverse_affine(degrees: AnyArray, shear: tuple, scale: tuple) -> jax.Array:
    """Returns the inverse (2, 2) of: stretch, shear, rotate; of x and y, as `data.operations.inverse_affine` has it."""
    angle, sx, sy = (jnp.deg2rad(value) for value in (degrees, *shear))
    along, across = jnp.cos(angle - sy) / jnp.cos(sy), jnp.sin(angle - sy) / jnp.cos(sy)
    turned = jnp.array([
        [along, -along * jnp.tan(sx) - jnp.sin(angle)],
        [across, -across * jnp.tan(sx) + jnp.cos(angle)],
    ])  # fmt: skip
    return jnp.linalg.inv(turned * jnp.stack(scale))


def sampled(image: AnyArray, inverse: AnyArray, border: str) -> jax.Array:
    """Returns the image (height, width, channels) whose pixels come from `inverse` times their places, bilinearly."""
    height, width, _ = image.shape
    centre = jnp.array([(width - 1) / 2, (height - 1) / 2])[:, None, None]
    places = jnp.stack(jnp.meshgrid(jnp.arange(width), jnp.arange(height)))  # x and y of each pixel
    x, y = jnp.tensordot(inverse, places - centre, 1) + centre
    of_map = functools.partial(map_coordinates, coordinates=[y, x], order=1, mode=border)
    smooth = jax.vmap(of_map, -1, -1)(image.astype(jnp.float32))
    return jnp.clip(jnp.round(smooth), 0, 255).astype(image.dtype)


def make(spec) -> Augment:
    """Returns the augmentation of a config's `augment`.

    Raises:
      UserError: an unknown knob or a value out of range.
    """
    return construct_only('augment', Augment, spec)
