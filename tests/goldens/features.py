"""Writes features.npz: what torchvision and timm give before the last layer, and of fully connected ones, after ReLU.

    python tests/goldens/features.py

Needs the packages of requirements.txt beside it. Nothing here runs a net of this project. Weights are seeded (see
seeded.py), the images bytes, normalized as ImageNet's; all is computed in float64.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import seeded  # noqa: E402
import torch_reference  # noqa: E402

# By net: side of the image, and the variance of seeded.tensor.
NETS = {
    'torchvision/resnet18': (64, 1.0),
    'torchvision/alexnet': (224, 1.0),
    'torchvision/mobilenet_v2': (64, 1.0),
    'timm/resnet18': (64, 1.0),
    'timm/tf_efficientnet_lite0': (64, 1.1),
    'timm/densenet121': (64, 1.0),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's, stated in its documentation
BATCH = 2


def pixels(side: int) -> np.ndarray:
    """Returns images, uint8 (batch, side, side, 3)."""
    return np.clip(128 + 60 * seeded.image((BATCH, side, side, 3)), 0, 255).astype(np.uint8)


def given(model: torch.nn.Module, name: str, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns the features of a net by the names that this project gives them."""
    if name.startswith('timm/'):
        return {'penultimate': model.forward_head(model.forward_features(images), pre_logits=True)}
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    found = {}
    last.register_forward_hook(lambda module, inputs, output: found.update(penultimate=inputs[0]))
    if name.endswith('alexnet'):
        # classifier: dropout, fc6, ReLU, dropout, fc7, ReLU, fc8; the ReLUs are in place.
        for place, key in ((2, 'fc6:relu'), (5, 'fc7:relu')):
            model.classifier[place].inplace = False
            model.classifier[place].register_forward_hook(lambda m, i, output, key=key: found.update({key: output}))
    model(images)
    return found


def golden(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns the facts of a net's golden, and its features."""
    side, variance = NETS[name]
    model = torch_reference.build(name).eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(torch.from_numpy(seeded.tensor(key, tuple(value.shape), variance)))
        normalized = (pixels(side) / 255 - np.array(MEAN)) / np.array(STD)
        images = torch.from_numpy(np.ascontiguousarray(normalized.transpose(0, 3, 1, 2)))
        found = given(model.double(), name, images)
    shapes = {
        key: list(value.shape) for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')
    }
    return dict(side=side, variance=variance, shapes=shapes), {key: x.numpy() for key, x in found.items()}


if __name__ == '__main__':
    facts, arrays = {}, {}
    for net in NETS:
        facts[net], features = golden(net)
        arrays |= {f'{net} {key}': x.astype(np.float32) for key, x in features.items()}
        print(net, {key: (x.shape, float(np.abs(x).max())) for key, x in features.items()})
    np.savez_compressed(HERE / 'files' / 'features.npz', meta=json.dumps(facts), **arrays)
