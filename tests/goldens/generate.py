"""Writes golden files from the reference implementations: tensor names, shapes and outputs.

    python tests/goldens/generate.py [NAME...]        # torchvision/resnet50 timm/... keras/...

Without names, all references of the catalogue that have no file yet; the largest take 7 GB. Needs the
packages of requirements.txt beside it. Nothing here runs a net of this project.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault('KERAS_BACKEND', 'torch')  # compiles nothing; Keras has NASNet with 'jax' only
os.environ.setdefault('JAX_ENABLE_X64', '1')
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import numpy as np  # noqa: E402
import seeded  # noqa: E402

from cvresearch.models import registry  # noqa: E402

BATCH, TRAIN_BATCH = 2, 4
# The seeding (see seeded.py) is the first at which float32 and float64 logits of the reference differ by no
# more than CONDITION of the largest.
VARIANCES = (1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 2.0)
CONDITION = 2e-5


def directions(name: str, size: int) -> np.ndarray:
    """Returns two seeded vectors along which a long statistic is summed up as two numbers."""
    return seeded.image((2, size), f'direction {name}')


def is_ill_conditioned(logits: np.ndarray, exact: np.ndarray) -> bool:
    """Whether rounding alone makes more of a difference than a test in float32 could tell from a mistake."""
    return bool(np.abs(logits - exact).max() > CONDITION * np.abs(exact).max())


def torch_golden(name: str, image_shape: tuple[int, int, int], variance: float) -> dict | None:
    """Returns the golden record of a net of torchvision or timm, None where it is ill-conditioned."""
    import torch
    import torch_reference

    model = torch_reference.build(name).eval()
    shapes = {
        key: list(value.shape) for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')
    }
    height, width, channels = image_shape

    def images(batch: int) -> torch.Tensor:
        nhwc = seeded.image((batch, height, width, channels))
        return torch.from_numpy(np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2)))

    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(torch.from_numpy(seeded.tensor(key, tuple(value.shape), variance)))
        logits = model(images(BATCH)).numpy()
        exact = model.double()(images(BATCH).double()).numpy()
        if is_ill_conditioned(logits, exact):
            return None
        model.float().train()
        for module in model.modules():  # what is random in training, but for the batch's statistics
            if any(word in type(module).__name__ for word in ('Drop', 'StochasticDepth')):
                module.eval()
        model(images(TRAIN_BATCH))
    after = {
        key: value.numpy() for key, value in model.state_dict().items() if key.endswith(('running_mean', 'running_var'))
    }
    return dict(shapes=shapes, logits=logits, statistics=project(after))


def keras_golden(name: str, image_shape: tuple[int, int, int], variance: float) -> dict | None:
    """Returns the golden record of a net of keras.applications, without its softmax; None likewise."""
    shapes, logits = keras_logits(name, image_shape, variance, 'float32')
    _, exact = keras_logits(name, image_shape, variance, 'float64')
    return None if is_ill_conditioned(logits, exact) else dict(shapes=shapes, logits=logits, statistics={})


def keras_logits(name: str, image_shape: tuple[int, int, int], variance: float, dtype: str) -> tuple[dict, np.ndarray]:
    """Returns the shapes of a net's tensors by name, and the logits, all computed in `dtype`."""
    import keras

    keras.config.set_floatx(dtype)
    keras.utils.clear_session()  # it numbers layers across all nets of a process
    kind, _, width = name.partition('/')[2].partition('_')
    more = {'alpha': int(width) / 100} if width else {}
    build = getattr(keras.applications, kind)
    model = build(weights=None, input_shape=image_shape, classifier_activation=None, **more)
    shapes = {}
    for layer in model.layers:
        for weight in layer.weights:
            key = f'{layer.name}/{weight.name}'
            if layer.__class__.__name__ in ('Normalization', 'Rescaling'):
                continue
            shapes[key] = list(weight.shape)
            weight.assign(seeded.tensor(key, tuple(weight.shape), variance))
    images = seeded.image((BATCH, *image_shape)).astype(dtype)
    if any(layer.__class__.__name__ == 'Rescaling' for layer in model.layers):
        images = images * 255  # which the net divides by again
    return shapes, keras.ops.convert_to_numpy(model(images, training=False))


def project(statistics: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Returns, for each statistic, its sums along two seeded directions."""
    return {key: (directions(key, value.size) @ value.astype(np.float64)).tolist() for key, value in statistics.items()}


def main(names: list[str]) -> None:
    """Writes the golden files of `names`."""
    # Songhan's is a file, which no library's code makes: tests/interop/test_deep_compression.py.
    missing = [name for name in registry.references() if not path_of(name).exists() and 'songhan/' not in name]
    for name in names or missing:
        meta, logits = golden(name)
        path_of(name).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path_of(name), logits=logits.astype(np.float32), meta=np.array(json.dumps(meta)))
        size = f'{len(meta["shapes"])} tensors, largest logit {np.abs(logits).max():.3g}'
        print(name, meta['image_shape'], f'variance {meta["variance"]}', size)


def golden(name: str) -> tuple[dict, np.ndarray]:
    """Returns (meta, logits) of a golden file, with the first seeding that suits the net."""
    shape = registry.reference(name).input_shape
    record_of = keras_golden if name.startswith('keras/') else torch_golden
    for variance in VARIANCES:
        record = record_of(name, shape, variance)
        if record is not None:
            break
    else:
        sys.exit(f'{name} is ill-conditioned with every seeding')
    logits = record.pop('logits')
    if np.abs(logits[0] - logits[1]).max() < 1e-3 * np.abs(logits[0]).max():
        sys.exit(f'{name}: two images have the same logits; such a golden file would prove nothing')
    if name.startswith('lukemelas/'):
        record['statistics'] = {}  # its drop-connect cannot be switched off while it trains
    return dict(name=name, image_shape=shape, variance=variance, **record), logits


def path_of(name: str) -> Path:
    """Returns where the golden file of a reference lies."""
    return HERE / 'files' / f'{name}.npz'


if __name__ == '__main__':
    main(sys.argv[1:])
