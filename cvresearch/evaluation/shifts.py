"""Accuracy where objects are not in the middle: cvresearch evaluate shifts --workdir DIR [--out FILE].

Every image of the split is tested as it is, then moved by a shift of its own, drawn evenly within --reach pixels along
both axes: top-1, macro precision, recall and F1. Then the whole split (--limit images of it) is moved by each place of
a grid of --step pixels: top-1 as a function of the shift. What a shift uncovers is black; images whose objects lie in
black margins (`data.pad`) lose nothing of them as long as the shift is within the margins.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cvresearch.base import cli, outputs
from cvresearch.base.errors import UserError
from cvresearch.base.workdir import write_atomically
from cvresearch.data.examples import Example, Examples
from cvresearch.data.sources import part_of
from cvresearch.evaluation import predictions
from cvresearch.evaluation.runs import Run

KEPT = ('top1', 'macro_precision', 'macro_recall', 'macro_f1', 'n_seen')


@dataclasses.dataclass(frozen=True)
class Shifted:
    """The examples of a split, each moved; zeros come in.

    Attributes:
      base: uint8 images of one size.
      shifts: (len(base), 2), pixels down and to the right.
    """

    base: Examples
    shifts: np.ndarray

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Example:
        images, labels = self.take(np.array([index]))
        return Example(images[0], labels[0], self.base[index].id)

    def take(self, index: np.ndarray, keys: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the moved images at `index` and their labels."""
        images, labels = self.base.take(index, keys)
        moved = [shifted(image, *self.shifts[int(i)]) for image, i in zip(images, index, strict=True)]
        return np.stack(moved), labels


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Returns an image (height, width, channels) moved by so many pixels; zeros come in."""
    moved, (height, width) = np.zeros_like(image), image.shape[:2]
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    from_rows = slice(max(-down, 0), height - max(down, 0))
    from_columns = slice(max(-right, 0), width - max(right, 0))
    moved[rows, columns] = image[from_rows, from_columns]
    return moved


def measure(workdir: str | Path, reach: int, step: int, split: str = 'test', limit: int = 0, seed: int = 1) -> dict:
    """Returns the record: `as_given`, `shifted` and the `grid` of top-1 by shift, percent.

    Args:
      workdir: of the run; its newest checkpoint is measured.
      reach: largest shift along either axis, in pixels.
      step: of the grid, in pixels.
      split: whose images are moved.
      limit: images at each place of the grid, evenly over the classes; 0 for all.
      seed: of the shifts that are drawn.

    Raises:
      UserError: no run, a shift as large as the image, images of no single size or with several labels.
    """
    run = Run.open(workdir)
    run.check_data(split)
    height, width, _ = run.experiment.source.facts.image_shape
    if reach >= min(height, width):
        raise UserError(f'--reach is {reach}; expected less than the side of the images, {min(height, width)} pixels')
    if run.config.transform:
        raise UserError('shifts are of images that the source has at one size; these are files, cropped by a transform')
    state, examples = run.checkpoint(), run.examples(split)

    def tested(one: Run, moved: Shifted | None) -> dict:
        if moved is not None:
            source = dataclasses.replace(one.experiment.source, splits={split: moved})
            one = dataclasses.replace(one, experiment=dataclasses.replace(one.experiment, source=source))
        (answers,) = one.predictions([state], split, one.protocol(split))
        if answers.multi_label or answers.labels.ndim != 1:
            raise UserError('shifts are measured of one class an image, and these have several')
        summary = predictions.summary(answers)
        return {key: summary[key] for key in KEPT}

    drawn = np.random.Generator(np.random.Philox(key=seed)).integers(-reach, reach + 1, (len(examples), 2))
    record = run.record(int(state.position), split, run.experiment.weights[-1], run.protocol(split))
    record |= dict(trained_on=len(run.examples('train')), reach=reach, step_of_grid=step, seed_of_shifts=seed)
    record['as_given'], record['shifted'] = tested(run, None), tested(run, Shifted(examples, drawn))
    source = part_of(run.experiment.source, split, limit, 1) if limit else run.experiment.source
    part = source.splits[split]
    places = list(range(-(reach // step) * step, reach + 1, step))
    grid = []
    for down in tqdm(places, desc='shifts', unit='row', leave=False):
        moved = [Shifted(part, np.tile((down, right), (len(part), 1))) for right in places]
        grid.append([tested(run, one)['top1'] for one in moved])
    return {**record, 'places': places, 'images_of_grid': len(part), 'grid': grid}


def main(argv: list[str]) -> int:
    """Prints the record, or writes it; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('workdir',),
        places=('workdir', 'out'),
        workdir='folder of the run',
        reach='largest shift in pixels; by default the margin of its data (data.pad), or an eighth of the side',
        step='pixels from one place of the grid to the next; a third of the reach by default',
        split='test (default), train or minival',
        limit='images at each place of the grid; all by default',
        seed='of the shifts that are drawn (1)',
        out='file for the record; it is printed by default',
    )
    numbers = {name: cli.integer(name, text) for name in ('limit', 'seed') if (text := getattr(options, name))}
    if options.out:
        outputs.check_place(options.out)
    config = Run.open(options.workdir, images=False).config
    usual = config.data.get('pad', 0) or 4
    reach = cli.integer('reach', options.reach) if options.reach else usual
    step = cli.integer('step', options.step) if options.step else max(1, reach // 3)
    text = json.dumps(measure(options.workdir, reach, step, options.split or 'test', **numbers))
    if options.out:
        write_atomically(options.out, text + '\n')
        print(options.out)
    else:
        print(text)
    return 0
