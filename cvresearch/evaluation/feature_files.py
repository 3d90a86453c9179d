"""Features of a whole data set, by the names of layers, in one file.

    cvresearch features --weights NAME --data SOURCE [--root DIR] --at NAME[,NAME...] --out FILE.npz|.h5

NAME of --weights is run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k or a path; images are prepared
as the net was published with. A layer is a name that --list prints, or penultimate: what the last layer is given.
fc7:relu is the layer after its ReLU, stage4:mean its mean over all positions; decaf6, decaf7 and razavian are the
papers' layers. The file has the features, and ids, labels, splits, class_names and a record with digests. The same
command goes on where a killed one ended.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cvresearch.base import cli
from cvresearch.base.errors import RunError, UserError, lookup
from cvresearch.base.workdir import cannot_write, write_atomically
from cvresearch.data import identity, sources
from cvresearch.data.examples import Source, ids
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine import classifiers
from cvresearch.inspect import features
from cvresearch.interop.classifier import Classifier

PENULTIMATE = 'penultimate'
THEN: dict[str, Callable[[jax.Array], jax.Array]] = {
    '': lambda x: x,
    'relu': nn.relu,
    'mean': lambda x: x.mean(tuple(range(1, x.ndim - 1))),
}
# Layers of papers, by name: DeCAF (Donahue et al. 2014, arXiv:1310.1531, section 3) takes the activations of the
# sixth and seventh layer, Razavian et al. 2014 (arXiv:1403.6382, section 3) the sixth's, divided by their length.
SETTINGS = {'decaf6': 'fc6:relu', 'decaf7': 'fc7:relu', 'razavian': 'fc6:relu'}
CHUNK = 512  # images between two saves
KEYS = ('ids', 'labels', 'splits', 'class_names', 'record')
FORMATS = ('.npz', '.h5')


class Features(NamedTuple):
    """A file of features.

    Attributes:
      values: {'fc7:relu': float32 (images, ...)}.
      labels: int32 (images,).
      ids: of the images.
      splits: 'train' or 'test', of each image.
      class_names: in the order of the labels.
      record: net, digest of its weights, data, digests of the splits' images.
    """

    values: dict[str, np.ndarray]
    labels: np.ndarray
    ids: np.ndarray
    splits: np.ndarray
    class_names: tuple[str, ...]
    record: dict


def function(net: Classifier, wanted: Sequence[str]) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Returns the function from pixels (batch, height, width, channels), in the net's order, to {name: features}.

    Raises:
      UserError: a name that the net lacks.
    """
    there = {**net.feature_names(), PENULTIMATE: ()}
    parts = {name: SETTINGS.get(name, name).partition(':') for name in wanted}
    for layer, _, then in parts.values():
        lookup(f'layer of {net.provenance.variant}', there, layer)
        lookup('step after the colon', THEN, then)
    layers = {layer for layer, _, _ in parts.values()}

    def of_pixels(pixels: jax.Array) -> dict[str, jax.Array]:
        mean, std = (jnp.asarray(values, jnp.float32) for values in (net.preprocessing.mean, net.preprocessing.std))
        images = (pixels.astype(jnp.float32) / 255 - mean) / std
        maps = features.features(net.module, net.variables, images, layers - {PENULTIMATE})
        if PENULTIMATE in layers:
            maps[PENULTIMATE] = head_input(net, images)
        return {name: THEN[then](maps[layer]) for name, (layer, _, then) in parts.items()}

    return of_pixels


def at_size(net: Classifier, side: int) -> Classifier:
    """Returns a net that is given images of another size; what is cut away around them shrinks or grows with it.

    Args:
      net: with published weights; a run's images have the size that it was trained for.
      side: of the net's input, in pixels.

    Raises:
      UserError: a net of a run.
    """
    preparation = net.preprocessing
    if not isinstance(preparation, Preprocessing):
        raise UserError(
            f'{net.provenance.name} is a run, whose images have {preparation.input_shape[0]} pixels; leave the size out'
        )
    resize = round(preparation.resize * side / preparation.crop)
    resized = dataclasses.replace(preparation, crop=side, resize=resize, test_crop=0, test_resize=0)
    return dataclasses.replace(net, preprocessing=resized)


