"""Weights in files of Keras, read as data: no layer is built and no configuration is run.

Three layouts, all HDF5: Keras 2 (`model_weights/conv1/conv1/kernel:0`, where saved with
its model), Keras 3's .weights.h5 (`layers/conv2d_3/vars/0`), and the latter in a .keras
archive. Tensors come under 'layer/weight' names, as Keras 3 gives them.
"""

import contextlib
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import h5py
import numpy as np

from cvresearch.interop import numbers
from cvresearch.interop.archives import open_zip, require_proportion

# The variables of a layer, in the order in which Keras 3 numbers them. A norm without one of the
# first two has fewer: in keras.applications it is always gamma that is missing.
VARIABLES = {
    'separable_conv2d': ('depthwise_kernel', 'pointwise_kernel', 'bias'),
    'batch_normalization': ('gamma', 'beta', 'moving_mean', 'moving_variance'),
    'normalization': ('mean', 'variance', 'count'),
}
_ORDER = (
    'depthwise_kernel',
    'pointwise_kernel',
    'kernel',
    'bias',
    'gamma',
    'beta',
    'moving_mean',
    'moving_variance',
)
_MOST_OF_ATTRIBUTE = 64_000  # bytes; Keras cuts at 64,512
KERNEL_AND_BIAS = ('kernel', 'bias')
AVERAGES = (
    'its optimizer keeps averages of the weights without their names (use_ema); the weights themselves are taken. '
    'Keras puts the averages in their place at the end of fit(), or by optimizer.finalize_variable_values'
)
_NUMBERED = re.compile(r'(conv2d|dense|depthwise_conv2d|separable_conv2d|batch_normalization)(?:_(\d+))?')


