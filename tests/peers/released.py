"""An evaluation of released nets beside torchvision's and timm's own transforms and nets, photograph by photograph.

    python -m tests.peers.released [--pixels] [LIBRARY/NET.TAG ...]

Cuts 200 photographs out of those of scikit-learn and scikit-image and Tux Paint's stamps (PNG and JPEG, grey, with an
alpha), gives both the same seeded weights, and prints for each net: the largest difference of a net's input, of the
logits by the largest logit, and how many likeliest classes are equal. With --pixels, the inputs alone. Needs the
packages of tests/goldens/requirements.txt and scikit-image.
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cvresearch.data import preprocessing
from cvresearch.engine import classifiers
from cvresearch.evaluation import measure
from cvresearch.interop import weight_files
from cvresearch.models import registry
from tests import stamps
from tests.goldens import photographs, transforms

COUNT, BATCH = 200, 20
NETS = (
    'torchvision/mobilenet_v2.IMAGENET1K_V1',
    'torchvision/efficientnet_b0.IMAGENET1K_V1',
    'timm/mobilenetv2_100.ra_in1k',
    'timm/resnet18.a1_in1k',
    'torchvision/resnet50.IMAGENET1K_V2',
    'torchvision/densenet121.IMAGENET1K_V1',
    'torchvision/inception_v3.IMAGENET1K_V1',
    'timm/dm_nfnet_f0.dm_in1k',
    'torchvision/vgg11.IMAGENET1K_V1',
)


def pictures() -> list[np.ndarray]:
    """Returns photographs and drawings, uint8 (height, width, 3)."""
    import skimage
    from sklearn.datasets import load_sample_images

    folder, found = Path(skimage.__file__).parent / 'data', list(load_sample_images().images)
    files = [path for path in sorted(folder.iterdir()) if path.suffix in ('.png', '.jpg')]
    files += sorted(stamps.STAMPS.rglob('*.png'))[::40]
    return found + [np.asarray(Image.open(path).convert('RGBA').convert('RGB')) for path in files]


def of_libraries(name: str, files: dict[str, bytes], logits: bool) -> tuple[np.ndarray, np.ndarray | None, dict]:
    """Returns (a net's inputs as NHWC, its logits, its state dict)."""
    transform, *_ = transforms.transform_of(name)
    inputs = [transform(Image.open(io.BytesIO(data)).convert('RGB')) for data in files.values()]
    as_ours = np.stack([image.numpy().transpose(1, 2, 0) for image in inputs])
    if not logits:
        return as_ours, None, {}
    model = transforms.model_of(name, 1.0)
    with torch.no_grad():
        parts = [model(torch.stack(inputs[start : start + BATCH])) for start in range(0, len(inputs), BATCH)]
    return as_ours, torch.cat(parts).numpy(), {key: value.numpy() for key, value in model.state_dict().items()}


def compare(name: str, files: dict[str, bytes], logits: bool, folder: Path) -> str:
    """Returns the line of a net."""
    inputs, theirs, state = of_libraries(name, files, logits)
    side = registry.variant(registry.reference(name).variant).input_shape[0]
    prepare, _ = preprocessing.of(name, side)
    ours = np.stack([prepare(data) for data in files.values()])
    if name.startswith(('torchvision/inception', 'torchvision/googlenet')):  # the net normalizes once more
        inputs = inputs * np.float32([0.229, 0.224, 0.225]) / 0.5 + (np.float32([0.485, 0.456, 0.406]) - 0.5) / 0.5
    line = f'{name:42} {len(files)} inputs {np.abs(ours - inputs).max():.1e}'
    if not logits:
        return line
    weight_files.write(folder / 'net.pth', state)
    net = classifiers.load(f'file:{folder}/net.pth#{name}')
    found = measure.measure(net, {'name': 'image_folder', 'root': str(folder / 'photographs'), 'every': 1})
    theirs = theirs[found.labels]  # a photograph's class is its number
    off = np.abs(found.logits - theirs).max(1) / np.abs(theirs).max(1)
    same = (found.predicted == theirs.argmax(1)).sum()
    classes = len(set(theirs.argmax(1).tolist()))
    return f'{line} logits {off.max():.1e} top-1 equal {same} of {len(files)} in {classes} classes'


def main(arguments: list[str]) -> None:
    """Prints a line for each net."""
    names = [name for name in arguments if not name.startswith('--')] or NETS
    files = photographs.cut(COUNT, pictures(), jpegs=True)
    with tempfile.TemporaryDirectory() as folder:
        photographs.write(Path(folder) / 'photographs', files)
        for name in names:
            print(compare(name, files, '--pixels' not in arguments, Path(folder)), flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
