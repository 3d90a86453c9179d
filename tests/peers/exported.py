"""Exported folders and files in timm and torchvision: loaded strictly, and their logits beside ours.

    python -m tests.peers.exported [LIBRARY/NET ...]

Without arguments, one net of each family of both libraries. Needs torch, torchvision and timm (tests/goldens).
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from cvresearch.data import preprocessing
from cvresearch.interop import exports
from cvresearch.interop.classifier import Classifier, Provenance, default_names
from cvresearch.models import registry
from tests.goldens import seeded, torch_reference
from tests.interop.nets import logits, relative_error, seeded_variables

LIBRARIES = ('timm', 'torchvision')


def classifier_of(name: str) -> Classifier:
    """Returns a net with seeded weights that computes what a reference does."""
    reference = registry.reference(name)
    module = registry.build(reference.variant, **reference.arguments)
    shape = registry.variant(reference.variant).input_shape if reference.flatten else reference.input_shape
    variables = seeded_variables(module, shape, 2.0)
    prepared, _ = preprocessing.of(name, min(shape[:2]))
    provenance = Provenance('file', name, reference.variant, '', name)
    return Classifier(module, variables, prepared, default_names(module.num_classes), provenance)


def theirs(name: str, net: Classifier, folder: Path) -> torch.nn.Module:
    """Returns the library's net, filled from what we export."""
    library = name.partition('/')[0]
    if library == 'timm':
        exports.export(net, 'hub', folder / 'hub')
        torch_reference.define_missing_operators()
        import timm

        return timm.create_model(f'local-dir:{folder / "hub"}', pretrained=True).eval()
    exports.export(net, library, folder / 'net.pth')
    model = torch_reference.build(name)
    model.load_state_dict(torch.load(folder / 'net.pth', weights_only=True), strict=True)
    return model.eval()


def error(name: str) -> float:
    """Returns the largest difference of the logits, relative to the largest."""
    net = classifier_of(name)
    images = seeded.image((2, *net.input_shape))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        got = theirs(name, net, Path(folder))(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
    return relative_error(got.numpy(), logits(net.module, net.variables, images))


def one_of_each() -> list[str]:
    """Returns the smallest net of each family of each library."""
    found = {}
    by_size = sorted(registry.references().items(), key=lambda pair: registry.variant(pair[1].variant).params or 0)
    for name, reference in by_size:
        if name.startswith(LIBRARIES):
            found.setdefault((name.partition('/')[0], registry.variant(reference.variant).module.__module__), name)
    return list(found.values())


def main(names: list[str]) -> None:
    """Prints a line for each net."""
    for name in names or one_of_each():
        print(f'{name:40} {error(name):.1e}', flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
