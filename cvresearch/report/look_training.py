"""What `cvresearch look` draws of how nets train: layers along a run, loss curves, the loss surface, kept answers.

Each function takes folders or files and the options of the command line, and writes a picture and arrays.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cvresearch.base import cli
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.escape import line
from cvresearch.base.paths import local
from cvresearch.base.workdir import is_free
from cvresearch.data import decode, identity, sources
from cvresearch.data.examples import Source, ids
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine import steps
from cvresearch.engine.trained import TrainedRun
from cvresearch.engine.watching import SPLIT
from cvresearch.evaluation import measure
from cvresearch.evaluation.predictions import KEPT, Predictions
from cvresearch.inspect import training
from cvresearch.interop.classifier import Classifier
from cvresearch.objectives.tasks import MULTI, SINGLE
from cvresearch.report import answers, look_inside, looks, runs
from cvresearch.report import layers as drawn

MISTAKES, IMAGES, PLACES, REACH = 25, 256, 21, 1.0  # of a sheet; of a loss surface
BATCH = 64  # images of a loss surface at once
PREFERRED = ('test_ema', 'test_swa', 'test_polyak', 'test', 'minival')  # of several kept predictions


def run_folder(text: str) -> Path:
    """Returns the folder of a run that is named as a net, 'run:DIR', or by itself."""
    return local(text.removeprefix('run:'), 'the run')


def layers(kind: str, names: Sequence[str], options: SimpleNamespace) -> None:
    """Draws what a run has recorded of its layers: `kind` is training, activations or gradients."""
    if len(names) != 1:
        raise UserError(f'{kind} is of one run, and {len(names)} are given')
    rows = [row for row in runs.read(run_folder(names[0])).rows if row['split'] == SPLIT]
    if not rows:
        raise UserError(
            f'{line(names[0])} has no record of its layers; train with --config.watch.name=layers, or look at a net '
            f'with images: cvresearch look activations --weights NAME IMAGE...'
        )
    if kind != 'training':
        look_inside.show_distributions(drawn.distributions(rows, kind), kind, options)
        return
    updates = [row.get('update_ratio', {}) for row in rows]  # none at the end of a run
    ratios = list(updates[0])
    arrays = {
        'step': np.asarray([row['step'] for row in rows]),
        'parameter': np.asarray(ratios),
        'layer': np.asarray(list(rows[0]['activations'])),
        'update_ratio': np.asarray([[update.get(name, math.nan) for name in ratios] for update in updates]),
    }
    for what in ('activations', 'gradients'):
        for key in ('mean', 'std', 'dead'):
            values = [[one[key] for one in row[what].values()] for row in rows]
            arrays[f'{what}_{key}'] = np.asarray(values, float)  # None is not a number
    looks.written(options, drawn.over_run(rows), arrays)


def curves(names: Sequence[str], options: SimpleNamespace) -> None:
    """Draws the loss of several runs in one picture, each named by what its configuration has of its own."""
    split = options.split or 'train'
    records = [runs.read(run_folder(name)) for name in names]
    labels = _told_apart(records)
    series = {}
    for label, run in zip(labels, records, strict=True):
        rows = [row for row in run.rows if row['split'] == split and 'loss' in row]
        if not rows:
            splits = ', '.join(sorted({row['split'] for row in run.rows if 'loss' in row})) or 'none'
            raise UserError(f'run {run.name} has no loss of {split!r}; its splits: {splits}')
        series[label] = tuple(np.asarray([row[key] for row in rows], float) for key in ('epoch', 'loss'))
    for label, (_, losses) in series.items():
        print(f'{label}: {split} loss {losses[0]:.4g} to {losses[-1]:.4g}')
    arrays = {
        f'{i} {label} {key}': column
        for i, (label, pair) in enumerate(series.items())
        for key, column in zip(('epoch', 'loss'), pair, strict=True)
    }
    looks.written(options, looks.curves(series, 'epoch', f'{split} loss', log=_spread(series) > 20), arrays)


def _spread(series: dict) -> float:
    values = np.concatenate([losses for _, losses in series.values()])
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.max() / values.min()) if values.size else 1.0


def _told_apart(records: Sequence[runs.RunRecord]) -> list[str]:
    """Returns a name for each run: the keys in which their configurations differ, else the folder."""
    keys = sorted({key for run in records for key in run.config if not is_free(key)})
    differ = [key for key in keys if len({repr(run.config.get(key)) for run in records}) > 1]
    spoken = {'schedule.peak': 'learning rate'}
    labels = [', '.join(f'{spoken.get(key, key)} {run.config.get(key, "-")}' for key in differ) for run in records]
    if not differ or len(differ) > 3 or len(set(labels)) < len(labels):
        labels = [run.name for run in records]
    return labels if len(set(labels)) == len(labels) else [f'{label} ({i})' for i, label in enumerate(labels)]


def surface(net: Classifier, options: SimpleNamespace) -> None:
    """Draws the loss around a net's parameters, along two filter-normalised directions (Li et al. 2018)."""
    number = cli.integer('points', options.points, least=3) if options.points else PLACES
    reach = cli.positive('reach', options.reach) if options.reach else REACH
    limit = cli.integer('limit', options.limit) if options.limit else IMAGES
    batches, split = _labelled(net, options, limit)
    task = MULTI if net.multi_label else SINGLE
    rule = optax.sigmoid_binary_cross_entropy if net.multi_label else optax.softmax_cross_entropy

    @jax.jit
    def of_batch(params, images, labels):
        logits = cast(jax.Array, net.module.apply({**net.variables, 'params': params}, images, train=False))
        losses = rule(logits, task.target(labels, net.num_classes))
        return losses.reshape(len(images), -1).sum()

    total = sum(len(labels) for _, labels in batches)
    loss = lambda params: sum(of_batch(params, *batch) for batch in batches) / total  # noqa: E731
    loss(net.variables['params'])  # compiled
    start = time.perf_counter()
    here = float(loss(net.variables['params']))
    seconds = (time.perf_counter() - start) * number**2
    of = f'{total:,} images of {split}'
    print(f'loss {here:.4f} on {of}; {number**2:,} places, about {seconds:.0f} seconds', flush=True)
    places, losses = training.loss_surface(loss, net.variables['params'], reach=reach, number=number)
    figure = looks.surface(places, losses, f'{net.provenance.variant}, {of}')
    looks.written(options, figure, dict(places=places, losses=losses))


