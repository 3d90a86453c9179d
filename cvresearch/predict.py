"""Says what is on photographs, by any net.

    cvresearch predict --weights NAME IMAGE... [--format text|json|csv] [--top 5]

NAME is run:DIR (a run of your own; @best, @ema choose), file:PATH#torchvision/resnet50 (weights of another library) or
hub:timm/resnet50.a1_in1k; a plain path works too, of a file with --model or --reference beside. An IMAGE may be a
folder, whose images are taken, sorted, those in folders below it too, or a quoted pattern ('photos/*.jpg'). Pixels are
as stored, as in training: an orientation in the EXIF data is not followed.

Prints the most likely classes of each image and their probabilities. With --format json, one line an image:
{"image": ..., "top": [{"class": 970, "name": "alp", "probability": 0.61}, ...]}; with csv, one line a class.

--contact-sheet FILE.png (or .pdf, .svg) draws the images, each with its name and its likeliest class, on one sheet.

Weights are read from files of safetensors, PyTorch, NumPy and Keras, whatever their names end in. FILE.json beside
them may override the preprocessing and name the classes (see cvresearch/data/preprocessing.py).
"""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from cvresearch.base import cli, plugins
from cvresearch.base.errors import BAD_INPUT, UserError, lookup
from cvresearch.base.paths import local
from cvresearch.data import preprocessing
from cvresearch.data.walk import images_of
from cvresearch.engine import classifiers
from cvresearch.interop.classifier import Classifier
from cvresearch.objectives import scores

TOP = 5
BATCH = 16  # images that the net is given at once
THUMBNAIL = 240  # pixels of the longer side of an image on a sheet
ON_SHEET = 400  # images at most
CHARACTERS = 34  # of a line above an image


def predict(
    net: Classifier, paths: Iterable[str | Path], top: int = TOP
) -> Iterator[tuple[str | Path, list[dict] | str]]:
    """Yields (path, most likely classes, best first) of each image, in order.

    In place of the classes of an image that cannot be read comes the reason, a line.

    Args:
      net: any.
      paths: of images.
      top: how many classes.
    """
    logits_of = jax.jit(net.logits)
    paths = list(paths)
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        prepared = [_prepared(net, path) for path in some]
        images = [image for image in prepared if not isinstance(image, str)]
        # Always as many images as before: another number would be compiled anew.
        filled = images + images[:1] * (min(BATCH, len(paths)) - len(images))
        logits = iter(np.asarray(logits_of(np.stack(filled)), np.float64) if images else ())
        for path, image in zip(some, prepared, strict=True):
            yield path, image if isinstance(image, str) else _best(net, next(logits), top)


def _prepared(net: Classifier, path: str | Path) -> np.ndarray | str:
    try:
        return preprocessing.of_file(path, net.prepare)
    except UserError as error:
        return str(error)
    except MemoryError:
        return 'memory is lacking to decode it; make the image smaller'


def _best(net: Classifier, logits: np.ndarray, top: int) -> list[dict]:
    # With any number of labels an image each class has a probability of its own.
    probabilities = 1 / (1 + np.exp(-logits)) if net.multi_label else scores.softmax(logits)
    best = np.argsort(-probabilities, kind='stable')[:top]
    return [{'class': int(c), 'name': net.class_names[c], 'probability': float(probabilities[c])} for c in best]


class Sheet:
    """The images that were answered, small, with the likeliest class of each, as one picture.

    Args:
      path: of the picture; None for no sheet.

    Raises:
      UserError: no kind of picture, or something is at the path.
    """

    def __init__(self, path: Path | None):
        self.path, self.left_out = path, 0
        self._images, self._titles = [], []
        if path:
            _looks().check(path)

    def add(self, image: str | Path, top: list[dict]) -> None:
        """Takes an image and its classes."""
        if self.path and len(self._images) == ON_SHEET:
            self.left_out += 1
        elif self.path:
            small = Image.fromarray(preprocessing.open_image(image))
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            self._images.append(np.asarray(small))
            words = Path(_shown(str(image))).name, f'{top[0]["name"]} {top[0]["probability"]:.1%}'
            self._titles.append('\n'.join(_shortened(word) for word in words))

    def write(self) -> None:
        """Writes the sheet, if one was asked for and there is an image; says what it leaves out."""
        if self.path and self._images:
            looks = _looks()
            looks.saved(looks.contact_sheet(self._images, self._titles, side=1.5), self.path)
        if self.left_out:
            print(f'{self.path} has the first {ON_SHEET} images, and not {self.left_out} more', file=sys.stderr)


def _looks():
    # Matplotlib takes a second to import, which whoever asks for text need not wait for.
    from cvresearch.report import looks

    return looks


def _shortened(text: str) -> str:
    return text if len(text) <= CHARACTERS else f'{text[: CHARACTERS - 1]}…'


def _shown(path: str) -> str:
    """Returns a path as text: a file's name may be bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors='backslashreplace')


def _as_text(image: str, top: list[dict]) -> str:
    return '\n'.join([image, *(f'{row["probability"]:9.2%}  {row["name"]} ({row["class"]})' for row in top)])


def _as_json(image: str, top: list[dict]) -> str:
    return json.dumps({'image': image, 'top': top})


def _as_csv(image: str, top: list[dict]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(
        (image, rank, row['class'], row['name'], row['probability']) for rank, row in enumerate(top, 1)
    )
    return text.getvalue().rstrip('\n')


FORMATS: dict[str, Callable[[str, list[dict]], str]] = {'text': _as_text, 'json': _as_json, 'csv': _as_csv}
HEADS = {'csv': 'image,rank,class,name,probability'}


def main(argv: list[str]) -> int:
    """Prints the classes of each image; an unreadable one is one line on standard error and makes the exit code 2."""
    options = cli.parse(
        argv,
        __doc__,
        required=('weights',),
        positional='image files, folders of them',
        places=('contact_sheet',),
        weights='the net: run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET, or a path',
        model='name of a variant, efficientnet_lite0; of a file that does not say whose weights it holds',
        reference='whose weights a file holds, torchvision/resnet50; found out by their names where those tell; '
        'a tag (timm/resnet50.tv_in1k) tells how its images are prepared',
        format='text (default), json or csv',
        contact_sheet='a picture of the images and their classes, .png',
        top='classes an image (5)',
        plugins='a module or .py file with nets of your own; may be given several times',
        repeated=('plugins',),
    )
    plugins.load(plugins.resolved(options.plugins))
    form = options.format or 'text'
    write = lookup('format', FORMATS, form)
    top = cli.integer('top', options.top or str(TOP))
    if not options.rest:
        raise UserError('no image is given; name image files after the flags')
    sheet = Sheet(options.contact_sheet)
    name = options.weights
    if options.reference:
        name = f'{name.partition("#")[0]}#{options.reference}'
    net = classifiers.load(name, options.model or '')
    code, images = 0, []
    for path in options.rest:
        try:
            images += images_of(str(local(path)))
        except UserError as error:
            code = _complain(path, str(error))
    if form in HEADS:
        print(HEADS[form])
    for image, answers in predict(net, images, top):
        if isinstance(answers, str):
            code = _complain(str(image), answers)
        else:
            print(write(_shown(str(image)), answers), flush=True)
            sheet.add(image, answers)
    sheet.write()
    return code


def _complain(path: str, why: str) -> int:
    print(f'error: {_shown(path)}: {" ".join(why.split())}', file=sys.stderr)
    return BAD_INPUT


if __name__ == '__main__':
    cli.run(main)
