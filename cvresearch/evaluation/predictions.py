"""What a net says of every image of a split: logits on the host, kept so that a later metric needs no new pass."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from cvresearch.base import mesh as meshes
from cvresearch.base.errors import RunError, UserError
from cvresearch.base.workdir import cannot_write
from cvresearch.data import decode, decoded, identity, views
from cvresearch.data.examples import Example, Examples, Facts
from cvresearch.data.preprocessing import of_channels
from cvresearch.data.stream import in_order
from cvresearch.engine import steps
from cvresearch.evaluation import dense
from cvresearch.evaluation.protocols import Protocol
from cvresearch.interop.archives import open_zip
from cvresearch.objectives import multi_label, scores
from cvresearch.objectives.tasks import MULTI, Task

Forward = Callable[[jax.Array], jax.Array]  # uint8 images (batch, height, width, channels) -> logits

IMAGES_AT_ONCE = 16  # prepared together where a protocol makes several views of each
KEPT = 'predictions'  # folder in a workdir


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The answers of one net, or of an ensemble, on one split.

    Attributes:
      logits: float32 (images, classes); their softmax is the probabilities that were averaged, if any were.
      labels: int32 (images,), or (images, most) where an image has several, filled up with -1: any of them is right
        (ReaL), or, where the record's `task` is multi_label, each is a question of its own.
      record: how they came about: split, step, weights, protocol, and `images_sha256`, a digest of the images.
      class_names: in the order of the logits, which may be more; () where they are not known (earlier versions).
    """

    logits: np.ndarray
    labels: np.ndarray
    record: dict
    class_names: tuple[str, ...] = ()

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of classes, each a question of its own."""
        return self.record.get('task') == MULTI.name

    @property
    def probabilities(self) -> np.ndarray:
        """Float64 (images, classes): their softmax, or their sigmoids where each class is a question of its own."""
        if self.multi_label:
            # 1 / (1 + exp(-x)) written so that no x overflows.
            return np.exp(-np.logaddexp(0, -self.logits.astype(np.float64)))
        return scores.softmax(self.logits)

    @property
    def predicted(self) -> np.ndarray:
        """The class of largest logit, int (images,); with `multi_label`, the classes, bool (images, classes)."""
        return self.logits > 0 if self.multi_label else self.logits.argmax(-1)

    @property
    def right(self) -> np.ndarray:
        """Whether each image is classified right, bool (images,).

        With several labels, by any of them; with `multi_label`, where exactly its classes are predicted.
        """
        if self.multi_label:
            return (multi_label.targets(self.labels, self.logits.shape[-1]) == self.predicted).all(-1)
        if self.labels.ndim == 2:
            return (self.labels == self.predicted[:, None]).any(-1)
        return scores.label_rank(self.logits, self.labels) == 0

    def save(self, path: Path) -> None:
        """Writes a compressed .npz, whole or not at all."""
        record, names = (np.frombuffer(json.dumps(x).encode(), np.uint8) for x in (self.record, self.class_names))
        # Renamed when it is whole, so that a process that is killed here leaves no half of a file under the name.
        temporary = path.with_name(f'{path.name}.tmp')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, 'wb') as file:
                np.savez_compressed(file, logits=self.logits, labels=self.labels, record=record, class_names=names)
            temporary.replace(path)
        except OSError as error:
            raise cannot_write(path, error, RunError) from error

    @classmethod
    def load(cls, path: str | Path) -> 'Predictions':
        """Reads what `save` wrote.

        Raises:
          UserError: no such file, or none of these.
        """
        try:
            with open_zip(path), np.load(path, allow_pickle=False) as file:
                names = json.loads(file['class_names'].tobytes()) if 'class_names' in file else ()
                return cls(file['logits'], file['labels'], json.loads(file['record'].tobytes()), tuple(names))
        except FileNotFoundError as error:
            raise UserError(f'there is no {path}; `python -m cvresearch.evaluate` writes predictions') from error
        except Exception as error:  # whatever zip and NumPy make of another file
            raise UserError(f'{path} holds no predictions ({type(error).__name__}: {error})') from error


def check_same_images(one: Predictions, other: Predictions) -> None:
    """Checks that two sets of predictions are of the same images in the same order; classes go by their names.

    Raises:
      UserError: other images, another order, or images of another class.
    """
    what = 'the predictions are of other images, or in another order; nothing can be paired'
    digests = [side.record.get('images_sha256', '') for side in (one, other)]
    if one.labels.shape[:1] != other.labels.shape[:1]:
        raise UserError(f'{what} ({len(one.labels):,} images and {len(other.labels):,})')
    if all(digests) and len(set(digests)) > 1:
        raise UserError(
            f'{what} (images_sha256 {digests[0][:12]} and {digests[1][:12]}). Evaluate both on one copy of '
            'the data, with --data and --root'
        )
    by_name = bool(one.class_names and other.class_names)
    labels = [identity.named(side.labels, side.class_names) if by_name else side.labels for side in (one, other)]
    labels = [np.sort(side, -1) if side.ndim == 2 else side for side in labels]  # their order has no meaning
    if not np.array_equal(*labels):
        raise UserError(f'{what} (their labels differ)')


def in_order_of(one: Predictions, other: Predictions) -> Predictions:
    """Returns `other` with its classes in the order of `one`, by their names.

    Raises:
      UserError: other images, or other classes.
    """
    check_same_images(one, other)
    outputs = one.logits.shape[-1]
    if other.logits.shape[-1] != outputs:
        raise UserError(f'the nets have {outputs} and {other.logits.shape[-1]} classes; expected the same')
    if not one.class_names or not other.class_names or identity.same_names(one.class_names, other.class_names):
        return other
    order = identity.permutation(one.class_names, other.class_names, outputs)
    return dataclasses.replace(other, logits=other.logits[:, order], labels=one.labels, class_names=one.class_names)


def summary(predictions: Predictions, bins: int = 15) -> dict:
    """Returns the metrics of all images together; accuracies in percent.

    With several labels an image: 'real' alone, over those that have any. With `multi_label`: mAP, exact match and F1.
    """
    logits, labels = predictions.logits, predictions.labels
    if predictions.multi_label:
        return multi_label.summary(logits, labels)
    if labels.ndim == 2:
        answers = [[label for label in row if label >= 0] for row in labels.tolist()]
        accuracy, counted = scores.real_accuracy(predictions.predicted, answers)
        return {'real': accuracy, 'n_labelled': counted, 'n_seen': len(labels)}
    confusion = scores.confusion_matrix(predictions.predicted, labels, logits.shape[-1])
    probabilities = predictions.probabilities
    return {
        'top1': scores.top_k(logits, labels),
        'top5': scores.top_k(logits, labels, 5),
        'nll': scores.nll(logits, labels),
        'brier': scores.brier(probabilities, labels),
        'ece': scores.calibration(probabilities, labels, bins)[0],
        **scores.averages(confusion),
        'n_seen': len(labels),
    }


def task_of(task: Task) -> dict[str, str]:
    """Returns what a record says of the task: nothing where it is one class an image."""
    return {'task': task.name} if task.several else {}


class Placed(NamedTuple):
    """A net without its weights, where it is evaluated.

    Attributes:
      module: (variables, normalized images) -> logits.
      mean, std: of pixels, as `steps.normalize` takes them.
      mesh: the devices over which a batch is divided.
    """

    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mesh: meshes.AnyMesh


@dataclasses.dataclass(frozen=True)
class Net:
    """The logits of a net, as a function of its variables."""

    function: Callable[[dict, jax.Array], jax.Array]
    whole: NamedSharding
    divided: NamedSharding

    def __call__(self, variables: dict) -> Forward:
        """Returns the logits of images as a function of the images alone."""
        return functools.partial(self.function, jax.device_put(variables, self.whole))

    def compiled(self, variables: dict, images: tuple[int, ...]) -> 'Net':
        """Returns the same, compiled for batches of uint8 images of one shape; nothing is computed."""
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.whole), variables)
        batch = jax.ShapeDtypeStruct(images, np.uint8, sharding=self.divided)
        return dataclasses.replace(self, function=self.function.lower(placed, batch).compile())


def forward(net: Placed, protocol: Protocol, members: bool = False) -> Net:
    """Returns the jitted logits of a batch of views, given variables: variables -> (images -> (batch, classes)).

    Dense protocols average the logits of all positions. One compiled program per size of images serves all variables.
    With `members` the variables of several nets come stacked, and logits are (members, batch, classes).
    """
    model, mean, std, mesh = net
    if protocol.dense:
        image_shape = (protocol.resolution, protocol.resolution, len(mean))
        logits = dense.logit_map(model, image_shape)
        function = lambda variables, images: logits(variables, images).mean((1, 2))  # noqa: E731
    else:
        function = functools.partial(model.apply, train=False)
    # The variables alone are mapped: all members see the same images, which are prepared once.
    function = jax.vmap(function, (0, None)) if members else function
    replicated, divided = meshes.replicated(mesh), meshes.by_example(mesh)
    jitted = jax.jit(
        lambda variables, images: function(variables, steps.normalize(images, mean, std)),
        in_shardings=(replicated, divided),
        out_shardings=replicated,
    )
    return Net(jitted, replicated, divided)


def predict(
    logits_of: Forward,
    examples: Examples,
    protocol: Protocol,
    batch_size: int,
    mesh: meshes.AnyMesh,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the logits of a split's images, views averaged as the protocol says, and their labels.

    Args:
      logits_of: maps uint8 images on the mesh to logits (..., batch, classes).
      examples: the split.
      protocol: how images are shown.
      batch_size: views at once, of the net's own size; larger ones are fewer.
      mesh: of the run.
      stop: asked before every batch; where it says True the pass is given up.

    Returns:
      logits: float32 (..., images, classes), with the leading axes of `logits_of`; labels: as the source has them.
      None where it was given up.

    Raises:
      RunError: not every image was seen exactly once.
    """
    parts = []
    for part in (_given if protocol.views is None else _viewed)(logits_of, examples, protocol, batch_size, mesh):
        if stop():
            return None
        parts.append(part)
    logits, labels = (np.concatenate(part, axis) for part, axis in zip(zip(*parts, strict=True), (-2, 0), strict=True))
    # Counted, since an image too many or too few changes an accuracy by less than anybody would notice.
    if logits.shape[-2] != len(examples) or len(labels) != len(examples):
        raise RunError(f'evaluation saw {logits.shape[-2]} images of {len(examples)}; the result is not written')
    return logits.astype(np.float32), labels


