"""The folder of a compressed net: the file of its weights, and beside it what a person wants to know of it.

`net.cvr` (interop/container.py) is all that is read back. `compression.json` says the same and more for people and
tables: bytes of every array and in all, digests of the original and of what was made of it, settings.
"""

import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import trees
from cvresearch.base.errors import UserError, check_arguments
from cvresearch.data import crops, transforms
from cvresearch.data.preparation import AsEvaluated, Preparation
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.data.transforms import Transform
from cvresearch.interop import container
from cvresearch.interop.classifier import Classifier, Provenance, default_names
from cvresearch.models import registry
from cvresearch.nn.overrides import Net
from cvresearch.nn.stored import Stored

FILE, RECORD = 'net.cvr', 'compression.json'


@dataclasses.dataclass(frozen=True)
class Notes:
    """How a compressed net is written, and what is recorded beside its weights.

    Attributes:
      about: settings, digest of the original, its bytes ('original_bytes'), preprocessing, ...
      huffman: consider Huffman's codes.
      summary: of the bytes by array, what compression.json says besides.
    """

    about: Mapping = dataclasses.field(default_factory=dict)
    huffman: bool = True
    summary: Callable[[Mapping[str, int]], Mapping] = lambda sizes: {}


def save(directory: str | Path, variables: Mapping, architecture: Mapping, notes: Notes) -> dict:
    """Writes the folder of a compressed net, whole or not at all.

    Args:
      directory: of the net; must not exist.
      variables: of the net, in the layout with a name for every block.
      architecture: as `architecture_of` returns it.
      notes: how it is written, and what else is recorded.

    Returns:
      The record that was written.

    Raises:
      UserError: the directory exists or cannot be written.
    """
    directory = Path(directory)
    if directory.exists() or directory.is_symlink():
        raise UserError(f'{directory} exists already; choose another --out, nothing is overwritten')
    arrays = {path: np.asarray(leaf) for path, leaf in trees.named_leaves(jax.device_get(dict(variables)))}
    record = {**notes.about, 'architecture': dict(architecture), 'sha256': trees.sha256(trees.nested(arrays))}
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f'.{directory.name}.', dir=directory.parent))
    except OSError as error:
        raise UserError(f'cannot write {directory}: {error.strerror}') from error
    try:
        sizes = container.write(temporary / FILE, arrays, record, notes.huffman)
        record |= notes.summary({name: size for name, size in sizes.items() if name})
        record |= {'bytes': {'header': sizes.pop(''), **sizes}, 'total_bytes': (temporary / FILE).stat().st_size}
        (temporary / RECORD).write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
        temporary.chmod(0o755)
        os.rename(temporary, directory)
    except OSError as error:
        raise UserError(f'cannot write {directory}: {error.strerror}') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return record


def is_compressed(path: str | Path) -> bool:
    """Whether a path is a compressed net: its folder, or the file itself."""
    path = Path(path)
    if path.is_dir():
        return (path / FILE).is_file()
    try:
        with open(path, 'rb') as file:
            return file.read(len(container.MAGIC)) == container.MAGIC
    except OSError:
        return False


def load(path: str | Path) -> tuple[nn.Module, dict, dict]:
    """Returns a compressed net: its module, its variables and its record.

    Args:
      path: of the folder, or of the file in it.

    Raises:
      UserError: no compressed net, damaged, or not the net that it says.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    reader = container.Reader(path)
    try:
        module, size = _build(reader.record.get('architecture'))
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), _image(size))
    if isinstance(module, Stored):
        wanted = {name: shape for name, (shape, _) in reader.shapes.items()}
        _check_stored(path, module, reader, shapes, size)
    else:
        wanted = {name: tuple(leaf.shape) for name, leaf in trees.named_leaves(shapes)}
    variables = trees.nested(reader.arrays(wanted))
    if trees.sha256(variables) != reader.record.get('sha256'):
        raise UserError(f'{path}: its weights are not those that were recorded')
    return module, variables, reader.record


def architecture_of(
    model: str, module: nn.Module, input_shape: tuple[int, int, int], reference: str | None = None
) -> dict:
    """Returns what `load` builds a module from.

    Args:
      model: name of the variant.
      module: the net, or a `Stored` one.
      input_shape: (height, width, channels) of an image.
      reference: whose weights it has.

    Raises:
      UserError: a module that the variant's constructor does not give.
    """
    inner = plain(module.model if isinstance(module, Stored) else module)
    variant = registry.variant(model)
    if type(inner) is not variant.module:
        raise UserError(f'a {type(inner).__name__} cannot be kept; expected the {variant.module.__name__} of {model!r}')
    arguments = registry.arguments_in(model, inner)
    try:
        arguments = json.loads(json.dumps(arguments))
    except TypeError as error:
        raise UserError(f'{model!r} with the arguments {sorted(arguments)} cannot be kept: {error}') from error
    return {
        'model': model,
        'arguments': arguments,
        'num_classes': inner.num_classes,
        'input_shape': list(input_shape),
        'reference': reference,
        'stored': isinstance(module, Stored),
    }


def plain(module: nn.Module) -> nn.Module:
    """Returns a run's net without what matters in training alone."""
    alike = isinstance(module, Net) and module.norm.kind == 'batch_norm'
    return module.model if alike else module


