"""How a net prepares images, whoever trained it, and sources whose images are prepared so."""

import dataclasses
import io

import numpy as np
from PIL import Image

from cvresearch.data.crops import ResizeCenterCrop
from cvresearch.data.examples import Example, Examples, Index, ids, labels_of
from cvresearch.data.preprocessing import CHANNELS, Preprocessing, in_pixels, normalized, of_channels
from cvresearch.data.transforms import Transform


@dataclasses.dataclass(frozen=True)
class AsEvaluated:
    """How a run prepares the photographs that it evaluates.

    Attributes:
      transform: of the run's evaluation.
      mean: of each channel, in the net's order, of pixels in [0, 1]; std: likewise.
    """

    transform: Transform
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> str:
        """The net's order, 'RGB' or 'BGR'."""
        return self.transform.channels

    @property
    def resize(self) -> int | None:
        """Length of the short side out of which the centre is cut, in pixels; None where the crop is another."""
        return self.transform.crop.resize if isinstance(self.transform.crop, ResizeCenterCrop) else None

    @property
    def interpolation(self) -> str:
        """How images are resized."""
        return self.transform.interpolation

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the net's input."""
        return self.transform.size, self.transform.size, 3

    def pixels(self, image: bytes | np.ndarray | Image.Image) -> np.ndarray:
        """See `Preprocessing.pixels`."""
        if not isinstance(image, bytes):
            file = io.BytesIO()  # a transform takes files, and this one keeps every pixel
            Image.fromarray(of_channels(np.asarray(image), 3)).save(file, 'PNG', compress_level=0)
            image = file.getvalue()
        as_rgb = dataclasses.replace(self.transform, channels='RGB')
        return as_rgb(image, as_rgb.draw(np.zeros(1, np.uint64))[0])

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """See `Preprocessing.seen`."""
        drawn = self.transform.draw(np.zeros(1, np.uint64))[0]
        plan = self.transform.crop.plan(*size, drawn['crop'])
        return in_pixels(plan.box, plan.size, (plan.top, plan.left, self.transform.size, self.transform.size))

    def __call__(self, image: bytes | np.ndarray | Image.Image) -> np.ndarray:
        """See `Preprocessing.__call__`."""
        return normalized(self.pixels(image), self.mean, self.std, self.channels)


Preparation = Preprocessing | AsEvaluated


@dataclasses.dataclass(frozen=True)
class AsTransform:
    """A net's preparation in the place of a transform: what `Pictures` does to each encoded image."""

    preparation: Preparation

    @property
    def size(self) -> int:
        """Side of the result, in pixels."""
        return self.preparation.input_shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the result."""
        return self.preparation.input_shape

    def draw(self, keys: np.ndarray) -> list[dict]:
        """Returns no random numbers, for each of the examples."""
        return [{}] * len(keys)

    def __call__(self, data: bytes, u: dict, out: np.ndarray) -> None:
        """Writes the net's pixels of an image file, in the net's order of channels."""
        out[:] = self.preparation.pixels(data)[..., CHANNELS[self.preparation.channels]]


@dataclasses.dataclass(frozen=True)
class PreparedArrays:
    """Examples that are arrays, of any size, as the pixels that a net sees."""

    base: Examples
    preparation: Preparation

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Example:
        return self.base[index]

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of the examples."""
        return labels_of(self.base)

    def ids(self, index: Index) -> list[str]:
        """Returns the ids of the examples at `index`."""
        return ids(self.base, index)

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns images, uint8 (batch, height, width, channels) in the net's order, and labels."""
        images, labels = self.base.take(index)
        prepared = np.stack([self.preparation.pixels(image) for image in images])
        return prepared[..., CHANNELS[self.preparation.channels]], labels