def _given(logits_of, examples, protocol, batch_size, mesh) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for batch in in_order(examples, batch_size, jax.process_index(), jax.process_count()):
        logits = np.asarray(logits_of(meshes.place(batch['image'], mesh)))
        labels, mask = (_of_all_hosts(batch[name]) for name in ('label', 'mask'))
        # The last batch is filled up, so that all have one shape and one program: the filling is taken out again.
        yield logits[..., mask > 0, :], labels[mask > 0]


def _of_all_hosts(x: np.ndarray) -> np.ndarray:
    return x if jax.process_count() == 1 else np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _viewed(logits_of, examples, protocol, batch_size, mesh) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if jax.process_count() > 1:
        raise UserError(f'protocol {protocol.name!r} runs on one host; use as_given on several')
    threads = examples.threads if isinstance(examples, decoded.Pictures) else len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool:
        # A few images at once: a protocol of 144 views would fill the memory with those of a whole split.
        for start in range(0, len(examples), IMAGES_AT_ONCE):
            chosen = [examples[i] for i in range(start, min(start + IMAGES_AT_ONCE, len(examples)))]
            cut = list(pool.map(functools.partial(_cut, protocol, threads), chosen))
            logits = _of_views([view for of_image in cut for view in of_image], logits_of, protocol, batch_size, mesh)
            logits = logits.reshape(*logits.shape[:-2], len(chosen), protocol.crops, logits.shape[-1])
            yield protocol.averaged(logits), np.array([example.label for example in chosen], np.int32)


