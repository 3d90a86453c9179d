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
from cvresearch.nn.stored import Stored


@dataclasses.dataclass(frozen=True)
class Options:
    """What an export is asked for beside the format.

    Attributes:
      raw: the program takes raw pixels, uint8; an ONNX file gives probabilities too.
      probabilities: the program gives probabilities: beside the logits (ONNX), in their place (the others).
      half: the program computes in float16.
      beside: the weights lie in a file of their own, which the program takes as an argument.
      license: of the weights, for the model card; what their source says of it if ''.
      facts: rows of the model card: what is known of the run.
    """

    raw: bool = False
    probabilities: bool = False
    half: bool = False
    beside: bool = False
    license: str = ''
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)


# How the command calls what it may be asked for.
FLAGS = {'raw': 'uint8', 'probabilities': 'probabilities', 'half': 'float16', 'beside': 'weights_beside'}


@dataclasses.dataclass(frozen=True)
class Format:
    """One way out.

    Attributes:
      write: writes a classifier: (classifier, path, options).
      options: the options that it has.
      package: what must be installed; '' for nothing.
      endings: that the path may have; none for a folder.
      extra: of this project that has the package.
    """

    write: Callable[[Classifier, Path, Options], None]
    options: tuple[str, ...] = ()
    package: str = ''
    endings: tuple[str, ...] = ()
    extra: str = 'export'


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
        raise UserError(f"--to {form} needs the package {known.package}; pip install 'cvresearch[{known.extra}]'")
    for name, flag in FLAGS.items():
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
        crop=size,
        resize=size if squash else resize,
        squash=squash,
        mean=tuple(map(float, preparation.mean)),
        interpolation=interpolation if interpolation in INTERPOLATIONS else 'bilinear',
        std=tuple(map(float, preparation.std)),
        channels=preparation.channels,
    )


def sidecar(net: Classifier) -> dict:
    """Returns what a FILE.json beside weights says: how images are prepared, and the names of the classes."""
    return {**dataclasses.asdict(as_preprocessing(net.preprocessing)), 'classes': list(net.class_names)}


def _function(net: Classifier, options: Options, weights_inside: bool = True):
    preparation = net.preprocessing
    variables = net.variables if weights_inside else None
    if not options.raw:
        return inference.function(net.module, variables)
    return inference.function(net.module, variables, preparation.mean, preparation.std, CHANNELS[preparation.channels])


def _answer(net: Classifier, options: Options, weights_inside: bool = True):
    """Returns the function whose one result the options choose: logits or probabilities."""
    function = _function(net, options, weights_inside)
    if not options.probabilities:
        return function
    of_logits = inference.PROBABILITIES[_probabilities(net)]
    return lambda *arguments: of_logits(function(*arguments))


def _probabilities(net: Classifier) -> str:
    return 'sigmoid' if net.multi_label else 'softmax'


def _onnx(net: Classifier, path: Path, options: Options) -> None:
    from cvresearch.interop.onnx_export import to_onnx  # needs the package onnx

    metadata = {'provenance': net.provenance.record, 'preprocessing': sidecar(net), 'classes': list(net.class_names)}
    model = to_onnx(
        _function(net, options),
        inference.image_spec(net.input_shape, options.raw),
        'float16' if options.half else 'float32',
        _probabilities(net) if options.raw or options.probabilities else '',
        metadata,
    )
    path.write_bytes(model.SerializeToString())


def _stablehlo(net: Classifier, path: Path, options: Options) -> None:
    weights = flat(net.variables) if options.beside else None
    spec = inference.image_spec(net.input_shape, options.raw)
    path.write_bytes(to_stablehlo(_answer(net, options, not options.beside), spec, weights))
    _write_json(path, sidecar(net))
    if weights is not None:
        weight_files.write(path.with_name(f'{path.name}.safetensors'), weights, metadata=_provenance(net))


def _savedmodel(net: Classifier, path: Path, options: Options) -> None:
    from cvresearch.interop.tensorflow_export import to_savedmodel  # needs TensorFlow

    spec = inference.image_spec(net.input_shape, options.raw)
    to_savedmodel(path, _answer(net, options), spec, _result(options))
    (path / 'cvresearch.json').write_text(_as_json(sidecar(net)), encoding='utf-8')


def _tflite(net: Classifier, path: Path, options: Options) -> None:
    from cvresearch.interop.tensorflow_export import to_tflite  # needs TensorFlow

    spec = inference.image_spec(net.input_shape, options.raw)
    path.write_bytes(to_tflite(_answer(net, options), spec, _result(options)))
    _write_json(path, sidecar(net))


def _result(options: Options) -> str:
    return 'probabilities' if options.probabilities else 'logits'


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
    if isinstance(net.module, Stored):
        raise UserError(
            f'layers of {net.provenance.name} are narrower, products of two or of int8, which no net of {library} has; '
            'export it to onnx or stablehlo'
        )
    module = net.module.model if isinstance(net.module, Net) and net.module.norm.kind == 'batch_norm' else net.module
    origin = net.provenance
    return libraries.reference_in(library, module, origin.variant, net.input_shape, origin.reference)


def _provenance(net: Classifier) -> dict[str, str]:
    return {'provenance': json.dumps(net.provenance.record)}


def _write_json(path: Path, value: dict) -> None:
    path.with_name(f'{path.name}.json').write_text(_as_json(value), encoding='utf-8')


def _as_json(value: dict) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + '\n'


FORMATS: dict[str, Format] = {
    'onnx': Format(_onnx, ('raw', 'probabilities', 'half'), 'onnx', ('.onnx',)),
    'stablehlo': Format(_stablehlo, ('raw', 'probabilities', 'beside'), 'flatbuffers', ('.stablehlo',)),
    'savedmodel': Format(_savedmodel, ('raw', 'probabilities'), 'tensorflow', extra='tensorflow'),
    'tflite': Format(_tflite, ('raw', 'probabilities'), 'tensorflow', ('.tflite',), 'tensorflow'),
    'hub': Format(_hub),
    'torchvision': Format(_library('torchvision'), endings=('.safetensors', '.pth')),
    'timm': Format(_library('timm'), endings=('.safetensors', '.pth')),
    'keras': Format(_library('keras'), endings=('.safetensors', '.h5')),
}
