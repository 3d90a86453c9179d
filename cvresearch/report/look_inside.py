"""What `cvresearch look` draws of a net and of images: why it answers so, and what it has learned.

Each function takes the net, image files and the options of the command line, and writes a picture and arrays.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from cvresearch.base import cli
from cvresearch.base.errors import UserError, nearest
from cvresearch.base.escape import line
from cvresearch.data import preprocessing
from cvresearch.engine import classifiers
from cvresearch.inspect import attribution, class_activation, learned, placing, program, training
from cvresearch.inspect.training import Distribution
from cvresearch.interop.classifier import Classifier
from cvresearch.nn import overrides
from cvresearch.objectives import scores
from cvresearch.report import layers as drawn
from cvresearch.report import looks

PIXELS = 'the pixels'  # in place of a layer
BATCH = 16  # images that a net is given at once
TOP = 5
EXCITING, MOST_CHANNELS = 9, 64  # pictures a channel, channels of a sheet


def _class_maps(method: str):
    def maps(net: Classifier, images: np.ndarray, classes: np.ndarray, options: SimpleNamespace):
        class_map = class_activation.grad_cam(net.module, net.variables, images, classes, options.layer, method)
        return class_map.map, class_map.layer

    return maps


def _cam(net: Classifier, images: np.ndarray, classes: np.ndarray, options: SimpleNamespace):
    class_map = class_activation.cam(net.module, net.variables, images, classes)
    return class_map.map, class_map.layer


def _pixels(method, **named: str):
    """Returns the maps of an attribution; `named` is (its argument: the flag that sets it)."""

    def maps(net: Classifier, images: np.ndarray, classes: np.ndarray, options: SimpleNamespace):
        arguments = {key: cli.integer(flag, text) for key, flag in named.items() if (text := getattr(options, flag))}
        attributed = method(net.module, net.variables, images, classes, **arguments)
        return attribution.as_map(attributed), PIXELS

    return maps


def _occlusion(net: Classifier, images: np.ndarray, classes: np.ndarray, options: SimpleNamespace):
    window = cli.integer('window', options.window) if options.window else max(min(images.shape[1:3]) // 7, 1)
    stride = cli.integer('stride', options.stride) if options.stride else max(window // 2, 1)
    drops = attribution.occlusion(net.module, net.variables, images, classes, window=window, stride=stride)
    return drops, PIXELS


# Of each: (net, images, classes, options) -> (maps of the net's input or coarser, what they are of).
MAPS = {
    'cam': _cam,
    'gradcam': _class_maps('gradcam'),
    'gradcam++': _class_maps('gradcam++'),
    'gradcam++exp': _class_maps('gradcam++exp'),
    'saliency': _pixels(attribution.gradient),
    'smoothgrad': _pixels(attribution.smooth_gradient, samples='samples'),
    'integrated': _pixels(attribution.integrated_gradients, steps='samples'),
    'guided': _pixels(attribution.guided_backpropagation),
    'deconv': _pixels(attribution.deconvolution),
    'occlusion': _occlusion,
}


def explain(net: Classifier, paths: Sequence[str], kinds: Sequence[str], options: SimpleNamespace) -> None:
    """Draws which places of photographs speak for classes, and writes the arrays."""
    photographs, images = _read(net, paths)
    if options.arrays and len({photograph.shape for photograph in photographs}) > 1:
        sizes = sorted({f'{height}x{width}' for height, width, _ in (p.shape for p in photographs)})
        raise UserError(f'--arrays holds maps of one size and the images have {", ".join(sizes)}; name them one by one')
    logits = _in_batches(lambda x: program.logits(net.module, net.variables, x), images)
    wanted = [None] if not options.classes else [_class(net, text) for text in _parts(options.classes)]
    panels = [(kind, c) for kind in kinds for c in wanted]
    maps, classes, layers = [], [], []
    for kind, c in panels:
        targets = class_activation.chosen(logits, c)
        batches = [slice(i, i + BATCH) for i in range(0, len(images), BATCH)]
        done = [MAPS[kind](net, images[batch], targets[batch], options) for batch in batches]
        maps.append(np.concatenate([part for part, _ in done]))
        classes.append(targets)
        layers.append(done[0][1])
    boxes = [_box(net, photograph.shape[:2]) for photograph in photographs]
    placed = [
        [placing.placed(targets[i : i + 1], box, photograph.shape[:2])[0] for targets in maps]
        for i, (photograph, box) in enumerate(zip(photographs, boxes, strict=True))
    ]
    rows = []
    for i, (path, photograph, box) in enumerate(zip(paths, photographs, boxes, strict=True)):
        shown = []
        for j, (kind, _) in enumerate(panels):
            name = net.class_names[classes[j][i]]
            # A signal that rules of backpropagation stop on its way says nothing of evidence.
            nothing = 'no positive evidence' if layers[j] != PIXELS else 'zero at every pixel'
            note = '' if np.abs(maps[j][i]).max() > 0 else f'{nothing}\nfor {name}'
            print(f'{line(path)}: {kind} of {name} ({classes[j][i]}) at {layers[j]}{f": {line(note)}" if note else ""}')
            shown.append(looks.Panel(f'{kind}: {name}\nat {layers[j]}', placed[i][j], note))
        rows.append(looks.Row(photograph, _top(net, logits[i]), shown, box))
    one = len(panels) == 1
    arrays = dict(logits=logits.astype(np.float32), layer=np.asarray(layers), kind=np.asarray([k for k, _ in panels]))
    if options.arrays:
        arrays['map'] = np.asarray([targets[0] if one else targets for targets in placed], np.float32)
        arrays['class'] = classes[0] if one else np.stack(classes, 1)
    looks.written(options, looks.overlays(rows), arrays)


def maps(net: Classifier, paths: Sequence[str], options: SimpleNamespace) -> None:
    """Draws the feature maps of a photograph."""
    if len(paths) != 1:
        raise UserError(f'maps are of one image, and {len(paths)} are given')
    _, images = _read(net, paths)
    layer = _layer(net, options, images)
    values = learned.feature_maps(net.module, net.variables, images, layer)
    shown = values[0, ..., :MOST_CHANNELS]
    print(f'{layer}: {values.shape[-1]} channels of {values.shape[1]}x{values.shape[2]}; {shown.shape[-1]} are shown')
    sheet = looks.contact_sheet(
        list(np.moveaxis(shown, -1, 0)), list(map(str, range(shown.shape[-1]))), shared=options.shared
    )
    looks.written(options, sheet, {'maps': values})


def exciting(net: Classifier, paths: Sequence[str], options: SimpleNamespace) -> None:
    """Draws, for each channel, what of the images excites it most."""
    if not options.channel:
        raise UserError('--channel is missing: the channels of --layer, such as 0,5,17')
    channels = [cli.integer('channel', text, least=0) for text in _parts(options.channel)]
    first = _read(net, paths[:1])[1]
    layer = _layer(net, options, first)
    batches = (_read(net, paths[i : i + BATCH])[1] for i in range(0, len(paths), BATCH))
    crops_found = learned.exciting(net.module, net.variables, batches, layer, channels, EXCITING)
    crops, titles = [], []
    for c, channel in enumerate(channels):
        for i, box, value in zip(crops_found.index[c], crops_found.box[c], crops_found.value[c], strict=True):
            photograph = preprocessing.open_image(paths[int(i)])
            crops.append(_crop(photograph, _box(net, photograph.shape[:2]), box, first.shape[1:3]))
            titles.append(f'channel {channel}: {value:.3g}')
            print(f'{layer} channel {channel}: {value:.4g} in {line(paths[int(i)])}')
    sheet = looks.contact_sheet(crops, titles, columns=crops_found.index.shape[1])
    looks.written(options, sheet, dict(index=crops_found.index, value=crops_found.value, box=crops_found.box))


def embed(net: Classifier, paths: Sequence[str], options: SimpleNamespace, method: str) -> None:
    """Draws the images as points by a layer, maps averaged; a folder's name is the label of the images in it."""
    layer = options.layer or _layer(net, options, _read(net, paths[:1])[1])
    values = _in_batches_of_paths(net, paths, layer)
    values = values.mean((1, 2)) if values.ndim == 4 else values
    places = learned.embedding(values, method)
    folders = [Path(path).parent.name for path in paths]
    figure = looks.points(places, folders if len(set(folders)) > 1 else None, f'{method} of {layer}')
    looks.written(options, figure, {method: places})


