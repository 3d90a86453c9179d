"""Labels a whole source of images by any net: probabilities for each, from which a student learns.

    cvresearch label --weights NAME --config FILE.py [--config.unlabelled.name=...] --out DIR

NAME is run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k or a path. The images are those that the
configuration names in `unlabelled`, the student's own, and the net sees them as it was evaluated, without noise.
Writes DIR/labels.npz, which the student takes by --config.method.name=soft_labels and
--config.unlabelled.labels=DIR/labels.npz; it chooses among them by config.unlabelled's threshold, per_class, best and
hard. The same command again goes on where it was stopped.

Prints how many images each class has at some confidences.
"""

import json
from pathlib import Path
from typing import cast

import jax
import numpy as np

from cvresearch.base import cli
from cvresearch.base.errors import UserError
from cvresearch.base.workdir import write_atomically
from cvresearch.data import identity, sources
from cvresearch.data.decoded import Pictures
from cvresearch.data.examples import Examples
from cvresearch.data.given_labels import LabelFile, counts
from cvresearch.data.preparation import PreparedArrays
from cvresearch.engine import classifiers
from cvresearch.interop.classifier import Classifier
from cvresearch.objectives import scores

BATCH = 64  # images that the net is given at once
PART = 4096  # images after which what is done is kept
CONFIDENCES = (0.0, 0.3, 0.5, 0.8, 0.95)
FILE, RECORD = 'labels.npz', 'label.json'


def label(net: Classifier, images: Examples, out: Path, part: int = PART) -> LabelFile:
    """Returns what a net says of images, and writes it to out/labels.npz; goes on from what is there already.

    Args:
      net: any with one class an image.
      images: without labels, prepared as the net's (`sources.load` with its preparation).
      out: folder, made where it does not exist.
      part: images after which what is done is kept.

    Raises:
      UserError: the folder holds labels by another net or of other images, or something else.
    """
    if net.multi_label:
        raise UserError(f'{net.provenance.name} gives an image any number of labels; expected one class an image')
    # Of the images before they are prepared: a teacher with another crop labels the same images.
    raw = images.encoded if isinstance(images, Pictures) else cast(PreparedArrays, images).base
    record = {
        'net': net.provenance.name,
        'digest': net.digest,
        'images': len(images),
        'images_sha256': identity.images_sha256(raw),
        'part': part,
    }
    _claim(out, record)
    if (out / FILE).exists():
        return LabelFile.load(out / FILE)
    logits_of = jax.jit(net.logits)
    for start in range(0, len(images), part):
        file = _part(out, start)
        if not file.exists():
            _write(file, _probabilities(logits_of, images, range(start, min(start + part, len(images)))))
    parts = [_part(out, start) for start in range(0, len(images), part)]
    joined = np.concatenate([np.load(file, allow_pickle=False) for file in parts])
    labels_file = LabelFile(joined, net.class_names, record['images_sha256'], net.provenance.name)
    temporary = out / f'tmp.{FILE}'
    labels_file.save(temporary)
    temporary.replace(out / FILE)
    for file in parts:
        file.unlink()
    return labels_file


def table(file: LabelFile) -> list[str]:
    """Returns lines for a person: the images of the least and the most frequent class, and of all, by confidence."""
    lines = [f'{len(file.probabilities):,} images, {len(file.class_names)} classes, labelled by {file.net}']
    for confidence in CONFIDENCES:
        per_class = counts(file.probabilities, confidence)
        least, most = int(per_class.argmin()), int(per_class.argmax())
        lines.append(
            f'confidence {confidence:4.2f} and more: {per_class.sum():,} images; fewest {per_class[least]:,} '
            f'({file.class_names[least]}), most {per_class[most]:,} ({file.class_names[most]})'
        )
    return lines


def _probabilities(logits_of, images: Examples, places: range) -> np.ndarray:
    """Returns float32 (len(places), classes); batches are filled up, so that all are compiled as one."""
    batches = []
    for start in range(places.start, places.stop, BATCH):
        index = np.arange(start, min(start + BATCH, places.stop))
        # Filled up with the same images again, so that the last batch needs no program of its own.
        shown, _ = images.take(np.resize(index, BATCH))
        batches.append(scores.softmax(np.asarray(logits_of(shown), np.float64))[: len(index)])
    return np.concatenate(batches).astype(np.float32)


def _claim(out: Path, record: dict) -> None:
    if not (out / RECORD).exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(f'{out} holds something else than labels; name a new folder')
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / RECORD, json.dumps(record, indent=2) + '\n')
        return
    was = json.loads((out / RECORD).read_text(encoding='utf-8'))
    if different := [key for key in ('digest', 'images_sha256', 'images', 'part') if was.get(key) != record[key]]:
        raise UserError(
            f'{out} holds labels by {was.get("net")} of {was.get("images"):,} images, and these differ in '
            f'{", ".join(different)}; name another --out'
        )


def _part(out: Path, start: int) -> Path:
    return out / f'part{start:09d}.npy'


def _write(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f'tmp.{path.name}')
    np.save(temporary, array)
    temporary.replace(path)


def main(argv: list[str]) -> int:
    """Labels the images and prints what came of it."""
    options = cli.parse(
        argv,
        __doc__,
        required=('weights', 'config', 'out'),
        places=('out',),
        weights='the net: run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET, or a path',
        config='experiment file whose `unlabelled` names the images',
        out='folder of the labels',
    )
    config = cli.config_of(options)
    if config.unlabelled.name == 'none':
        raise UserError('config.unlabelled.name is none; expected the images to label: rest, images, or a source')
    net = classifiers.load(options.weights)
    images = config.unlabelled.to_dict() | {'labels': ''}  # all of them, also where the student has labels already
    source = sources.load(config.data, config.minival, preparation=net.preprocessing, without_labels=images)
    print(*table(label(net, source.unlabelled, options.out)), sep='\n')
    print(f'{options.out / FILE}')
    return 0