def _labelled(net: Classifier, options: SimpleNamespace, limit: int) -> tuple[list[tuple], str]:
    """Returns batches of (normalized images, labels) of a data set, and the name of the split."""
    data = _named_data(options) or measure.own_data(net)
    source = sources.load(data, class_names=net.class_names, preparation=net.preprocessing)
    if source.facts.multi_label != net.multi_label:
        raise UserError('the net and the data differ: one has one label an image, and the other any number of them')
    split = options.split or ('train' if 'train' in source.splits else 'test')
    lookup('split', source.splits, split)
    examples = sources.part_of(source, split, limit).splits[split]
    prepared = net.preprocessing
    batches = []
    for start in range(0, len(examples), BATCH):
        images, labels = examples.take(np.arange(start, min(start + BATCH, len(examples))))
        if labels.ndim == 2 and not net.multi_label:
            raise UserError('the images have several labels, any of which is right, and so no cross entropy')
        batches.append((steps.normalize(jnp.asarray(images), prepared.mean, prepared.std), jnp.asarray(labels)))
    return batches, split


def _named_data(options: SimpleNamespace) -> dict | None:
    """Returns the source that --data and --root name; None if there is no --data."""
    if not options.data:
        if options.root:
            raise UserError('--root is the place of a --data; give both, such as --data=image_folder --root=DIR')
        return None
    defaults = {'every': 1} if options.data == 'image_folder' else {}
    return {'name': options.data, **defaults, **({'root': options.root} if options.root else {})}