def _cut(protocol: Protocol, threads: int, example: Example) -> list[np.ndarray]:
    try:
        image = pixels(example.image)
        image = of_channels(image, 1) if protocol.channels == 'L' else image
        assert protocol.views is not None and protocol.interpolation is not None  # of every protocol that cuts views
        cut = views.cut(image, protocol.views(image.shape[:2]), protocol.interpolation)
    except decode.DamagedError as error:
        raise RunError(f'the image {example.id} cannot be decoded ({error}); evaluation leaves no image out') from error
    except MemoryError as error:
        raise decoded.lack_of_memory(example.id, example.image, threads) from error
    return [view[..., ::-1] for view in cut] if protocol.channels == 'BGR' else cut


def pixels(image: np.ndarray | bytes) -> np.ndarray:
    """Returns an image as a source has it, pixels or an image file's bytes, as uint8 (height, width, channels)."""
    return decode.decode(image, decode.header(image)) if isinstance(image, bytes) else image


def _of_views(pixels_of: list[np.ndarray], logits_of, protocol, batch_size, mesh) -> np.ndarray:
    """Returns logits (..., views, classes); views of one size go together, filled up to one batch size."""
    logits_at: dict[int, np.ndarray] = {}
    for shape in {view.shape for view in pixels_of}:
        places = [i for i, view in enumerate(pixels_of) if view.shape == shape]
        fits = batch_size * protocol.resolution**2 // (shape[0] * shape[1])
        size = max(1, min(fits, len(pixels_of)) // mesh.size) * mesh.size
        for start in range(0, len(places), size):
            some = places[start : start + size]
            batch = np.stack([pixels_of[i] for i in some + some[:1] * (size - len(some))])
            logits = np.asarray(logits_of(meshes.place(batch, mesh)))
            for i, place in enumerate(some):
                logits_at[place] = logits[..., i, :]
    return np.stack([logits_at[place] for place in range(len(pixels_of))], axis=-2)


def classes_of(facts: Facts, answers: Predictions) -> Predictions:
    """Returns the predictions among the classes that occur in a data set, where those are not all (ImageNet-A, -R)."""
    if facts.classes is None:
        return answers
    # Minus infinity, so that a class that does not occur is never chosen and has no share in the softmax.
    logits = np.full_like(answers.logits, -np.inf)
    logits[:, list(facts.classes)] = answers.logits[:, list(facts.classes)]
    return dataclasses.replace(answers, logits=logits)
