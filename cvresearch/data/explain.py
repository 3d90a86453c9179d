"""Shows what is done to images: cvresearch data explain --config configs/efficientnet_b0.py:smoke.

Prints shape, type, range and time after each step for one example, the first batches, and writes a contact sheet: a
row for each example, the image as it is and as the net sees it in the first epochs.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from cvresearch.base import cli, tables
from cvresearch.data import decode, resizing, sampling, sources
from cvresearch.data.decoded import Pictures
from cvresearch.data.examples import Examples, Facts, labels_of
from cvresearch.data.prng import example_keys
from cvresearch.data.stream import Stream
from cvresearch.data.transforms import Transform

SIDE, MARGIN, TITLE = 160, 4, 14  # of the contact sheet, in pixels
COLUMNS = ('step', 'shape', 'dtype', 'range', 'ms')
REPEATS = 5  # a step's time is the least of so many


def steps(examples: Examples, index: int, seed: int) -> Iterator[dict]:
    """Yields a row for each step from the source to the batch: its result's shape, type and range, and its time."""
    example, ms = _timed(lambda: examples[index])
    if not isinstance(examples, Pictures):
        yield _row(f'source: {example.id}, label {example.label}', example.image, ms)
        return
    yield dict(step=f'source: {example.id}, label {example.label}', shape=f'{len(example.image):,} bytes', ms=ms)
    transform, data = cast(Transform, examples.transform), example.image
    known, ms = _timed(lambda: decode.header(data))
    yield dict(step='header', shape=f'{known.height} x {known.width}', ms=ms)
    yield _row('decode, exactly and whole', *_timed(lambda: decode.decode(data, known)))
    (u,) = transform.draw(example_keys(seed, np.zeros(1, int), np.array([index])))
    pixels = np.empty((transform.size, transform.size, 3), np.uint8)
    _, ms = _timed(lambda: transform.geometry(data, u, pixels))
    plan = transform.crop.plan(known.height, known.width, u['crop'])
    yield _row(f'decode what is needed, cut {plan.box}, resize to {plan.size}', pixels, ms)
    for name, _ in transform.steps:
        if name != 'crop':
            before = pixels.copy()
            _, ms = _timed(lambda name=name, before=before: transform.apply(name, before.copy(), u[name]))
            transform.apply(name, pixels, u[name])
            yield _row(name if (before != pixels).any() else f'{name} (not on this one)', pixels, ms)


def contact_sheet(examples: Examples, facts: Facts, rows: int, epochs: int, seed: int) -> Image.Image:
    """Returns a picture with a row for each of the first examples of epoch 0: as it is, then as each epoch has it."""
    height = SIDE + TITLE + MARGIN
    sheet = Image.new('RGB', ((SIDE + MARGIN) * (epochs + 1) + MARGIN, height * rows + MARGIN), 'white')
    draw = ImageDraw.Draw(sheet)
    _, index = Stream(examples, seed, max(rows, 1)).drawn(0, rows)
    views = [examples.take(index, example_keys(seed, np.full(rows, epoch), index))[0] for epoch in range(epochs)]
    for row, number in enumerate(index):
        example, top = examples[int(number)], row * height + MARGIN
        labels = [facts.class_names[label] for label in np.ravel(example.label) if label >= 0]
        draw.text((MARGIN, top), f'{", ".join(labels) or "no label"}  |  {example.id}', fill='black')
        for column, pixels in enumerate((_pixels(example.image), *(view[row] for view in views))):
            sheet.paste(_thumbnail(pixels), (MARGIN + column * (SIDE + MARGIN), top + TITLE))
    return sheet


def explain(config: ConfigDict, rows: int, epochs: int, output: Path) -> str:
    """Returns the tables as text, and writes the contact sheet.

    Raises:
      UserError: as `sources.load`.
    """
    source = sources.load(config.data, config.minival, config.transform)
    lines = [f'{source.facts.name}: {source.facts.num_classes:,} classes, images of {source.facts.image_shape}']
    for name, examples in source.splits.items():
        lines += ['', f'{name}: {len(examples):,} examples']
        described = [dict.fromkeys(COLUMNS, '') | row for row in steps(examples, 0, config.seed)]
        lines.append(tables.render(described, COLUMNS, 'text'))
    train = source.splits.get('train')
    if train is None:
        train = source.splits['test']
    drawn = sampling.make(config.sampling, len(train), labels_of(train))
    stream = Stream(train, config.seed, config.batch_size, sampling=drawn)
    batch, ms = _timed(lambda: stream.batch(0), 1)
    lines += ['', f'batch 0: {batch["image"].shape} uint8, {batch["image"].nbytes / 2**20:.1f} MiB, {ms} ms']
    size = len(train)
    phases = resizing.make(config.resize, round(config.epochs * size / config.batch_size), size / config.batch_size)
    lines += [f'from step {phase.first:,}: {phase.size} pixels {phase.values or ""}' for phase in phases if phase.size]
    if isinstance(train, Pictures):
        knobs = [name for name, _ in cast(Transform, train.transform).steps]
        lines.append(f'on the host: {", ".join(knobs)}; then, on the device: {_on(config.augment)}')
        if train.damage and train.damage.found:
            lines.append(f'damaged: {train.damage.found}')
    else:
        lines.append(f'on the host: nothing; on the device: {_on(config.augment)}')
    contact_sheet(train, source.facts, min(rows, size), epochs, config.seed).save(output)
    return '\n'.join([*lines, f'contact sheet: {output}'])


def _on(augment: ConfigDict) -> str:
    on = {key: value for key, value in augment.items() if value not in (0, False, 'black')}
    return ', '.join(f'{key}={value}' for key, value in on.items()) or 'nothing'


def _pixels(image: np.ndarray | bytes) -> np.ndarray:
    return image if isinstance(image, np.ndarray) else decode.decode(image, decode.header(image))


def _thumbnail(pixels: np.ndarray) -> Image.Image:
    """Returns an image no larger than SIDE pixels; small ones are enlarged without smoothing."""
    scale = SIDE / max(pixels.shape[:2])
    size = tuple(max(round(side * scale), 1) for side in pixels.shape[1::-1])
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    return Image.fromarray(np.broadcast_to(np.atleast_3d(resized), (*resized.shape[:2], 3)).copy())


def _timed(work, repeats: int = REPEATS) -> tuple:
    least = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        least = min(least, time.perf_counter() - start)
    return result, f'{1e3 * least:.2f}'


def _row(step: str, pixels: np.ndarray, ms: str) -> dict:
    shape = 'x'.join(map(str, pixels.shape))
    return dict(step=step, shape=shape, dtype=str(pixels.dtype), range=f'{pixels.min()} to {pixels.max()}', ms=ms)


def main(argv: list[str]) -> int:
    """Prints the tables and writes the sheet; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('config',),
        places=('output',),
        config='experiment file, with :ARGUMENT after its name where it takes one',
        examples='rows of the contact sheet (8)',
        epochs='how often each example is shown there (8)',
        output='file of the contact sheet (contact_sheet.png)',
    )
    rows, epochs = (
        cli.integer(name, value) if (value := getattr(options, name)) else 8 for name in ('examples', 'epochs')
    )
    print(explain(cli.config_of(options), rows, epochs, options.output or Path('contact_sheet.png')))
    return 0


if __name__ == '__main__':
    cli.run(main, now='cvresearch data explain')
