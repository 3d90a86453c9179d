"""Writes golden files from the reference implementations: tensor names, shapes and outputs.

    python tests/goldens/generate.py [NAME...]        # torchvision/resnet50 timm/... keras/...

Without names, all references of the catalogue that have no file yet, but for nets of more than
LARGEST parameters. Needs the packages of requirements.txt beside it. Nothing here runs a net of this project.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault('KERAS_BACKEND', 'jax')
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import numpy as np  # noqa: E402
import seeded  # noqa: E402

from cvresearch.models import registry  # noqa: E402

BATCH, TRAIN_BATCH = 2, 4
CONDITION = 2e-5
LARGEST = 60_000_000


def directions(name: str, size: int) -> np.ndarray:
    """Returns two seeded vectors along which a long statistic is summed up as two numbers."""
    return seeded.image((2, size), f'direction {name}')


def torch_golden(name: str, image_shape: tuple[int, int, int], calm: bool = False) -> dict:
    """Returns the golden record of a net of torchvision or timm.

    Where the net's own float32 and float64 logits differ by more than CONDITION, the seeding is
    too wild for a test in float32, and a calm one is taken.
    """
    import torch
    import torch_reference

    model = torch_reference.build(name).eval()
    state = model.state_dict()
    height, width, channels = image_shape

    def images(batch: int) -> torch.Tensor:
        nhwc = seeded.image((batch, height, width, channels))
        return torch.from_numpy(np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2)))

    with torch.no_grad():
        for key, value in state.items():
            if value.dtype.is_floating_point:
                value.copy_(torch.from_numpy(seeded.tensor(key, tuple(value.shape), calm)))
        logits = model(images(BATCH)).numpy()
        exact = model.double()(images(BATCH).double()).numpy()
        if not calm and np.abs(logits - exact).max() > CONDITION * np.abs(exact).max():
            return torch_golden(name, image_shape, calm=True)
        model.float().train()
        for module in model.modules():  # what is random in training, but for the batch's statistics
            if any(word in type(module).__name__ for word in ('Drop', 'StochasticDepth')):
                module.eval()
        model(images(TRAIN_BATCH))
    after = {key: value.numpy() for key, value in model.state_dict().items()
             if key.endswith(('running_mean', 'running_var'))}  # fmt: skip
    shapes = {key: list(value.shape) for key, value in state.items() if not key.endswith('num_batches_tracked')}
    return dict(shapes=shapes, logits=logits, statistics=project(after), calm=calm)


def keras_golden(name: str, image_shape: tuple[int, int, int]) -> dict:
    """Returns the golden record of a net of keras.applications, without its softmax."""
    import keras

    variant = name.partition('/')[2]
    keras.utils.clear_session()  # it numbers layers across all nets of a process
    model = getattr(keras.applications, variant)(weights=None, input_shape=image_shape, classifier_activation=None)
    shapes = {}
    for layer in model.layers:
        for weight in layer.weights:
            key = f'{layer.name}/{weight.name}'
            if layer.__class__.__name__ in ('Normalization', 'Rescaling'):
                continue
            shapes[key] = list(weight.shape)
            weight.assign(seeded.tensor(key, tuple(weight.shape)))
    images = seeded.image((BATCH, *image_shape))
    if any(layer.__class__.__name__ == 'Rescaling' for layer in model.layers):
        images = images * 255  # which the net divides by again
    logits = np.asarray(model(images, training=False))
    return dict(shapes=shapes, logits=logits, statistics={})


def project(statistics: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Returns, for each statistic, its sums along two seeded directions."""
    return {key: (directions(key, value.size) @ value.astype(np.float64)).tolist() for key, value in statistics.items()}


def main(names: list[str]) -> None:
    """Writes the golden files of `names`."""
    references = registry.references()
    missing = [name for name in references if not path_of(name).exists()]
    for name in names or [name for name in missing if size_of(name) <= LARGEST]:
        shape = references[name].input_shape
        record = (keras_golden if name.startswith('keras/') else torch_golden)(name, shape)
        first, second = record['logits'][:2]
        if np.abs(first - second).max() < 1e-3 * np.abs(first).max():
            sys.exit(f'{name}: two images have the same logits; such a golden file would prove nothing')
        path_of(name).parent.mkdir(parents=True, exist_ok=True)
        if name.startswith('lukemelas/'):
            record['statistics'] = {}  # its drop-connect cannot be switched off while it trains
        meta = {key: record[key] for key in ('shapes', 'statistics', 'calm') if key in record}
        meta = json.dumps(dict(name=name, image_shape=shape, **meta))
        np.savez_compressed(path_of(name), logits=record['logits'].astype(np.float32), meta=np.array(meta))
        print(name, shape, f'{len(record["shapes"])} tensors, largest logit {np.abs(record["logits"]).max():.3g}')


def size_of(name: str) -> int:
    """Returns the parameters of a reference's variant, as the facts have them."""
    return registry.variant(registry.reference(name).variant).params or 0


def path_of(name: str) -> Path:
    """Returns where the golden file of a reference lies."""
    return HERE / 'files' / f'{name}.npz'


if __name__ == '__main__':
    main(sys.argv[1:])
