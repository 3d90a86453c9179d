"""A net as a folder in the layout of timm and the Hugging Face hub: model.safetensors, config.json, README.md.

`timm.create_model('local-dir:FOLDER', pretrained=True)` loads it, with no code of this project.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from cvresearch.base.errors import UserError
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.interop import conversion, weight_files
from cvresearch.models import registry

UNKNOWN_LICENSE = 'unknown'
METRICS = ('top1', 'top5', 'mAP', 'loss')


def write(
    folder: Path,
    variables: dict,
    reference: str,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    facts: Mapping[str, object] | None = None,
    license_: str = UNKNOWN_LICENSE,
) -> None:
    """Writes the three files into an existing, empty folder.

    Args:
      folder: where they go.
      variables: of our net, which computes what the reference does.
      reference: timm's name of the net, 'timm/resnet50'.
      preprocessing: how images are prepared for it.
      class_names: one a class.
      facts: rows of the model card, such as the data, the recipe, the command and the metrics.
      license_: of the weights, as the hub writes it: 'apache-2.0'.

    Raises:
      UserError: timm cannot prepare images in this way, or the weights cannot be written.
      OSError: another file cannot be written.
    """
    tensors = conversion.to_tensors(variables, reference)
    config = configuration(tensors, reference, preprocessing, class_names, license_)
    weight_files.write(folder / 'model.safetensors', tensors, metadata={'format': 'pt'})
    (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')
    (folder / 'README.md').write_text(card(config, facts or {}, license_), encoding='utf-8')


def configuration(
    tensors: conversion.Tensors, reference: str, preprocessing: Preprocessing, class_names: Sequence[str], license_: str
) -> dict:
    """Returns what timm builds the net and its transforms from.

    Raises:
      UserError: the channels are in the order BGR, which timm's transforms cannot give.
    """
    if preprocessing.channels != 'RGB':
        raise UserError(
            f'{reference} takes channels in the order {preprocessing.channels}, and timm gives RGB; '
            'export it to onnx with --uint8, which reorders them inside'
        )
    entry = registry.reference(reference)
    head = conversion.tensor_name(reference, entry, 'params/head/kernel', {})
    in_channels = registry.variant(entry.variant).input_shape[2]
    config = {
        'architecture': reference.partition('/')[2],
        'num_classes': len(class_names),
        'num_features': int(tensors[head].shape[1]),
        'label_names': list(class_names),
        'pretrained_cfg': {
            'input_size': [in_channels, preprocessing.crop, preprocessing.crop],
            'fixed_input_size': False,  # what is true of nets that take their size as an argument; VGG is none
            'interpolation': preprocessing.interpolation,
            'crop_pct': crop_share(preprocessing.crop, preprocessing.resize),
            'crop_mode': 'squash' if preprocessing.squash else 'border' if preprocessing.border else 'center',
            **_test_size(in_channels, preprocessing),
            'mean': list(preprocessing.mean),
            'std': list(preprocessing.std),
            'num_classes': len(class_names),
            'classifier': head.removesuffix('.weight'),
            'license': license_,
        },
    }
    return config


def _test_size(channels: int, preprocessing: Preprocessing) -> dict:
    if not preprocessing.test_crop:
        return {}
    crop, resize = preprocessing.test_crop, preprocessing.test_resize
    return {'test_input_size': [channels, crop, crop], 'test_crop_pct': crop_share(crop, resize)}


def crop_share(crop: int, resize: int) -> float:
    """Returns the share that timm divides by: it resizes to floor(crop / share), and rounding may lose a pixel."""
    share = crop / resize
    while math.floor(crop / share) < resize:
        share = math.nextafter(share, 0)
    return share


def card(config: Mapping, facts: Mapping[str, object], license_: str) -> str:
    """Returns the model card: front matter, how to use the net, its results, and what is known about its making.

    Args:
      config: as `configuration` returns it.
      facts: by name; of them `final` is {split: {'top1': percent, 'n_seen': images, ...}}, `recipe` a configuration.
      license_: of the weights.
    """
    facts = dict(facts)
    results, recipe = cast(Mapping, facts.pop('final', None) or {}), facts.pop('recipe', None)
    facts.pop('facts', None)  # each is a row of its own
    head = ['---', 'tags:', '- image-classification', '- timm', 'library_name: timm']
    head += ['pipeline_tag: image-classification', *(['metrics:', '- accuracy'] if results else [])]
    head += [f'license: {license_}', '---']
    rows = [f'| {_cell(name)} | {_cell(value)} |' for name, value in facts.items()]
    prepared = config['pretrained_cfg']
    size = 'x'.join(str(n) for n in prepared['input_size'][1:])
    text = f"""# {config['architecture']}, {config['num_classes']} classes

An image classifier, trained or converted with cvresearch. It takes RGB images of {size} pixels, cut from the centre of
images {1 / prepared['crop_pct']:.3f} times as large ({prepared['interpolation']}), as (pixels / 255 - mean) / std with
mean {prepared['mean']} and std {prepared['std']}.

```python
import timm

model = timm.create_model('local-dir:FOLDER', pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```
"""
    table = ['', '## Making', '', '| | |', '|---|---|', *rows] if rows else []
    parts = [*head, text.rstrip('\n'), *_results(results, facts), *table]
    if recipe:
        parts += ['', '## Recipe', '', '```json', json.dumps(recipe, indent=1), '```']
    return '\n'.join(parts) + '\n'


def _results(results: Mapping[str, Mapping], facts: Mapping[str, object]) -> list[str]:
    """Returns the table of the last evaluations; percentages as they are recorded."""
    names = [name for name in METRICS if any(name in row for row in results.values())]
    if not names:
        return []
    lines = ['', '## Results', '']
    if 'weights' in facts:  # the run has evaluated both, and perhaps others later than these
        kind = facts['weights']
        which = 'the weights themselves' if kind == 'raw' else f'their average ({kind})'
        lines += [f'The last evaluations of the run. This folder has {which}, after step {facts["step"]}.', '']
    lines += [f'| split | {" | ".join(names)} | images seen |']
    lines.append(f'|---|{"---|" * (len(names) + 1)}')
    for split, row in results.items():
        cells = [split, *(_cell(row.get(name, '')) for name in names), _cell(row.get('n_seen', ''))]
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return ' '.join(text.split()).replace('|', '\\|')