def _build(architecture) -> tuple[nn.Module, tuple[int, int, int]]:
    kinds = {'model': str, 'arguments': dict, 'num_classes': int, 'input_shape': list, 'stored': bool}
    if not isinstance(architecture, dict) or any(type(architecture.get(k)) is not kind for k, kind in kinds.items()):
        raise UserError('its record does not say what net it is')
    size = architecture['input_shape']
    if len(size) != 3 or not all(type(side) is int and 0 < side <= 1 << 14 for side in size):
        raise UserError(f'its record has images of {size}; expected [height, width, channels]')
    arguments: dict[str, Any] = {name: _as_tuple(value) for name, value in architecture['arguments'].items()}
    module = registry.build(architecture['model'], architecture['num_classes'], **arguments)
    return (Stored(module) if architecture['stored'] else module), tuple(size)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _image(size: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *size), jnp.float32)


def _check_stored(path: Path, module: nn.Module, reader: container.Reader, shapes, size) -> None:
    """Raises UserError unless a net runs with the arrays of a file, and they are not many more than its own."""
    most = 4 * trees.count(shapes) + 4096
    elements = sum(math.prod(shape) for shape, _ in reader.shapes.values())
    if elements > most:
        raise UserError(f'{path} holds {elements:,} elements; expected at most {most:,}')
    stored = trees.nested({name: jax.ShapeDtypeStruct(*row) for name, row in reader.shapes.items()})
    try:
        jax.eval_shape(lambda v, x: module.apply(v, x, train=False), stored, _image(size))
    except Exception as error:  # whatever a net meets in arrays of other shapes
        why = ' '.join(str(error).split())
        raise UserError(f'{path}: its arrays do not fit the net ({type(error).__name__}: {why[:200]})') from error


def preparation_record(preparation: Preparation) -> dict:
    """Returns how a net's images are prepared, as JSON has it; `preparation_from` gives it back."""
    if isinstance(preparation, Preprocessing):
        return dataclasses.asdict(preparation)
    transform = preparation.transform
    name = next(name for name, kind in crops.CROPS.items() if type(transform.crop) is kind)
    defaults = Transform()
    knobs = {
        field.name: value
        for field in dataclasses.fields(Transform)
        if field.name not in ('crop', 'policy')
        and (value := getattr(transform, field.name)) != getattr(defaults, field.name)
    }
    knobs['crop'] = {'name': name, **dataclasses.asdict(transform.crop)}
    return {'transform': knobs, 'mean': list(preparation.mean), 'std': list(preparation.std)}


def preparation_from(record: Mapping) -> Preparation:
    """Returns the preparation that a record describes.

    Raises:
      UserError: a key or a value that makes no sense.
    """
    values: dict[str, Any] = {name: _as_tuple(value) for name, value in dict(record).items()}
    if 'transform' not in values:
        check_arguments('its preprocessing', values, dataclasses.asdict(Preprocessing()))
        return Preprocessing(**values)
    knobs = {name: _as_tuple(value) for name, value in values.pop('transform').items()}
    if isinstance(knobs.get('crop'), dict):
        knobs['crop'] = {name: _as_tuple(value) for name, value in knobs['crop'].items()}
    return AsEvaluated(transforms.make(knobs), **values)


def save_classifier(directory: str | Path, net: Classifier, original: Classifier, notes: Notes) -> dict:
    """Writes a net that was made of another; see `save`.

    Args:
      directory: of the net; must not exist.
      net: the smaller one.
      original: the original.
      notes: what is recorded beside what both nets say of themselves.

    Returns:
      The record that was written.
    """
    came = original.provenance
    architecture = architecture_of(came.variant, net.module, net.input_shape, came.reference)
    default = net.class_names == default_names(net.num_classes)
    about = {
        **notes.about,
        'original': {**came.record, 'params_sha256': original.digest, 'bytes': 4 * trees.count(original.variables)},
        'preprocessing': preparation_record(net.preprocessing),
        'multi_label': net.multi_label,
        'class_names': None if default else list(net.class_names),
    }
    return save(directory, net.variables, architecture, dataclasses.replace(notes, about=about))


def classifier_of(path: str | Path, name: str = '') -> Classifier:
    """Returns the classifier that a compressed net is.

    Args:
      path: of the folder, or of the file in it.
      name: as it was asked for.

    Raises:
      UserError: as `load`, or a record that makes no sense.
    """
    module, variables, record = load(path)
    architecture, names = record['architecture'], record.get('class_names')
    try:
        preparation = preparation_from(record['preprocessing'])
        names = tuple(names) if names else default_names(module.num_classes)
        if not all(isinstance(text, str) for text in names):
            raise UserError('a class has a name that is no text')
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'{path}: its record makes no sense ({error})') from error
    facts = {key: record[key] for key in ('original', 'settings') if key in record}
    provenance = Provenance(
        'compressed',
        name or f'compressed:{path}',
        architecture['model'],
        record['sha256'],
        architecture.get('reference'),
        architecture['arguments'],
        facts,
    )
    return Classifier(module, variables, preparation, names, provenance, bool(record.get('multi_label')))
