"""The classifier: a net, its weights, how its images are prepared, what its classes are called, where it comes from.

Training, import and compression make one; evaluation, prediction, pictures, export, ensembles, teachers and the
start of a run take one, whoever made it.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import trees
from cvresearch.base.arrays import AnyArray
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.data import preprocessing
from cvresearch.data.preparation import Preparation
from cvresearch.data.preprocessing import CHANNELS
from cvresearch.inspect import features
from cvresearch.interop import conversion, hub, weight_files
from cvresearch.interop.provenance import provenance
from cvresearch.models import registry

KINDS = ('run', 'file', 'hub', 'compressed')
NAMING = 'run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET or a path'
CHOICE = re.compile(r'@(best|raw|ema|swa|polyak|(?:snapshot)?\d+)$')


class Name(NamedTuple):
    """How a command line names a net.

    Attributes:
      kind: 'run', 'file' or 'hub'; '' for a plain path, whose contents decide.
      place: the path, or the hub's repository.
      reference: whose weights they are, 'torchvision/resnet50', or the variant's name alone; '' if it is not said.
      choices: of a run 'best', '1200' (a step), 'snapshot1200', 'ema', 'raw'; of the hub a revision.
    """

    kind: str
    place: str
    reference: str = ''
    choices: tuple[str, ...] = ()


def parse(name: str) -> Name:
    """Returns the parts of a net's name.

    >>> parse('file:resnet50.pth#torchvision/resnet50')
    Name(kind='file', place='resnet50.pth', reference='torchvision/resnet50', choices=())
    >>> parse('run:runs/a@best@ema').choices
    ('best', 'ema')

    Raises:
      UserError: nothing is named.
    """
    kind, separator, rest = name.partition(':')
    if not separator or kind not in KINDS:
        kind, rest = '', name
    if not rest:
        raise UserError(f'the net {name!r} has no place; expected {NAMING}')
    if kind == 'hub':
        place, _, revision = rest.partition('@')
        return Name(kind, place, '', (revision,) if revision else ())
    place, _, reference = rest.rpartition('#') if '#' in rest and not Path(rest).exists() else (rest, '', '')
    choices: list[str] = []
    # A folder may be called a@best: what exists is taken as it is.
    while kind != 'file' and not Path(place).exists() and (choice := CHOICE.search(place)):
        place, choices = place[: choice.start()], [choice[1], *choices]
    return Name(kind, place, reference, tuple(choices))


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a net comes from.

    Attributes:
      kind: 'run', 'file', 'hub' or 'compressed'.
      name: as it was asked for, 'run:runs/resnet50@best'.
      variant: the name of our architecture, 'resnet50'.
      digest: SHA-256: of a file its bytes, of a run its parameters.
      reference: the net of another library whose weights these are, 'torchvision/resnet50'; None for our own.
      arguments: of the variant's constructor, over its own.
      facts: what else is known: step, weights, revision, licence, data.
    """

    kind: str
    name: str
    variant: str
    digest: str
    reference: str | None = None
    arguments: dict = dataclasses.field(default_factory=dict)
    facts: dict = dataclasses.field(default_factory=dict)

    @property
    def record(self) -> dict:
        """What a record says of it, as plain values."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if value not in (None, {})}
        fields.pop('arguments', None)
        return {**fields, **fields.pop('facts', {})}


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A net that answers.

    Attributes:
      module: `module.apply(variables, images, train=False)` gives logits; its blocks are one by one (not in a scan).
      variables: {'params': ..., 'batch_stats': ...}, float32.
      preprocessing: from a photograph to the net's pixels, and their mean and deviation.
      class_names: in the order of the logits.
      provenance: where it comes from.
      multi_label: an image has any number of the classes, and each logit is a question of its own (a sigmoid's).
    """

    module: nn.Module
    variables: dict
    preprocessing: Preparation
    class_names: tuple[str, ...]
    provenance: Provenance
    multi_label: bool = False

    def __post_init__(self):
        if len(self.class_names) != self.module.num_classes:
            raise UserError(
                f'{self.provenance.name}: {len(self.class_names)} classes are named, and the net has '
                f'{self.module.num_classes}; expected a name for each'
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that the net is given."""
        return self.preprocessing.input_shape

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return self.module.num_classes

    def prepare(self, image: bytes | np.ndarray) -> np.ndarray:
        """Returns a photograph's pixels as the net sees them, uint8 (height, width, channels), in RGB or grey.

        Args:
          image: the bytes of an image file, or uint8 (height, width, 3 or 1).
        """
        return self.preprocessing.pixels(image)

    def normalize(self, images: AnyArray) -> jax.Array:
        """Returns the net's input, float32, of pixels from 0 to 255 (..., height, width, channels), RGB or grey."""
        mean, std = (jnp.asarray(values, jnp.float32) for values in (self.preprocessing.mean, self.preprocessing.std))
        pixels = jnp.asarray(images, jnp.float32)[..., CHANNELS[self.preprocessing.channels]]
        return (pixels / 255 - mean) / std

    def apply(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns the logits of normalized images (batch, height, width, channels): a pure function."""
        return cast(jax.Array, self.module.apply(variables, images, train=False))

    def logits(self, images: jax.Array) -> jax.Array:
        """Returns logits, float32 (..., classes), of pixels from 0 to 255 (..., height, width, channels).

        Works inside jit, grad and vmap. One image alone, (height, width, channels), gives (classes,).
        """
        images = jnp.asarray(images)
        batch = images.reshape(-1, *images.shape[-3:])
        return self.apply(self.variables, self.normalize(batch)).reshape(*images.shape[:-3], -1)

    def features(self, images: jax.Array, names: Iterable[str]) -> dict[str, jax.Array]:
        """Returns {name: (batch, ...)}: what layers or stages give for pixels (batch, height, width, channels).

        Raises:
          UserError: a name that the net does not have.
        """
        return features.features(self.module, self.variables, self.normalize(images), names)

    def feature_names(self) -> dict[str, tuple[int, ...]]:
        """Returns the names that `features` takes, in order, and the shape of one image's feature."""
        return features.names(self.module, self.input_shape)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over names, shapes and values of the variables: equal nets have one, wherever they come from."""
        return trees.sha256(jax.device_get(self.variables))


def of_file(path: str | Path, reference: str = '', model: str = '', name: str = '') -> Classifier:
    """Returns the net whose weights a file holds.

    Args:
      path: as `weight_files.read`'s.
      reference: whose weights they are, 'torchvision/resnet50'; a tag tells how images are prepared. A net's name
        alone is enough where one library's tensors fit. If '', `model` must be given.
      model: a variant that it must be.
      name: as it was asked for.

    Raises:
      UserError: a file that cannot be read, or weights that do not fit.
    """
    file = local(path, 'the weights file')
    if reference and '/' not in reference:
        model, reference = registry.resolve(reference), ''
    if reference and model and registry.reference(reference).variant != model:
        raise UserError(f'{reference} is a {registry.reference(reference).variant}, not a {model}')
    if not reference and not model:
        raise UserError(f'{path}: whose weights these are is not said; write file:{path}#torchvision/resnet50')
    if model:
        registry.variant(model)
    if reference:
        registry.reference(reference)  # a misspelt one is said before a large file is read
    tensors = weight_files.read(file)
    try:
        reference = reference or conversion.infer(tensors, model)
        module, variables = conversion.to_variables(tensors, reference, conversion.classes_of(tensors, reference))
    except UserError as error:
        raise UserError(f'{file}: {error}') from error
    size = registry.variant(registry.reference(reference).variant).input_shape[0]
    prepare, names = preprocessing.of(registry.current_name(reference), size, file)
    origin = _origin('file', name or f'file:{path}#{reference}', reference, file)
    return Classifier(module, variables, prepare, names or default_names(module.num_classes), origin)


def of_hub(repository: str, revision: str | None = None, name: str = '') -> Classifier:
    """Returns a net of the Hugging Face hub, as timm publishes it; see `hub.fetch`.

    Args:
      repository: 'timm/resnet50.a1_in1k'.
      revision: a commit, a branch or a tag; the newest that is at hand if None.
      name: as it was asked for.
    """
    files, config, commit = hub.fetch(repository, revision)
    loaded = _as_timm(files[0], config, hub.reference_of(repository), name or f'hub:{repository}@{commit}', 'hub')
    facts = loaded.provenance.facts | {'revision': commit}
    return dataclasses.replace(loaded, provenance=dataclasses.replace(loaded.provenance, facts=facts))


def of_hub_folder(folder: Path, name: str = '') -> Classifier:
    """Returns the net in a folder laid out as on the hub: config.json beside model.safetensors."""
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    weights = folder / hub.WEIGHTS
    file = weights if weights.exists() else folder / hub.INDEX
    return _as_timm(file, config, f'timm/{config["architecture"]}', name or str(folder), 'file')


def _as_timm(file: Path, config: dict, reference: str, name: str, kind: str) -> Classifier:
    tensors = weight_files.read(file)
    module, variables = conversion.to_variables(tensors, reference, conversion.classes_of(tensors, reference))
    prepare, names = hub.preprocessing_of(config)
    origin = _origin(kind, name, reference, file)
    return Classifier(module, variables, prepare, names or default_names(module.num_classes), origin)


def _origin(kind: str, name: str, reference: str, file: Path) -> Provenance:
    entry, facts = registry.reference(reference), provenance(file)
    licence = {key: facts[key] for key in ('license',) if key in facts}
    return Provenance(kind, name, entry.variant, str(facts['sha256']), reference, dict(entry.arguments), licence)


def default_names(num_classes: int) -> tuple[str, ...]:
    """Returns ImageNet's names of 1,000 classes, or 'class 0', 'class 1', ... of another number."""
    names = preprocessing.imagenet_classes()
    return names if num_classes == len(names) else tuple(f'class {c}' for c in range(num_classes))