def read_h5(paths: Sequence[Path]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the tensors by 'layer/weight', and notes for a person, of an .h5 file or of the several of one net.

    Raises:
      ValueError: no weights of Keras in it; OSError and others where it is no HDF5 file or cut off.
    """
    with h5py.File(paths[0], 'r') as root:  # saved with its net, as Keras 2 did
        optimizer = json.loads(root.attrs.get('training_config', '{}')).get('optimizer_config')
    return _read(paths, sum(path.stat().st_size for path in paths), {}), _notes(optimizer)


def read_keras(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the tensors of a .keras file, by 'layer/weight', and notes for a person.

    Raises:
      ValueError: no weights of Keras in it; others where it is no zip archive or cut off.
    """
    with open_zip(path) as archive:
        missing = {'config.json', 'model.weights.h5'} - set(archive.namelist())
        if missing:
            raise ValueError(f'the archive has no {" and no ".join(sorted(missing))}')
        config = json.loads(archive.read('config.json'))
        names = dict(_stored_names(config, 'layers'))
        weights = archive.read('model.weights.h5')
        optimizer = (config.get('compile_config') or {}).get('optimizer')
        tensors = _read([io.BytesIO(weights)], path.stat().st_size, names)  # of the whole: not twice the expansion
        return tensors, _notes(optimizer)


def _notes(optimizer: object) -> list[str]:
    """Returns what is said of the optimizer that is saved beside a net."""
    options = optimizer.get('config') if isinstance(optimizer, dict) else None
    return [AVERAGES] if isinstance(options, dict) and options.get('use_ema') else []


def _read(files: Sequence[Path | BinaryIO], size: int, names: dict[str, str]) -> dict[str, np.ndarray]:
    with contextlib.ExitStack() as stack:
        root, *more = (stack.enter_context(h5py.File(file, 'r')) for file in files)
        if _has_group(root, 'layers'):
            stores = [cast(h5py.Group, file['layers']) for file in (root, *more) if _has_group(file, 'layers')]
            datasets = _keras_3(stores, names)
        elif _has_group(root, 'model_weights'):
            datasets = _keras_2(cast(h5py.Group, root['model_weights']))
        elif _layer_names(root):
            datasets = _keras_2(root)
        else:
            raise ValueError('it holds no weights of Keras')
        require_proportion(sum(dataset.nbytes for dataset in datasets.values()), size)
        tensors = {name: _array(name, dataset) for name, dataset in datasets.items()}
    if not tensors:
        raise ValueError('it holds no weights')
    return _counted_from_first(tensors)


def _stored_names(config: dict, prefix: str) -> Iterator[tuple[str, str]]:
    """Yields ('layers/conv2d_3', the layer's own name): the store numbers the layers of each class."""
    seen: dict[str, int] = {}
    for layer in config['config'].get('layers', []):
        kind = _snake(layer['class_name'])
        seen[kind] = seen.get(kind, -1) + 1
        place = f'{prefix}/{kind}_{seen[kind]}' if seen[kind] else f'{prefix}/{kind}'
        yield place, layer['config'].get('name') or layer['name']
        yield from _stored_names(layer, f'{place}/layers') if 'layers' in layer['config'] else ()


def _snake(name: str) -> str:
    """Returns a class's name as Keras writes it in files: BatchNormalization, batch_normalization."""
    name = re.sub(r'(.)([A-Z][a-z]+)', r'\1_\2', re.sub(r'\W+', '', name))
    return re.sub(r'([a-z])([A-Z])', r'\1_\2', name).lower()


def _keras_3(files: Sequence[h5py.Group], names: dict[str, str]) -> dict[str, h5py.Dataset]:
    datasets, places = {}, {}
    for path, dataset in (pair for layers in files for pair in _datasets(layers)):
        place, _, index = path.rpartition('/vars/')
        if index in places.setdefault(place, {}):
            raise ValueError(f'two of its files hold {path!r}')
        places[place][index] = dataset
    # A layer that goes on in the next file has its name in the first.
    names_of = {
        place: group.attrs['name']
        for layers in files
        for place in places
        if (group := cast(Any, layers.get(f'{place}/vars'))) is not None and 'name' in group.attrs
    }
    for place, index, dataset in ((place, *item) for place, group in places.items() for item in group.items()):
        stored = f'layers/{place}'
        kind = re.sub(r'_\d+$', '', place.rpartition('/')[2])
        layer = names_of.get(place) or names.get(stored)
        if not layer:
            raise ValueError(f'it does not say which layer {stored!r} is; give the .keras file')
        variables = VARIABLES.get(kind, KERNEL_AND_BIAS)
        if kind == 'batch_normalization':
            variables = variables[-len(places[place]) :]
        if not index.isdecimal() or int(index) >= len(variables):
            raise ValueError(f'{stored}/vars/{index} is no variable of a layer that is known here')
        datasets[f'{layer}/{variables[int(index)]}'] = dataset
    return datasets


def _keras_2(layers: h5py.Group) -> dict[str, h5py.Dataset]:
    datasets, names = {}, _layer_names(layers)
    for path, dataset in _datasets(layers):
        *scopes, weight = path.split('/')
        above = list(itertools.accumulate(scopes, '{}/{}'.format))
        layer = next((name for name in above if name in names), above[0])  # a name may have a '/', conv1/bn
        # Of a model in the model, its layers' scopes tell them apart.
        if layer != above[-1] and len(cast(h5py.Group, layers[layer])) > 1:
            layer = scopes[-1]
        # VGG's file is from Keras 1: block1_conv1_W_1:0
        weight = re.sub(r'^.*_([Wb])(_\d+)?$', lambda m: {'W': 'kernel', 'b': 'bias'}[m[1]], weight.partition(':')[0])
        datasets[f'{layer}/{weight}'] = dataset
    for name in [name for name in datasets if name.endswith('/depthwise_kernel')]:
        layer = name.rpartition('/')[0]
        if f'{layer}/pointwise_kernel' not in datasets:  # Keras 3 calls it so in separable layers only
            datasets[f'{layer}/kernel'] = datasets.pop(name)
    return datasets


def _layer_names(root: h5py.Group) -> set[str]:
    """Returns the names of all layers; where they are many, they lie in several attributes."""
    lists: list[Any] = [root.attrs[key] for key in root.attrs if re.fullmatch(r'layer_names\d*', key)]
    return {name.decode() if isinstance(name, bytes) else name for names in lists for name in names}


def _has_group(root: h5py.Group, name: str) -> bool:
    # Other links than hard ones may lead to other files.
    return isinstance(root.get(name, getlink=True), h5py.HardLink) and isinstance(root[name], h5py.Group)


def _datasets(group: h5py.Group) -> list[tuple[str, h5py.Dataset]]:
    """Returns all datasets below `group` and their paths, not following links."""
    datasets = []
    group.visititems(lambda name, node: datasets.append((name, node)) if isinstance(node, h5py.Dataset) else None)
    return datasets


def _array(name: str, dataset: h5py.Dataset) -> np.ndarray:
    if dataset.external or dataset.is_virtual:
        raise ValueError(f'the numbers of {name!r} lie in another file')
    array = np.asarray(dataset[()])
    if array.dtype.kind == 'V' and array.dtype.names is None:
        # HDF5 has no bfloat16: Keras 3 leaves its bytes and says so beside; float16, of two bytes too, HDF5 has.
        kind = dataset.attrs.get('dtype', 'bfloat16')
        return numbers.named(array, kind.decode() if isinstance(kind, bytes) else kind)
    if array.dtype.kind not in 'fiub':
        raise ValueError(f'{name!r} is of type {dataset.dtype}, which is no number')
    return array


def _counted_from_first(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames conv2d_94, conv2d_95, ... to conv2d, conv2d_1, ...

    Keras numbers layers without a name through the whole session, so the numbers depend on what
    was built before.
    """
    layers = {name.rpartition('/')[0] for name in tensors}
    matches = {layer: match for layer in layers if (match := _NUMBERED.fullmatch(layer))}
    first: dict[str, int] = {}
    for match in matches.values():
        kind = str(match[1])
        first[kind] = min(int(match[2] or 0), first.get(kind, 1 << 62))

    def renamed(layer: str) -> str:
        if layer not in matches:
            return layer
        kind, number = matches[layer][1], int(matches[layer][2] or 0)
        return f'{kind}_{number - first[kind]}' if number > first[kind] else kind

    return {f'{renamed(name.rpartition("/")[0])}/{name.rpartition("/")[2]}': array for name, array in tensors.items()}


def write_h5(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors by 'layer/weight' as Keras 2 laid them out; `model.load_weights(path, by_name=True)` takes them.

    Keras 3 reads that layout; its own numbers layers by their order in a model, which tensors do not tell.

    Raises:
      OSError: the file cannot be written.
    """
    layers: dict[str, list[str]] = {}
    for name in tensors:
        layers.setdefault(name.rpartition('/')[0], []).append(name)
    # In memory first: HDF5 writes while it closes, and then says of a full disk that a reference cannot be freed.
    with h5py.File(path, 'w', driver='core', backing_store=False) as root:
        root.attrs['backend'], root.attrs['keras_version'] = 'cvresearch', '2.15.0'
        _write_names(root, 'layer_names', list(layers))
        for layer, names in layers.items():
            # Keras assigns a layer's weights in the order in which it makes them, whatever they are called.
            names.sort(key=lambda name: _ORDER.index(name.rpartition('/')[2]))
            group = root.create_group(layer)
            _write_names(group, 'weight_names', [f'{name}:0' for name in names])
            for name in names:
                group[f'{name}:0'] = tensors[name]
        root.flush()
        content = root.id.get_file_image()
    path.write_bytes(content)


def _write_names(group: h5py.Group, attribute: str, names: Sequence[str]) -> None:
    """Writes names as an attribute, or as several where one would be larger than HDF5 allows."""
    encoded = [name.encode() for name in names]
    longest = max(map(len, encoded), default=1)
    most = max(1, _MOST_OF_ATTRIBUTE // longest)
    parts = [encoded[start : start + most] for start in range(0, len(encoded), most)]
    for number, part in enumerate(parts):
        group.attrs[attribute if len(parts) == 1 else f'{attribute}{number}'] = np.array(part, f'S{longest}')