def head_input(net: Classifier, images: jax.Array) -> jax.Array:
    """Returns what the last layer is given, (batch, features), for normalized images."""
    inputs = []

    def note(call, arguments, keywords, context):
        if context.module.path == ('head',) and context.method_name == '__call__':
            inputs.append(arguments[0])
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        net.apply(net.variables, images)
    # VGG's sliding layers keep a place of size 1 for what slides.
    return inputs[-1].squeeze(tuple(axis for axis in range(1, inputs[-1].ndim - 1) if inputs[-1].shape[axis] == 1))


def extract(net: Classifier, data: dict, wanted: Sequence[str], out: Path, batch_size: int = 64) -> Features:
    """Writes the features of all splits of a data set to a file, and returns them.

    What a killed process did lies in OUT.parts, from where the same call goes on.

    Args:
      net: any.
      data: `name` of a source and its arguments.
      wanted: names of features.
      out: a .npz or .h5 file that is not there yet.
      batch_size: images at once; the features do not depend on it.

    Raises:
      UserError: a file that is there, another ending, a name that the net lacks, parts of another net or other data.
    """
    if out.suffix not in FORMATS:
        raise UserError(f'--out is {out}; expected a name that ends with {" or ".join(FORMATS)}')
    if out.exists():
        raise UserError(f'--out is {out}, which exists; name another file')
    of_pixels = jax.jit(function(net, wanted))
    source = sources.load(data, preparation=net.preprocessing)
    if source.facts.multi_label or source.facts.num_classes < 2:
        raise UserError(
            f'{data["name"]} has {source.facts.num_classes} classes'
            f'{", any number an image" if source.facts.multi_label else ""}; expected one an image, of two '
            'or more'
        )
    record = {
        **net.provenance.record,
        'data': source.facts.name,
        'features': list(wanted),
        'input_shape': list(net.input_shape),
        'images_sha256': {name: identity.images_sha256(examples) for name, examples in source.splits.items()},
    }
    parts = _parts_of(out, record)
    for part, split, index in tqdm(_chunks(source), desc='features', unit=f'x {CHUNK} images'):
        if not (parts / part).exists():
            _write_chunk(parts / part, _of_chunk(of_pixels, source.splits[split], index, batch_size), split)
    features_of_all = _joined(source, parts, wanted, record)
    save(features_of_all, out)
    # Last: until the file is whole, the parts are all that a killed process leaves.
    shutil.rmtree(parts)
    return features_of_all


def _parts_of(out: Path, record: dict) -> Path:
    parts = out.with_name(f'{out.name}.parts')
    about = parts / 'record.json'
    # Through JSON and back, where tuples become lists.
    if about.exists() and json.loads(about.read_text(encoding='utf-8')) != json.loads(json.dumps(record)):
        raise UserError(f'{parts} holds features of another net or of other data; remove it, or name another --out')
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(parts, error) from error
    write_atomically(about, json.dumps(record))
    return parts


def _chunks(source: Source) -> list[tuple[str, str, np.ndarray]]:
    """Returns [(file name, split, indices)]."""
    return [
        (f'{split}-{start}.npz', split, np.arange(start, min(start + CHUNK, len(examples))))
        for split, examples in source.splits.items()
        for start in range(0, len(examples), CHUNK)
    ]