def answered(kind: str, names: Sequence[str], options: SimpleNamespace) -> None:
    """Draws what a net says of a split, from kept predictions: confusion, calibration, classes or mistakes."""
    if len(names) != 1:
        raise UserError(f'{kind} is of the predictions of one net, and {len(names)} are given')
    path = _predictions_file(names[0], options.split)
    predictions = Predictions.load(path)
    print(f'{path}: {len(predictions.labels):,} images, {predictions.right.mean():.2%} right')
    if kind == 'confusion':
        counts = answers.confusion_of(predictions)
        arrays = {'confusion': counts, 'class': np.asarray(answers.names_of(predictions))}
        looks.written(options, answers.confusion(predictions), arrays)
    elif kind == 'calibration':
        bins = cli.integer('bins', options.bins) if options.bins else 15
        figure = answers.calibration(predictions, bins)
        error, rows = answers.scores.calibration(predictions.probabilities, predictions.labels, bins)
        print(f'expected calibration error {error:.2%} in {bins} bins')
        columns = {key: np.asarray([row[key] for row in rows], float) for key in rows[0]}
        looks.written(options, figure, {'ece': error, **columns})
    elif kind == 'classes':
        looks.written(options, answers.classes(predictions), answers.class_table(predictions))
    else:
        _mistakes(predictions, path, options)


def _mistakes(predictions: Predictions, path: Path, options: SimpleNamespace) -> None:
    index = answers.worst(predictions, cli.integer('number', options.number) if options.number else MISTAKES)
    if not len(index):
        raise UserError(f'{path} has no mistake: all {len(predictions.labels):,} images are right')
    examples = _source_of(predictions, path, options).splits[predictions.record['split']]
    images = [_pixels(examples[int(i)].image) for i in index]
    names, sure = answers.names_of(predictions), predictions.probabilities.max(-1)
    for i, known in zip(index, ids(examples, index), strict=True):
        print(f'{line(known)}: {names[predictions.predicted[i]]} {sure[i]:.1%}, is {names[predictions.labels[i]]}')
    arrays = dict(
        index=index, predicted=predictions.predicted[index], label=predictions.labels[index], probability=sure[index]
    )
    looks.written(options, answers.mistakes(predictions, index, images), arrays)


def _source_of(predictions: Predictions, path: Path, options: SimpleNamespace) -> Source:
    """Returns the data that predictions are of: --data, or those of the run in whose folder they lie.

    Raises:
      UserError: neither is there, or they are other images.
    """
    record, run = predictions.record, path.parent.parent
    split, data = record.get('split', 'test'), _named_data(options)
    if data:
        source = sources.load(data, class_names=predictions.class_names or None, preparation=Preprocessing())
    elif (run / 'config.json').is_file():
        source = TrainedRun.open(run).experiment.source
    else:
        named = f'--data={record.get("data", "image_folder")}, with --root for a folder'
        raise UserError(f'{path} lies in no run, and the images of its mistakes are needed: give {named}')
    if subset := record.get('subset'):
        source = sources.part_of(source, split, subset.get('limit', 0), subset.get('every', 1))
    examples = lookup('split', source.splits, split)
    known = record.get('images_sha256')
    if len(examples) != len(predictions.labels) or known not in (None, identity.images_sha256(examples)):
        raise UserError(
            f'{path} is of other images than {source.facts.name} {split} ({len(predictions.labels):,} images, here '
            f'{len(examples):,}); name the data that were evaluated with --data and --root'
        )
    return source


def _pixels(image: np.ndarray | bytes) -> np.ndarray:
    """Returns the pixels of an example, uint8 (height, width, channels)."""
    return decode.decode(image, decode.header(image)) if isinstance(image, bytes) else np.asarray(image)


def _predictions_file(text: str, split: str | None) -> Path:
    """Returns the file of predictions that is named, or that lies in the folder of a run or of an evaluation."""
    path = run_folder(text)
    if path.is_file() or not path.exists():
        return path
    files = {file.stem: file for file in sorted((path / KEPT).glob('*.npz'))}
    if not files:
        raise UserError(f'{path} has no predictions; cvresearch evaluate --weights=NAME --out=DIR writes them to DIR')
    if split:
        return lookup('split', files, split)
    named = [name for name in PREFERRED if name in files]
    if not named and len(files) > 1:
        raise UserError(f'{path} has predictions of {", ".join(files)}; name one with --split')
    return files[(named or list(files))[0]]
