"""Exported weights in torchvision, timm and Keras: every reference loaded strictly, equal to the bit, there and back.

    python -m tests.peers.strict_loads [REFERENCE...]     # without names, those that are not in the record
    python -m tests.peers.strict_loads --table            # the table of docs/export.md

Each net gets seeded weights, leaves through `cvresearch export` (timm: a hub folder; torchvision: .pth; Keras: .h5) and
is loaded by its library. Then every tensor there is compared with the seeded one, the library's logits with those of
the golden file, and the file is loaded here again. Needs torch, torchvision, timm and Keras (tests/goldens); Keras
builds NASNet with KERAS_BACKEND=jax alone. The largest nets take 8 GB. Rows go to docs/records/strict_loads.csv.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
RECORD, GOLDENS = ROOT / 'docs' / 'records' / 'strict_loads.csv', ROOT / 'tests' / 'goldens' / 'files'
FIELDS = ('reference', 'version', 'tensors', 'parameters', 'strict', 'equal', 'round_trip', 'logits')
FILES = {'torchvision': ('torchvision', 'net.pth'), 'timm': ('hub', 'hub'), 'keras': ('keras', 'net.h5')}


def row_of(name: str) -> dict:
    """Returns a row of the record: 1 for what holds; `logits` is the largest difference over the largest logit."""
    import jax

    from cvresearch.interop import conversion, exports
    from cvresearch.models import registry
    from tests.goldens import seeded
    from tests.interop.nets import relative_error

    library, reference = name.partition('/')[0], registry.reference(name)
    golden = np.load(GOLDENS / f'{name}.npz')
    meta = json.loads(str(golden['meta']))
    variance = meta.get('variance', 1.0)
    tensors = {key: seeded.tensor(key, tuple(shape), variance) for key, shape in meta['shapes'].items()}
    module, variables = conversion.to_variables(dict(tensors), name)
    row = dict(reference=name, version='', strict='', equal='', logits='', tensors=len(tensors))
    row['parameters'] = sum(tensor.size for tensor in tensors.values())
    with tempfile.TemporaryDirectory() as place:
        if library in FILES:
            form, file = FILES[library]
            path = Path(place) / file
            exports.export(_classifier(name, reference, module, variables), form, path)
            row |= READERS[library](name, path, tensors, meta)
            path = path / 'model.safetensors' if form == 'hub' else path
        else:
            path = Path(place) / 'net.safetensors'
            conversion.save(path, variables, name)
        _, again = conversion.load(path, name)
    pairs = [*zip(*map(jax.tree_util.tree_leaves_with_path, (variables, again)), strict=True)]
    row['round_trip'] = int(all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in pairs))
    if isinstance(row['logits'], np.ndarray):
        row['logits'] = f'{relative_error(row["logits"], golden["logits"]):.1e}'
    return row


def _classifier(name, reference, module, variables):
    from cvresearch.data import preprocessing
    from cvresearch.interop.classifier import Classifier, Provenance, default_names
    from cvresearch.models import registry

    shape = registry.variant(reference.variant).input_shape if reference.flatten else reference.input_shape
    prepared, _ = preprocessing.of(name, min(shape[:2]))
    provenance = Provenance('file', name, reference.variant, '', name)
    return Classifier(module, variables, prepared, default_names(module.num_classes), provenance)


def _torch(model, tensors: dict, meta: dict) -> dict:
    """Returns what a net of PyTorch holds, and its logits."""
    import torch

    from tests.goldens import seeded

    there = {key: value for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')}
    equal = there.keys() == tensors.keys() and all(np.array_equal(there[key].numpy(), tensors[key]) for key in tensors)
    images = seeded.image((2, *meta['image_shape'])).transpose(0, 3, 1, 2)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(np.ascontiguousarray(images))).numpy()
    return dict(strict=1, equal=int(equal), logits=logits)


def _torchvision(name: str, path: Path, tensors: dict, meta: dict) -> dict:
    import torch

    from tests.goldens import torch_reference

    model = torch_reference.build(name)
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    import torchvision

    return _torch(model, tensors, meta) | dict(version=torchvision.__version__)


def _timm(name: str, path: Path, tensors: dict, meta: dict) -> dict:
    from tests.goldens import torch_reference

    torch_reference.define_missing_operators()
    import timm

    # timm loads strictly; that all tensors are the seeded ones shows it.
    model = timm.create_model(f'local-dir:{path}', pretrained=True)
    return _torch(model, tensors, meta) | dict(version=timm.__version__)


def _keras(name: str, path: Path, tensors: dict, meta: dict) -> dict:
    os.environ.setdefault('KERAS_BACKEND', 'torch')  # compiles nothing
    import keras

    from tests.goldens import seeded

    keras.utils.clear_session()  # it numbers layers across all nets of a process
    kind, _, width = name.partition('/')[2].partition('_')
    more = {'alpha': int(width) / 100} if width else {}
    build = getattr(keras.applications, kind)
    model = build(weights=None, input_shape=meta['image_shape'], classifier_activation=None, **more)
    model.load_weights(path, by_name=True)
    there = {
        f'{layer.name}/{weight.name}': keras.ops.convert_to_numpy(weight)
        for layer in model.layers
        for weight in layer.weights
        if layer.__class__.__name__ not in ('Normalization', 'Rescaling')
    }
    equal = there.keys() == tensors.keys() and all(np.array_equal(there[key], tensors[key]) for key in tensors)
    found = dict(strict=int(there.keys() == tensors.keys()), equal=int(equal), version=keras.__version__)
    if keras.backend.backend() != 'torch':
        return found  # its operations are compiled one by one, of hundreds
    images = seeded.image((2, *meta['image_shape']))
    if any(layer.__class__.__name__ == 'Rescaling' for layer in model.layers):
        images = images * 255  # which the net divides by again
    return found | dict(logits=keras.ops.convert_to_numpy(model(images, training=False)))


READERS = {'torchvision': _torchvision, 'timm': _timm, 'keras': _keras}


def table() -> str:
    """Returns the record as a table, a row for each library."""
    from cvresearch.models import registry

    known = Counter(name.partition('/')[0] for name in registry.references())
    rows = [*csv.DictReader(RECORD.read_text().splitlines())]
    counts: dict[str, Counter] = {}
    worst: dict[str, float] = {}
    for row in rows:
        library = f'{row["reference"].partition("/")[0]} {row["version"].partition("+")[0]}'.strip()
        found = counts.setdefault(library, Counter())
        found['all'] += 1
        found.update({key: int(row[key] or 0) for key in ('strict', 'equal', 'round_trip')})
        found['with logits'] += bool(row['logits'])
        worst[library] = max(worst.get(library, 0.0), float(row['logits'] or 0))
    lines = [
        '| library | references | in the record | loaded strictly | every tensor equal | back here, bit for bit '
        '| logits compared | largest difference |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for library, found in counts.items():
        outside = library.split()[0] in FILES
        there = known[library.split()[0]], found['all']
        held = found['strict'], found['equal'], found['round_trip'], found['with logits'], f'{worst[library]:.1e}'
        cells = [library, *there, *(held if outside else ('', '', found['round_trip'], '', ''))]
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


def keep(row: dict) -> None:
    """Adds a row to the record, in place of an earlier one of the same reference."""
    rows = [*csv.DictReader(RECORD.read_text().splitlines())] if RECORD.exists() else []
    rows = [old for old in rows if old['reference'] != row['reference']] + [row]
    with open(RECORD, 'w', newline='') as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda each: each['reference']))
    print(row, flush=True)


def missing() -> list[str]:
    """Returns the references that are not in the record, the small ones first."""
    from cvresearch.models import registry

    there = {row['reference'] for row in csv.DictReader(RECORD.read_text().splitlines())} if RECORD.exists() else set()
    found = [name for name in registry.references() if name not in there and (GOLDENS / f'{name}.npz').exists()]
    found = [name for name in found if ('NASNet' in name) == (os.environ.get('KERAS_BACKEND') == 'jax')]
    return sorted(found, key=lambda name: registry.variant(registry.reference(name).variant).params or 0)


def main(argv: list[str] | None = None) -> int:
    """Loads and keeps rows, or prints the table; what fails is printed, and the rest goes on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help='references, such as timm/resnet50')
    parser.add_argument('--table', action='store_true', help='print the table of docs/export.md')
    options = parser.parse_args(argv)
    if options.table:
        print(table())
        return 0
    failed = 0
    for name in options.names or missing():
        try:
            keep(row_of(name))
        except Exception as error:
            failed += 1
            print(f'{name}: {type(error).__name__}: {" ".join(str(error).split())[:300]}', flush=True)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
