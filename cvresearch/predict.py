"""Says what is on photographs, by weights of other libraries.

    python -m cvresearch.predict --model efficientnet_lite0 --weights FILE IMAGE... [--format text|json]

An IMAGE may be a folder, whose images are taken, sorted, those in folders below it too, or a quoted pattern
('photos/*.jpg'). Pixels are as stored, as in training: an orientation in the EXIF data is not followed.

Prints the five most likely classes of each image and their probabilities. With --format json, one
line an image: {"image": ..., "top": [{"class": 970, "name": "alp", "probability": 0.61}, ...]}.

Weights are read from .safetensors, .pth, .pt, .bin, .npz, .h5 and .keras files. FILE.json beside
them may override the preprocessing and name the classes (see cvresearch/data/preprocessing.py).
"""

import glob
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from cvresearch.base import cli
from cvresearch.base.errors import BAD_INPUT, UserError, lookup
from cvresearch.base.paths import local
from cvresearch.data import preprocessing
from cvresearch.data.names import ENDINGS, is_image
from cvresearch.interop import conversion, weight_files
from cvresearch.models import registry

TOP = 5


def predictor(model: str, file: str | Path, reference: str | None = None) -> Callable[[str | Path], list[dict]]:
    """Returns a function from an image's path to its most likely classes, best first.

    Args:
      model: name of a variant.
      file: of weights.
      reference: whose tensor names the file has; found out where not given.

    Raises:
      UserError: an unknown model or reference, or weights that cannot be read or do not fit. The
        function raises it for a file that is no image.
    """
    variant = registry.variant(model)
    if reference is not None and registry.reference(reference).variant != model:
        raise UserError(f'{reference} is a {registry.reference(reference).variant}, not a {model}')
    tensors = weight_files.read(file)
    reference = reference or conversion.infer(tensors, model)
    module, variables = conversion.to_variables(tensors, reference, conversion.classes_of(tensors, reference))
    prepare, names = preprocessing.of(registry.current_name(reference), variant.input_shape[0], Path(file))
    names = names or _default_names(module.num_classes)
    if len(names) != module.num_classes:
        raise UserError(f'{file}.json names {len(names)} classes; the weights have {module.num_classes}')
    logits_of = jax.jit(lambda variables, images: module.apply(variables, images, train=False))

    def predict(path: str | Path) -> list[dict]:
        image = prepare(preprocessing.open_image(path))
        logits = np.asarray(logits_of(variables, image[None])[0], np.float64)
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities, kind='stable')[:TOP]
        return [{'class': int(c), 'name': names[c], 'probability': float(probabilities[c])} for c in best]

    return predict


def _default_names(num_classes: int) -> tuple[str, ...]:
    names = preprocessing.imagenet_classes()
    return names if num_classes == len(names) else tuple(f'class {c}' for c in range(num_classes))


def images_of(path: str) -> list[str]:
    """Returns the image files that a path names: itself; those in a folder, at any depth, or of a pattern, sorted.

    Raises:
      UserError: a folder without images, or a pattern that nothing fits.
    """
    if os.path.isdir(path):
        found = []
        for folder, below, names in os.walk(path):
            below[:] = [name for name in below if not name.startswith('.')]
            found += [os.path.join(folder, name) for name in names if _is_image(name)]
        if not found:
            raise UserError(f'there is no image in the folder (files that end in {", ".join(ENDINGS)})')
        return sorted(found)
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]
    found = [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
    if not found:
        raise UserError('no file fits this pattern')
    return sorted(found)


def _is_image(name: str) -> bool:
    return not name.startswith('.') and is_image(os.fsencode(name))


def _shown(path: str) -> str:
    """Returns a path as text: a file's name may be bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors='backslashreplace')


def _as_text(image: str, top: list[dict]) -> str:
    return '\n'.join([image, *(f'{row["probability"]:9.2%}  {row["name"]} ({row["class"]})' for row in top)])


def _as_json(image: str, top: list[dict]) -> str:
    return json.dumps({'image': image, 'top': top})


FORMATS: dict[str, Callable[[str, list[dict]], str]] = {'text': _as_text, 'json': _as_json}


def main(argv: list[str]) -> int:
    """Prints the classes of each image; an unreadable one is one line on standard error and makes the exit code 2."""
    options = cli.parse(
        argv, __doc__, required=('model', 'weights'), positional='image files, folders of them', places=('weights',),
        model='name of a variant, efficientnet_lite0',
        weights='file of weights, of the library that --reference names',
        reference='whose weights they are, torchvision/resnet50; found out by their names where those tell; '
                  'a tag (timm/resnet50.tv_in1k) tells how its images are prepared',
        format='text (default) or json',
    )  # fmt: skip
    write = lookup('format', FORMATS, options.format or 'text')
    if not options.rest:
        raise UserError('no image is given; name image files after the flags')
    predict = predictor(options.model, options.weights, options.reference)
    code = 0
    for path in options.rest:
        try:
            images = images_of(str(local(path)))
        except UserError as error:
            images, code = [], _complain(path, str(error))
        for image in images:
            try:
                print(write(_shown(image), predict(image)), flush=True)
            except UserError as error:
                code = _complain(image, str(error))
            except MemoryError:
                code = _complain(image, 'memory is lacking to decode it; make the image smaller')
    return code


def _complain(path: str, why: str) -> int:
    print(f'error: {_shown(path)}: {" ".join(why.split())}', file=sys.stderr)
    return BAD_INPUT


if __name__ == '__main__':
    cli.run(main)
