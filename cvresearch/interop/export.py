"""Writes a net in a format of others, with its preprocessing and the names of its classes.

    cvresearch export --weights NAME --to FORMAT --out PATH [--uint8] [--float16]

NAME is run:DIR, file:PATH#torchvision/resnet50, hub:timm/resnet50.a1_in1k or a path. FORMAT is one of

    onnx         one file, opset 18: `images`, float32 (batch, height, width, channels), normalized, to `logits`
    stablehlo    one file for CPU, GPU and TPU: jax.export.deserialize(...).call(images)
    hub          a folder: timm.create_model('local-dir:PATH', pretrained=True)
    torchvision, timm, keras    a .safetensors file under the names that the library has, if the net is one of its nets

With --uint8, `images` are raw pixels in RGB, normalized inside, and `probabilities` come beside the logits (ONNX).
Whatever exists at PATH stays; a file that cannot be finished is not there.
"""

import dataclasses
import importlib.util
from pathlib import Path

from cvresearch.base import cli, records
from cvresearch.base.errors import UserError
from cvresearch.engine import classifiers
from cvresearch.interop import classifier, exports


def main(argv: list[str]) -> int:
    """Writes the net; prints a line for it."""
    options = cli.parse(
        argv, __doc__, required=('weights', 'to', 'out'), places=('out',),
        weights='the net: run:DIR, file:PATH#LIBRARY/NET, hub:OWNER/NET, or a path',
        to=f'the format: {", ".join(exports.FORMATS)}',
        out='the file or the folder to be made',
        model='name of a variant; of a file that does not say whose weights it holds',
        license='of the weights, for the model card of a hub folder: apache-2.0',
        push='of a hub folder: OWNER/NAME on the Hugging Face hub, to which it is uploaded as well',
        switches={
            'uint8': 'the net takes raw pixels, and gives probabilities too (onnx, stablehlo)',
            'float16': 'the net computes in float16 (onnx)',
            'weights_beside': 'the weights lie in a file of their own, OUT.safetensors (stablehlo)',
        },
    )  # fmt: skip
    asked = exports.Options(
        raw=options.uint8, half=options.float16, beside=options.weights_beside,
        license=options.license or '',
    )  # fmt: skip
    exports.check(options.to, options.out, asked)
    if options.push and options.to != 'hub':
        raise UserError(f'--push is for --to hub, not for --to {options.to}')
    if options.push and importlib.util.find_spec('huggingface_hub') is None:
        raise UserError("--push needs the package huggingface_hub; pip install 'cvresearch[hub]'")
    net = classifiers.load(options.weights, options.model or '')
    exports.export(net, options.to, options.out, dataclasses.replace(asked, facts=_facts(options.weights)))
    what = f'{net.provenance.variant}, {net.num_classes} classes, {options.to}'
    print(f'{options.out}: {what}, {_size(options.out):,} bytes')
    if options.push:
        _push(options.out, options.push)
    return 0


def _facts(name: str) -> dict:
    """Returns what a run's card says of its making, as rows of a model card; {} for other nets."""
    place = Path(classifier.parse(name).place)
    found = records.read_card(place) if place.is_dir() else None
    if not found:
        return {}
    return {key: value for key, value in found.items() if isinstance(value, (str, int, float)) or key == 'final'}


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