def compare(net: Classifier, paths: Sequence[str], options: SimpleNamespace) -> None:
    """Draws the similarity of the layers of two nets."""
    if not options.other:
        raise UserError('--other is missing: the weights of the second net, named as --weights')
    sides = []
    other = classifiers.load(options.other)
    for classifier in (net, other):
        names = [name for name in _layers(classifier) if '/' not in name and '+' not in name]
        sides.append((names, [_in_batches_of_paths(classifier, paths, name) for name in names]))
    (rows, left), (columns, right) = sides
    values = np.asarray([[learned.cka(a, b) for b in right] for a in left])
    table = looks.matrix(values, rows, columns, 'linear CKA', (net.provenance.variant, other.provenance.variant))
    looks.written(options, table, dict(cka=values, rows=rows, columns=columns))


def distributions(net: Classifier, paths: Sequence[str], options: SimpleNamespace, what: str) -> None:
    """Draws how activations, or gradients of the cross entropy of a class, are distributed over images, by layer."""
    _, images = _read(net, paths)
    names = _parts(options.layer) if options.layer else None
    if what == 'activations':
        by_layer = training.activations(net.module, net.variables, images, names)
    else:
        logits = program.logits(net.module, net.variables, images)
        chosen = class_activation.chosen(np.asarray(logits), _class(net, options.classes) if options.classes else None)
        loss = lambda x: -jax.nn.log_softmax(x)[np.arange(len(images)), chosen].mean()  # noqa: E731
        by_layer = training.gradients(net.module, net.variables, images, names, loss)
    show_distributions({f'{len(images)} images': by_layer}, what, options)


