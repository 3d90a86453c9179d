"""Makes a net small: one real file on the disk, which every program takes by --weights DIR.

    cvresearch compress --weights NAME --out DIR --prune 0.8 --bits 6 --code
    cvresearch compress --weights NAME --out DIR --svd size=0.2 [--svd_method separable]
    cvresearch compress --weights NAME --out DIR --scope channels --prune 0.3
    cvresearch compress --weights NAME --out DIR --int8 minmax --images FOLDER

NAME is any net: run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k or a path. Nothing is trained here:
what is asked for is done in the order factors, pruning, shared weights, int8, and the smallest coding of each layer is
written. DIR has net.cvr, the net, and compression.json: bytes of every layer and in all, digests of the original and
of the result, settings. With --data SOURCE [--root DIR], such as image_folder, both nets are evaluated on its test
images, and the record has the accuracies before and after, `n_seen`, and the latency of one image. DIR must not exist.
"""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np

from cvresearch.base import cli, tables, trees
from cvresearch.base.errors import UserError, lookup
from cvresearch.compress.pipeline import Settings, compress
from cvresearch.data import preprocessing, sources
from cvresearch.data.names import is_image
from cvresearch.engine import classifiers
from cvresearch.evaluation import measure
from cvresearch.interop import compressed
from cvresearch.interop.classifier import Classifier
from cvresearch.optim.kernels import kernels

BATCH = 16
MOST_IMAGES = 256  # to calibrate with; more change the ranges little
LATENCIES = 21  # images whose time is taken
# Flags that say how, by the flag that says what.
PARTS = {
    'scope': 'prune',
    'svd_method': 'svd',
    'kmeans': 'bits',
    'per_tensor': 'int8',
    'images': 'int8',
    'root': 'data',
    'limit': 'data',
}


def compressed_classifier(
    net: Classifier, settings: Settings, pixels: Iterable[np.ndarray] = (), name: str = ''
) -> Classifier:
    """Returns a smaller net that answers as any other.

    Args:
      net: the original.
      settings: what is done.
      pixels: batches of prepared images to calibrate int8 with, uint8 (batch, height, width, channels).
      name: of the result, in records.

    Raises:
      UserError: as `compress`.
    """
    variables, batches = jax.device_get(net.variables), (np.asarray(net.normalize(batch)) for batch in pixels)
    module, variables = compress(compressed.plain(net.module), variables, net.input_shape, settings, batches)
    provenance = dataclasses.replace(
        net.provenance, kind='compressed', name=name, digest=trees.sha256(variables), facts={'of': net.provenance.name}
    )
    return dataclasses.replace(net, module=module, variables=variables, provenance=provenance)


