"""Writes a net in a format of others, with its preprocessing and the names of its classes.

    cvresearch export --weights NAME --to FORMAT --out PATH [--uint8] [--probabilities] [--float16]

NAME is run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k, compressed:DIR or a path. Of a run that
keeps an average of its weights, the average leaves; run:DIR@raw are the weights themselves, run:DIR@best the best ones.
Several --weights are an ensemble, whose probabilities are the mean. FORMAT is one of

    onnx         one file, opset 18: `images`, float32 (batch, height, width, channels), normalized, to `logits`
    stablehlo    one file for CPU, GPU and TPU: jax.export.deserialize(...).call(images)
    savedmodel   a folder for TensorFlow, any batch; tflite one file, of one image at a time
    hub          a folder: timm.create_model('local-dir:PATH', pretrained=True)
    torchvision, timm, keras    weights under the names that the library has, if the net is one of its nets: a file
                 .safetensors, of PyTorch .pth, of Keras .h5, which load_weights(PATH, by_name=True) takes

With --uint8, `images` are raw pixels in RGB, normalized inside. With --probabilities an ONNX file gives `probabilities`
beside the logits (with --uint8 too), other programs in their place. A net of int8 keeps its integers in ONNX.
Whatever exists at PATH stays; a file that cannot be finished is not there.
"""

import dataclasses
import importlib.util
import json
from pathlib import Path

from cvresearch.base import cli, records
from cvresearch.base.errors import UserError
from cvresearch.engine import classifiers
from cvresearch.interop import classifier, ensembled, exports


def main(argv: list[str]) -> int:
    """Writes the net; prints a line for it."""
    options = cli.parse(
        argv,
        __doc__,
        required=('weights', 'to', 'out'),
        places=('out',),
        repeated=('weights',),
        weights='the net: run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET, or a path; several are an ensemble',
        to=f'the format: {", ".join(exports.FORMATS)}',
        out='the file or the folder to be made',
        model='name of a variant; of a file that does not say whose weights it holds',
        license='of the weights, for the model card of a hub folder: apache-2.0',
        push='of a hub folder: OWNER/NAME on the Hugging Face hub, to which it is uploaded as well',
        switches={
            'uint8': 'the net takes raw pixels',
            'probabilities': 'the net gives probabilities',
            'float16': 'the net computes in float16 (onnx)',
            'weights_beside': 'the weights lie in a file of their own, OUT.safetensors (stablehlo)',
        },
    )
    choices = exports.Options(
        raw=options.uint8,
        probabilities=options.probabilities,
        half=options.float16,
        beside=options.weights_beside,
        license=options.license or '',
    )
    exports.check(options.to, options.out, choices)
    if options.push and options.to != 'hub':
        raise UserError(f'--push is for --to hub, not for --to {options.to}')
    if options.push and importlib.util.find_spec('huggingface_hub') is None:
        raise UserError("--push needs the package huggingface_hub; pip install 'cvresearch[hub]'")
    net = ensembled.of([classifiers.load(name, options.model or '') for name in options.weights])
    facts = _facts(options.weights[0]) if len(options.weights) == 1 else {}
    exports.export(net, options.to, options.out, dataclasses.replace(choices, facts=facts))
    what = f'{net.provenance.variant}, {net.num_classes} classes, {options.to}'
    print(f'{options.out}: {what}, {_size(options.out):,} bytes')
    if options.push:
        _push(options.out, options.push)
    return 0


def _facts(name: str) -> dict:
    """Returns what a run's records say of its making: what a model card has; {} for other nets."""
    place = Path(classifier.parse(name).place)
    card = records.read_card(place) if place.is_dir() else None
    if not card:
        return {}
    facts = {key: value for key, value in card.items() if isinstance(value, (str, int, float)) or key == 'final'}
    recipe = place / 'config.json'
    return facts | ({'recipe': json.loads(recipe.read_text(encoding='utf-8'))} if recipe.exists() else {})


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob('*')) if path.is_dir() else path.stat().st_size


def _push(folder: Path, repository: str) -> None:
    import huggingface_hub

    try:
        huggingface_hub.create_repo(repository, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repository, folder_path=folder)
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        why = ' '.join(str(error).split())
        raise UserError(f'{folder} is written, but not uploaded to {repository}: {why}') from error