def show_distributions(rows: dict[str, dict[str, Distribution]], what: str, options: SimpleNamespace) -> None:
    """Prints and draws distributions by moment and layer."""
    for moment, by_layer in rows.items():
        for layer, distribution in by_layer.items():
            shares = f'std {distribution.std:.3g}, dead {distribution.dead:.1%}'
            print(f'{moment}, {layer}: mean {distribution.mean:.3g}, {shares}')
    layers = list(next(iter(rows.values())))
    arrays = {
        key: np.asarray([[getattr(by_layer[layer], key) for layer in layers] for by_layer in rows.values()])
        for key in ('mean', 'std', 'dead', 'finite', 'counts', 'edges')
    }
    arrays |= {'moment': np.asarray(list(rows)), 'layer': np.asarray(layers)}
    looks.written(options, drawn.histograms(rows, what), arrays)


def filters(net: Classifier, options: SimpleNamespace) -> None:
    """Draws the filters of the first convolution."""
    kernels = learned.filters(net.module, net.variables, net.input_shape)
    looks.written(options, looks.contact_sheet(list(kernels), shared=options.shared), dict(filters=kernels))


def templates(net: Classifier, options: SimpleNamespace) -> None:
    """Draws the templates of a linear classifier."""
    images = learned.templates(net.module, net.variables, net.input_shape)
    names = net.class_names if len(images) == len(net.class_names) else list(map(str, range(len(images))))
    looks.written(options, looks.contact_sheet(list(images), names, shared=options.shared), dict(templates=images))


def _read(net: Classifier, paths: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns the photographs, and the net's inputs, (images, height, width, channels)."""
    photographs, images = [], []
    for path in paths:
        try:
            photographs.append(preprocessing.open_image(path))
            images.append(np.asarray(net.normalize(preprocessing.of_file(path, net.prepare))))
        except UserError as error:
            raise UserError(f'{line(path)}: {error}') from error
        if images[-1].shape != tuple(net.input_shape):
            got, expected = ('x'.join(map(str, shape)) for shape in (images[-1].shape, net.input_shape))
            raise UserError(f'{line(path)} is prepared as {got}, and the net takes {expected}')
    return photographs, np.stack(images)


def _in_batches(function, images: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(function(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])


def _in_batches_of_paths(net: Classifier, paths: Sequence[str], layer: str) -> np.ndarray:
    def values(i: int) -> np.ndarray:
        return learned.feature_maps(net.module, net.variables, _read(net, paths[i : i + BATCH])[1], layer)

    return np.concatenate([values(i) for i in range(0, len(paths), BATCH)])


def _layers(net: Classifier) -> dict[str, tuple[int, ...]]:
    return program.layers(net.module, net.variables, net.input_shape)


def _layer(net: Classifier, options: SimpleNamespace, images: np.ndarray) -> str:
    """Returns the name of a feature map: --layer, or the last one through which everything passes."""
    traced = program.outline(*overrides.separate(net.module, net.variables), images)
    if options.layer is None:
        return traced.name(program.last_map(traced))
    traced.map_place(options.layer)
    return options.layer


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(',') if part.strip()]


def _class(net: Classifier, text: str) -> int:
    """Returns the number of a class by its number or name."""
    if text.lstrip('-').isdecimal():
        return int(text)
    numbers = {name.lower(): c for c, name in reversed(list(enumerate(net.class_names)))}
    if text.lower() not in numbers:
        raise UserError(f'unknown class {text!r}; {nearest(text, net.class_names)}')
    return numbers[text.lower()]


def _box(net: Classifier, size: tuple[int, int]) -> placing.Box:
    """Returns the box of a photograph that the net sees."""
    return net.preprocessing.seen(size)


def _crop(photograph: np.ndarray, seen: placing.Box, box: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Returns what of a photograph lies in a box of the net's input, which has `size`."""
    rows, columns = (extent / side for extent, side in zip(seen[2:], size, strict=True))
    top, left = seen[0] + box[0] * rows, seen[1] + box[1] * columns
    ends = [round(top + box[2] * rows), round(left + box[3] * columns)]
    first = [max(round(top), 0), max(round(left), 0)]
    return photograph[first[0] : max(ends[0], first[0] + 1), first[1] : max(ends[1], first[1] + 1)]


def _top(net: Classifier, logits: np.ndarray) -> str:
    """Returns the likeliest classes and their probabilities, a line each."""
    logits = logits.astype(np.float64)
    # With any number of labels an image each class has a probability of its own.
    probabilities = 1 / (1 + np.exp(-logits)) if net.multi_label else scores.softmax(logits)
    best = np.argsort(-probabilities, kind='stable')[:TOP]
    return '\n'.join(f'{probabilities[c]:.1%} {net.class_names[c]}' for c in best)
