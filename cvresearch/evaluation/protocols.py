"""Evaluation protocols of the historical tables, by name: which views of an image a net is shown, and how its answers
are averaged. The geometry is in `data/views.py`, dense evaluation in `evaluation/dense.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from cvresearch.base.errors import UserError, lookup
from cvresearch.data import views
from cvresearch.data.corruptions import Corrupted
from cvresearch.data.crops import ResizeCenterCrop
from cvresearch.data.decoded import Pictures
from cvresearch.data.examples import Examples
from cvresearch.data.preprocessing import INTERPOLATIONS
from cvresearch.data.transforms import Transform
from cvresearch.data.views import Size, View, Views
from cvresearch.objectives.scores import log_softmax

AVERAGES = {
    # The logarithm of the mean probability: its softmax is the mean probability itself.
    'probabilities': lambda logits, axis: _log_mean(log_softmax(logits), axis),
    'logits': lambda logits, axis: np.mean(logits, axis, np.float64),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How images become logits.

    Attributes:
      name: in PROTOCOLS, or 'as_given': the images as the source gives them for evaluation.
      resolution: side of the net's input; for 'as_given' of the source's images.
      views: from an image's (height, width); None for 'as_given'.
      scales: shorter sides of the image before it is cropped.
      crops: number of views of an image, mirrored ones included.
      flip: whether mirrored views are among them.
      dense: whether the net slides over its views; the logits of all positions of a view are averaged
        (VGG, section 3.2: the class score map is spatially averaged), before views are.
      interpolation: of resizing; None where nothing is resized.
      average: of the views: 'probabilities' or 'logits'; None where there is one.
      channels: 'RGB', 'BGR' for nets that came from Caffe, or 'L' for nets of grey images.
    """

    name: str
    resolution: int
    views: Views | None = None
    scales: tuple[int, ...] = ()
    crops: int = 1
    flip: bool = False
    dense: bool = False
    interpolation: str | None = None
    average: str | None = None
    channels: str = 'RGB'

    @property
    def record(self) -> dict:
        """What a record of an evaluation says of it."""
        fields = ('name', 'resolution', 'scales', 'crops', 'flip', 'dense', 'interpolation', 'average')
        values = {name: getattr(self, name) for name in fields} | {'scales': list(self.scales)}
        return {'protocol': values.pop('name'), **values}

    def averaged(self, logits: np.ndarray) -> np.ndarray:
        """Maps logits of views (..., views, classes) to logits of the image (..., classes)."""
        return logits[..., 0, :] if logits.shape[-2] == 1 else AVERAGES[str(self.average)](logits, -2)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A protocol before the net's input is known.

    Attributes:
      views: (image size, side, scales) -> views.
      sevenths: the scales in parts of the input's side: 8 are 256 for 224.
      average: as the paper averages.
      dense: as in `Protocol`.
      source: where it is written.
    """

    views: Callable[[Size, int, Sequence[int]], list[View]]
    sevenths: tuple[int, ...]
    source: str
    average: str = 'probabilities'
    dense: bool = False


def _centre(size, side, scales):
    return views.centre(size, side, scales[0])


def _ten(size, side, scales, square):
    return views.ten(size, side, scales[0], square)


def _whole(size, side, scales):
    return views.whole(size, scales)


_VGG = 'Simonyan & Zisserman 2014'
PROTOCOLS = {
    'centre': Rule(_centre, (8,), 'the single crop of most tables'),
    'centre_flip': Rule(lambda *a: views.mirrored(_centre(*a)), (8,), 'the centre crop and its mirror image'),
    'alexnet_10': Rule(functools.partial(_ten, square=True), (8,), 'Krizhevsky et al. 2012, section 4.1'),
    'resnet_10': Rule(
        functools.partial(_ten, square=False), (8,), 'He et al. 2015, section 3.4, as in fb.resnet.torch', 'logits'
    ),
    'googlenet_144': Rule(
        lambda size, side, scales: views.hundred_and_forty_four(size, side),
        (8, 9, 10, 11),
        'Szegedy et al. 2014, section 7',
    ),
    'vgg_150': Rule(views.grid, (8, 12, 16), f'{_VGG}, section 3.2: 50 crops at each of three scales'),
    'vgg_dense': Rule(_whole, (8,), f'{_VGG}, section 4.1, at one scale', dense=True),
    'vgg_dense_fixed': Rule(_whole, (7, 8, 9), f'{_VGG}, section 4.2: S - 32, S, S + 32 for fixed S', dense=True),
    'vgg_dense_jittered': Rule(_whole, (8, 12, 16), f'{_VGG}, section 4.2: 256, 384, 512', dense=True),
    'resnet_dense': Rule(
        _whole, (7, 8, 12, 15, 20), 'He et al. 2015, section 3.4: scores averaged over 224 to 640', 'logits', True
    ),
    'inception': Rule(
        lambda size, side, scales: views.squashed(size, side), (), 'TF-slim, of Inception-v3 on: the middle 87.5 %'
    ),
}


def as_given(examples: Examples, image_shape: tuple[int, int, int]) -> Protocol:
    """Returns the protocol of a source's images as it makes them ready itself: whole, or by its transform.

    Args:
      examples: of the split.
      image_shape: of the source's images.
    """
    transform = examples.transform if isinstance(examples, Pictures | Corrupted) else None
    if not isinstance(transform, Transform):
        return Protocol('as_given', image_shape[0])
    crop = transform.crop
    return Protocol(
        'as_given',
        transform.size,
        scales=(crop.resize,) if isinstance(crop, ResizeCenterCrop) else (),
        interpolation=transform.interpolation,
        channels=transform.channels,
    )


def make(
    name: str,
    resolution: int,
    scales: Sequence[int] = (),
    interpolation: str = 'bilinear',
    average: str | None = None,
    channels: str = 'RGB',
) -> Protocol:
    """Returns a protocol for a net.

    Args:
      name: in PROTOCOLS.
      resolution: side of the net's input, which may differ from training.
      scales: shorter sides of the image before it is cropped; the paper's, in proportion to the resolution, where
        not given.
      interpolation: 'nearest', 'bilinear' or 'bicubic'.
      average: 'probabilities' or 'logits'; the paper's by default.
      channels: 'RGB', 'BGR' or 'L'.

    Raises:
      UserError: an unknown name; another number of scales than the protocol has; crops larger than the image.
    """
    rule = lookup('protocol', PROTOCOLS, name)
    lookup('interpolation', INTERPOLATIONS, interpolation)
    average = average or rule.average
    lookup('average', AVERAGES, average)
    if scales and (len(scales) != len(rule.sevenths) or name == 'googlenet_144'):
        raise UserError(f'protocol {name!r} has {len(rule.sevenths)} scales of its own; got {len(scales)}')
    scales = tuple(scales) or tuple(views.scaled(resolution, sevenths) for sevenths in rule.sevenths)
    if min(scales, default=resolution) < resolution:
        raise UserError(f'protocol {name!r}: images of {min(scales)} pixels hold no crop of {resolution}')
    cut = functools.partial(_views, rule.views, resolution, scales)
    examples = cut((resolution, resolution))
    return Protocol(
        name,
        resolution,
        cut,
        scales,
        len(examples),
        any(view.flip for view in examples),
        rule.dense,
        interpolation,
        average if len(examples) > 1 else None,
        channels,
    )


def _views(rule, side, scales, size):
    return rule(size, side, scales)


def _log_mean(logs: np.ndarray, axis: int) -> np.ndarray:
    return np.logaddexp.reduce(logs, axis=axis) - np.log(logs.shape[axis])