def _of_chunk(of_pixels: Callable, examples, index: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    batches, labels = [], []
    for start in range(0, len(index), batch_size):
        part = index[start : start + batch_size]
        images, label = examples.take(part)
        # One shape for all batches, so that one program is compiled.
        padded = np.concatenate([images, np.zeros((batch_size - len(part), *images.shape[1:]), images.dtype)])
        batches.append({name: np.asarray(x)[: len(part)] for name, x in of_pixels(padded).items()})
        labels.append(label)
    values = {f'at {name}': np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return {**values, 'labels': np.concatenate(labels).astype(np.int32), 'ids': np.array(ids(examples, index))}


def _write_chunk(path: Path, arrays: dict[str, Any], split: str) -> None:
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        with open(temporary, 'wb') as file:
            np.savez(file, **arrays, splits=np.full(len(arrays['labels']), split))
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error, RunError) from error


def _joined(source: Source, parts: Path, wanted: Sequence[str], record: dict) -> Features:
    chunks = [np.load(parts / name) for name, _, _ in _chunks(source)]
    join = lambda key: np.concatenate([chunk[key] for chunk in chunks])  # noqa: E731
    values = {name: join(f'at {name}') for name in wanted}
    return Features(values, join('labels'), join('ids'), join('splits'), source.facts.class_names, record)


def save(extracted: Features, path: Path) -> None:
    """Writes a .npz or .h5 file, whole or not at all; {'fc7:relu': ..., 'ids': ..., 'labels': ..., 'splits': ...}."""
    texts = dict(
        ids=extracted.ids.tolist(),
        splits=extracted.splits.tolist(),
        class_names=list(extracted.class_names),
        record=[json.dumps(extracted.record)],
    )
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        if path.suffix == '.npz':
            with open(temporary, 'wb') as file:
                arrays: dict[str, Any] = {**extracted.values, 'labels': extracted.labels}
                arrays |= {key: np.array(text) for key, text in texts.items()}
                np.savez(file, **arrays)
        else:
            import h5py

            with h5py.File(temporary, 'w') as file:
                for key, value in {**extracted.values, 'labels': extracted.labels, **texts}.items():
                    file.create_dataset(key, data=value)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error, RunError) from error


def load(path: Path) -> Features:
    """Reads what `save` wrote.

    Raises:
      UserError: no such file, or none of these.
    """
    try:
        if path.suffix == '.npz':
            with np.load(path) as file:
                arrays = {key: file[key] for key in file.files}
        else:
            import h5py

            with h5py.File(path) as file:
                arrays = {key: x.asstr()[:] if x.dtype == object else x[:] for key, x in cast(Any, file).items()}
        ids_, labels, splits, names, record = (arrays.pop(key) for key in KEYS)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f'{path} is no file of features ({error}); expected one of `cvresearch features`') from error
    text = lambda values: np.array([str(value) for value in values])  # noqa: E731
    return Features(arrays, labels, text(ids_), text(splits), tuple(map(str, names)), json.loads(str(record[0])))


def main(argv: list[str]) -> int:
    """Writes a file of features; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('weights',),
        places=('root', 'out'),
        switches=dict(list='print the layers, and do nothing else'),
        weights='the net: run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET or a path',
        data='name of a data set',
        root='of the data set',
        at='layers, with commas between (penultimate)',
        out='the file, .npz or .h5',
        batch_size='images at once (64)',
        image_size="side of the images that the net sees; the weights' own by default",
        every='of a folder without a test split one image in so many is a test image (5)',
    )
    net = classifiers.load(options.weights)
    if options.image_size:
        net = at_size(net, cli.integer('image_size', options.image_size))
    if options.list:
        for name, shape in net.feature_names().items():
            print(f'{name} {"x".join(map(str, shape))}')
        return 0
    if not options.data or not options.out:
        raise UserError('--data and --out are missing: a data set, such as image_folder with --root, and a file')
    data = {'name': options.data} | ({'root': str(options.root)} if options.root else {})
    if options.every:
        data['every'] = cli.integer('every', options.every)
    wanted = (options.at or PENULTIMATE).split(',')
    size = cli.integer('batch_size', options.batch_size or '64')
    extracted = extract(net, data, wanted, options.out, size)
    shapes = {name: list(values.shape) for name, values in extracted.values.items()}
    print(json.dumps({'out': str(options.out), 'shapes': shapes, **extracted.record}))
    return 0
