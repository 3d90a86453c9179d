"""A classifier in the formats of others: what each holds beside the weights, and what it cannot hold."""

import dataclasses
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from cvresearch.base import outputs
from cvresearch.base.errors import UserError, lookup
from cvresearch.data import crops
from cvresearch.data.preparation import Preparation
from cvresearch.data.preprocessing import CHANNELS, INTERPOLATIONS, Preprocessing
from cvresearch.interop import conversion, hub_export, inference, libraries, weight_files
from cvresearch.interop.classifier import Classifier
from cvresearch.interop.stablehlo import flat, to_stablehlo
from cvresearch.models import registry
from cvresearch.nn.overrides import Net


@dataclasses.dataclass(frozen=True)
class Options:
    """What an export is asked for beside the format.

    Attributes:
      raw: the program takes raw pixels, uint8, and gives probabilities too.
      half: the program computes in float16.
      beside: the weights lie in a file of their own, which the program takes as an argument.
      license: of the weights, for the model card; what their source says of it if ''.
      facts: rows of the model card: what is known of the run.
    """

    raw: bool = False
    half: bool = False
    beside: bool = False
    license: str = ''
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Format:
    """One way out.

    Attributes:
      write: writes a classifier: (classifier, path, options).
      options: the options that it has.
      package: what must be installed, of the extra `export`; '' for nothing.
      endings: that the path may have; none for a folder.
    """

    write: Callable[[Classifier, Path, Options], None]
    options: tuple[str, ...] = ()
    package: str = ''
    endings: tuple[str, ...] = ()


def export(net: Classifier, form: str, path: Path, options: Options = Options()) -> None:
    """Writes a classifier in a format; complete, or nothing.

    Args:
      net: any.
      form: a name of `FORMATS`.
      path: of the file or folder, which must not exist.
      options: see there.

    Raises:
      UserError: as `check`; the net has no such form; there is something at the path.
      RunError: it cannot be written.
    """
    check(form, path, options)
    with outputs.beside(path) as folder:
        FORMATS[form].write(net, folder / path.name, options)


def check(form: str, path: Path, options: Options) -> None:
    """Checks what can be checked before the net is there.

    Raises:
      UserError: an unknown format, a missing package, an option that the format does not have, another ending,
        something at the path or no folder for it.
    """
    known = lookup('format', FORMATS, form)
    if known.package and importlib.util.find_spec(known.package) is None:
        raise UserError(f"--to {form} needs the package {known.package}; pip install 'cvresearch[export]'")
    for name, flag in (('raw', 'uint8'), ('half', 'float16'), ('beside', 'weights_beside')):
        if getattr(options, name) and name not in known.options:
            having = ', '.join(other for other, entry in FORMATS.items() if name in entry.options)
            raise UserError(f'--{flag} is not for --to {form}; formats that have it: {having}')
    if known.endings and path.suffix not in known.endings:
        raise UserError(f'{path}: --to {form} writes a file whose name ends in {" or ".join(known.endings)}')
    outputs.check_place(path)


def as_preprocessing(preparation: Preparation) -> Preprocessing:
    """Returns a preparation in the terms that other libraries have: resize, cut the centre, normalize.

    The pixels of a run that resizes with another filter than Pillow's differ from what this gives by the filter.
    """
    if isinstance(preparation, Preprocessing):
        return preparation
    crop, size = preparation.transform.crop, preparation.transform.size
    squash = not isinstance(crop, (crops.ResizeCenterCrop, crops.CenterCropResize))
    resize = size + crop.margin if isinstance(crop, crops.CenterCropResize) else preparation.resize or size
    interpolation = preparation.transform.interpolation
    return Preprocessing(
        crop=size, resize=size if squash else resize, squash=squash, mean=tuple(map(float, preparation.mean)),
        interpolation=interpolation if interpolation in INTERPOLATIONS else 'bilinear',
        std=tuple(map(float, preparation.std)), channels=preparation.channels,
    )  # fmt: skip


def sidecar(net: Classifier) -> dict:
    """Returns what a FILE.json beside weights says: how images are prepared, and the names of the classes."""
    return {**dataclasses.asdict(as_preprocessing(net.preprocessing)), 'classes': list(net.class_names)}


def _function(net: Classifier, options: Options, weights_inside: bool = True):
    preparation = net.preprocessing
    variables = net.variables if weights_inside else None
    if not options.raw:
        return inference.function(net.module, variables)
    return inference.function(
        net.module, variables, preparation.mean, preparation.std, CHANNELS[preparation.channels]
    )


def _onnx(net: Classifier, path: Path, options: Options) -> None:
    from cvresearch.interop.onnx_export import to_onnx  # needs the package onnx

    metadata = {'provenance': net.provenance.record, 'preprocessing': sidecar(net), 'classes': list(net.class_names)}
    model = to_onnx(
        _function(net, options), inference.image_spec(net.input_shape, options.raw),
        'float16' if options.half else 'float32', options.raw, metadata,
    )  # fmt: skip
    path.write_bytes(model.SerializeToString())


def _stablehlo(net: Classifier, path: Path, options: Options) -> None:
    weights = flat(net.variables) if options.beside else None
    spec = inference.image_spec(net.input_shape, options.raw)
    path.write_bytes(to_stablehlo(_function(net, options, not options.beside), spec, weights))
    _write_json(path, sidecar(net))
    if weights is not None:
        weight_files.write(path.with_name(f'{path.name}.safetensors'), weights, metadata=_provenance(net))


def _hub(net: Classifier, path: Path, options: Options) -> None:
    path.mkdir()
    prepared = as_preprocessing(net.preprocessing)
    facts = {**net.provenance.record, **options.facts}
    reference = _reference(net, 'timm')
    license_ = options.license or net.provenance.facts.get('license') or hub_export.UNKNOWN_LICENSE
    hub_export.write(path, net.variables, reference, prepared, net.class_names, facts, license_)


def _library(library: str):
    def write(net: Classifier, path: Path, options: Options) -> None:
        reference = _reference(net, library)
        tensors, version = conversion.to_tensors(net.variables, reference), registry.reference(reference).version
        weight_files.write(path, tensors, version, {'format': 'pt'} | _provenance(net))
        _write_json(path, sidecar(net))

    return write


def _reference(net: Classifier, library: str) -> str:
    module = net.module.model if isinstance(net.module, Net) and net.module.norm.kind == 'batch_norm' else net.module
    origin = net.provenance
    return libraries.reference_in(library, module, origin.variant, net.input_shape, origin.reference)


def _provenance(net: Classifier) -> dict[str, str]:
    return {'provenance': json.dumps(net.provenance.record)}


def _write_json(path: Path, value: dict) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False) + '\n'
    path.with_name(f'{path.name}.json').write_text(text, encoding='utf-8')


FORMATS: dict[str, Format] = {
    'onnx': Format(_onnx, ('raw', 'half'), 'onnx', ('.onnx',)),
    'stablehlo': Format(_stablehlo, ('raw', 'beside'), 'flatbuffers', ('.stablehlo',)),
    'hub': Format(_hub),
    'torchvision': Format(_library('torchvision'), endings=('.safetensors', '.pth')),
    'timm': Format(_library('timm'), endings=('.safetensors', '.pth')),
    'keras': Format(_library('keras'), endings=('.safetensors',)),
}