def photographs(folder: Path) -> list[Path]:
    """Returns the image files of a folder, at most `MOST_IMAGES`, evenly over all.

    Raises:
      UserError: there is none.
    """
    paths = sorted(path for path in folder.rglob('*') if path.is_file() and is_image(bytes(path)))
    if not paths:
        raise UserError(f'--images: there is no image in {folder}; expected a folder of photographs')
    step = max(len(paths) // MOST_IMAGES, 1)
    return paths[::step][:MOST_IMAGES]


def pixels_of(net: Classifier, photographs: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yields batches of photographs, prepared for a net."""
    for start in range(0, len(photographs), BATCH):
        yield np.stack([preprocessing.of_file(path, net.prepare) for path in photographs[start : start + BATCH]])


def training_pixels(net: Classifier, data: dict) -> Iterator[np.ndarray]:
    """Yields batches of a data set's training images, prepared for a net: at most `MOST_IMAGES`, evenly over all.

    Raises:
      UserError: as `sources.load`, or there are no training images.
    """
    source = sources.load(data, preparation=net.preprocessing)
    if 'train' not in source.splits:
        raise UserError(f'{data["name"]} has no training images to calibrate int8 with; give photographs by --images')
    images = sources.part_of(source, 'train', MOST_IMAGES).splits['train']
    for start in range(0, len(images), BATCH):
        yield images.take(np.arange(start, min(start + BATCH, len(images))))[0]


def layer_rows(net: Classifier, original: Classifier, sizes: Mapping[str, int]) -> list[dict]:
    """Returns what became of each layer: weights, the share that is not zero, distinct values, bytes before and after.

    A layer's bytes are of all its arrays: kernel, bias, scales.
    """
    before = kernels(original.variables['params'])
    after: dict[str, int] = {}
    for name, size in sizes.items():
        owner = name.partition('/')[2].rpartition('/')[0]
        after[owner] = after.get(owner, 0) + size
    now = kernels(net.variables['params'])
    rows = []
    for layer, kernel in before.items():
        parts = [part for name, part in now.items() if name in (layer, f'{layer}/first', f'{layer}/second')]
        weights = sum(part.size for part in parts)
        node = original.variables['params']
        for name in layer.split('/'):
            node = node[name]
        rows.append(
            {
                'layer': layer,
                'weights': kernel.size,
                'kept': sum(map(np.count_nonzero, parts)) / max(weights, 1),
                'stored': weights,
                'distinct': len(np.unique(np.concatenate([part.reshape(-1) for part in parts]))),
                'bytes_before': 4 * sum(leaf.size for leaf in jax.tree.leaves(node)),
                'bytes': after.get(layer, 0),
            }
        )
    return rows


def measured(net: Classifier, original: Classifier, data: dict, limit: int = 0) -> dict:
    """Returns what the record says of a compressed net beside its original: accuracies in percent, and latencies.

    Args:
      net: the compressed one; original: the original.
      data: `name` of a source and its arguments.
      limit: at most so many images of its test split.

    Raises:
      UserError: as `measure.measure`.
    """
    answers = {
        name: measure.measure(classifier, data, limit=limit)
        for name, classifier in (('before', original), ('after', net))
    }
    same = float(np.mean(answers['before'].predicted == answers['after'].predicted))
    return {
        'accuracy': {name: measure.metrics(predictions) for name, predictions in answers.items()},
        'same_answers': same,
        'latency_ms': {'before': latency(original), 'after': latency(net), 'device': jax.devices()[0].device_kind},
    }


def latency(net: Classifier, times: int = LATENCIES) -> float:
    """Returns the milliseconds from one image's pixels to its logits, compiled: the median."""
    logits, image = jax.jit(net.logits), np.zeros(net.input_shape, np.uint8)
    logits(image).block_until_ready()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        logits(image).block_until_ready()
        seconds.append(1000 * (time.perf_counter() - start))
    return float(np.median(seconds))


def main(argv: list[str]) -> int:
    """Writes the folder and prints a table of the layers."""
    options = cli.parse(
        argv,
        __doc__,
        required=('weights', 'out'),
        places=('out', 'images', 'root'),
        repeated=('layer',),
        switches={
            'code': 'Huffman codes where they pay; otherwise every code has the same number of bits',
            'per_tensor': 'one scale for a whole int8 kernel: it shows why depthwise nets need one a channel',
        },
        weights='the net: run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k, a path',
        out='folder to write; must not exist',
        model='the variant that a file of weights is of, where --weights does not say it',
        prune='share of the weights (or channels) to drop, 0 to 1',
        scope='layer (default): the share of each layer; global: of all together; channels: whole features',
        quality='instead of --prune: drop weights below so many deviations of their layer (Han et al. 2015)',
        svd='factors of a rank by energy=0.9, size=0.2, macs=0.5 or rank=64, where they make a layer smaller',
        svd_method='output (default): k x k and 1 x 1; separable: k x 1 and 1 x k',
        bits='of a shared weight, 1 to 8',
        kmeans='lloyd (default) or optimal',
        int8='how ranges are found: minmax, percentile or entropy',
        images='folder of photographs to calibrate --int8 with; by default training images of --data',
        data='a data set to evaluate both nets on, and to calibrate --int8 with: image_folder, imagenet, mnist5k, ...',
        root='of that data set',
        limit='at most so many of its test images',
        layer='to compress, by its name in the table; may be repeated; all by default',
    )
    settings, images = _checked(options)
    limit = cli.integer('limit', options.limit) if options.limit else 0
    net = classifiers.load(options.weights, options.model or '')
    data = measure.spec_of(options.data, options.root) if options.data else {}
    pixels = pixels_of(net, images) if images else training_pixels(net, data)
    small = compressed_classifier(net, settings, pixels if settings.int8 else (), str(options.out))
    about = {'settings': {**dataclasses.asdict(settings), 'code': options.code}, 'command': ['compress', *argv]}
    if options.data:
        about |= measured(small, net, data, limit)
    notes = compressed.Notes(about, options.code, lambda sizes: {'layers': layer_rows(small, net, sizes)})
    record = compressed.save_classifier(options.out, small, net, notes)
    rows = [row | {'kept': f'{row["kept"]:.1%}'} for row in record['layers']]
    print(tables.render(rows, ('layer', 'weights', 'kept', 'stored', 'distinct', 'bytes_before', 'bytes')))
    before, after = record['original']['bytes'], record['total_bytes']
    file = options.out / compressed.FILE
    print(f'{before:,} bytes as float32, {after:,} in {file}: {before / after:.1f} times smaller')
    if options.data:
        print(_accuracies(record))
    return 0


def _checked(options: SimpleNamespace) -> tuple[Settings, list[Path]]:
    """Returns what is done, and the photographs of the calibration; looks at all that needs no net."""
    if options.out.exists():
        raise UserError(f'--out {options.out} exists already; nothing is overwritten')
    for part, subject in PARTS.items():
        if getattr(options, part) and not getattr(options, subject):
            raise UserError(f'--{part} is of --{subject}; give both')
    settings = Settings(
        prune=_number('prune', options.prune),
        scope=options.scope or 'layer',
        quality=_number('quality', options.quality),
        svd=options.svd or '',
        svd_method=options.svd_method or 'output',
        bits=int(_number('bits', options.bits, integer=True)),
        kmeans=options.kmeans or 'lloyd',
        int8=options.int8 or '',
        per_tensor=options.per_tensor,
        layers=tuple(options.layer),
    )
    if options.bits is not None and not settings.bits:
        raise UserError(f'--bits is {options.bits!r}; expected a whole number from 1 to 8')
    if settings.int8 and not (options.images or options.data):
        raise UserError('--int8 needs --images FOLDER, some hundred photographs such as the net is for, or --data')
    if options.data:
        lookup('data', sources.table(), options.data)
    if options.root and not options.root.exists():
        raise UserError(f'--root: there is no {options.root}; expected the folder of the data set')
    return settings, photographs(options.images) if options.images else []


def _accuracies(record: dict) -> str:
    """Returns the accuracies before and after in a line."""
    before, after = (record['accuracy'][name] for name in ('before', 'after'))
    metric = 'top1' if 'top1' in after else 'mAP' if 'mAP' in after else 'real'
    return (
        f'{metric} {before[metric]:.2f} before, {after[metric]:.2f} after, of {after["n_seen"]:,} images of '
        f'{after["data"]}; the same answer to {record["same_answers"]:.1%}'
    )


def _number(flag: str, text: str | None, integer: bool = False) -> float:
    try:
        value = 0.0 if text is None else int(text) if integer else float(text)
    except ValueError as error:
        raise UserError(f'--{flag} is {text!r}; expected a {"whole " if integer else ""}number') from error
    if not (value >= 0 and math.isfinite(value)):
        raise UserError(f'--{flag} is {text!r}; expected at least 0')
    return value


if __name__ == '__main__':
    cli.run(main)
