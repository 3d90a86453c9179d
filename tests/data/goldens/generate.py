"""What torchvision makes of one small image: python tests/data/goldens/generate.py.

Needs tests/goldens/requirements.txt. Writes transforms.npz beside this file, with which
tests/data/test_transforms.py compares ours, value by value.
"""

import io
import sys
from pathlib import Path
from unittest import mock

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent / 'goldens')]

import numpy as np
import torch
from PIL import Image
from torch_reference import define_missing_operators

define_missing_operators()

from torchvision import transforms as T
from torchvision.transforms import autoaugment as aa
from torchvision.transforms import functional as F

HEIGHT, WIDTH = 36, 48
FACTORS = (0.1, 0.7, 1.0, 1.6)
HUES = (-0.5, -0.2, 0.1, 0.45)
AFFINE = (
    (25.0, (3, -5), 1.0, (0.0, 0.0)), (0.0, (0, 0), 1.3, (0.0, 0.0)), (0.0, (0, 0), 1.0, (20.0, -10.0)),
    (-110.0, (-4, 2), 0.8, (8.0, 15.0)),
)  # fmt: skip


def picture() -> bytes:
    """Returns a JPEG: smooth colours under a little noise, so that every operation changes it."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize((WIDTH, HEIGHT), Image.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + random.integers(-12, 13, (HEIGHT, WIDTH, 3))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(20, 235).astype(np.uint8)).save(file, 'JPEG', quality=92)
    return file.getvalue()


class Fed:
    """Stands in for torch's random numbers: gives `numbers` four to a try, as our plans take them."""

    def __init__(self, numbers, first=0):
        self.numbers, self.place = numbers, first - 4

    def empty(self, _):
        outer = self

        class Uniform:
            def uniform_(self, low, high):
                # The first draw of a try is the area, the second the ratio.
                outer.second = not getattr(outer, 'second', True)
                if not outer.second:
                    outer.place += 4
                at = outer.place + outer.second
                outer.within = 2
                return torch.tensor([low + (high - low) * outer.numbers[at]], dtype=torch.float64)

        return Uniform()

    def randint(self, low, high, size):
        value = low + int(self.numbers[self.place + self.within] * (high - low))
        self.within += 1
        return torch.tensor([value])

    def __enter__(self):
        self.patches = [mock.patch('torch.empty', self.empty), mock.patch('torch.randint', self.randint)]
        for patch in self.patches:
            patch.start()

    def __exit__(self, *error):
        for patch in self.patches:
            patch.stop()


def crops(random) -> dict:
    """Returns boxes of RandomResizedCrop and RandomErasing for given random numbers."""
    numbers = random.random((40, 40))
    numbers[::5, 0:40:4] = 0.999  # large areas, which seldom fit: later tries and the fallback
    shapes = random.integers(20, 500, (40, 2))
    shapes[:4] = [(500, 60), (60, 500), (300, 300), (20, 499)]
    numbers[0:2, 0:40:4] = 0.9999
    boxes = []
    for (height, width), u in zip(shapes, numbers, strict=True):
        image = Image.new('RGB', (int(width), int(height)))
        with Fed(u):
            boxes.append(T.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]))
    erased = []
    for u in numbers:
        with Fed(u):
            *box, _ = T.RandomErasing.get_params(torch.zeros(3, 64, 64), (0.02, 0.6), (0.3, 3.3), [0.0])
        erased.append(box)
    return dict(numbers=numbers, shapes=shapes, boxes=np.array(boxes), erased=np.array(erased))


def exact(space: dict) -> dict:
    """Returns torchvision's magnitudes in float64: its own are 0.29999998 for 0.3, which rounds otherwise."""
    return {
        name: (torch.tensor(np.round(np.linspace(float(values[0]), float(values[-1]), len(values)), 6)), signed)
        if values.ndim and values.dtype == torch.float32
        else (values, signed)
        for name, (values, signed) in space.items()
    }


def operations(image: Image.Image) -> dict:
    """Returns the image after each operation of torchvision's policies."""
    made = {}
    space = exact(aa.AutoAugment()._augmentation_space(10, (image.height, image.width)))
    wide = aa.TrivialAugmentWide()._augmentation_space(31)
    rand = aa.RandAugment()._augmentation_space(31, (image.height, image.width))
    for name, (values, signed) in space.items():
        for level in (0, 3, 9) if values.ndim else (0,):
            value = float(values[level]) if values.ndim else 0.0
            for sign in (1, -1) if signed else (1,):
                nearest = dict(interpolation=F.InterpolationMode.NEAREST, fill=[0, 0, 0])
                after = aa._apply_op(image, name, sign * value, **nearest)
                made[f'op/{name}/{level}/{sign}'] = np.asarray(after)
        if name in wide:
            for kind, table in (('auto', values), ('wide', wide[name][0]), ('rand', rand.get(name, (values,))[0])):
                made[f'magnitudes/{kind}/{name}'] = table.numpy().astype(np.float64)
    return made


def policies(image: Image.Image) -> dict:
    """Returns the image after each pair of AutoAugment, both operations applied, the signs - and +."""
    made = {}
    for policy in aa.AutoAugmentPolicy:
        transform = aa.AutoAugment(policy, fill=[0, 0, 0])
        images = []
        for number in range(len(transform.policies)):
            drawn = number, torch.zeros(2) - 1, torch.tensor([0, 1])
            space = exact(transform._augmentation_space(10, (image.height, image.width)))
            with (
                mock.patch.object(transform, 'get_params', lambda _, drawn=drawn: drawn),
                mock.patch.object(transform, '_augmentation_space', lambda *_, space=space: space),
            ):
                images.append(np.asarray(transform(image)))
        made[f'policy/{policy.value}'] = np.stack(images)
        made[f'chances/{policy.value}'] = np.array([[part[1] for part in pair] for pair in transform.policies])
    return made


def main() -> None:
    """Writes the golden file."""
    data = picture()
    image = Image.open(io.BytesIO(data)).convert('RGB')
    made = dict(jpeg=np.frombuffer(data, np.uint8), pixels=np.asarray(image))
    made |= crops(np.random.default_rng(1)) | operations(image) | policies(image)
    for name in ('brightness', 'contrast', 'saturation'):
        change = getattr(F, f'adjust_{name}')
        made[name] = np.stack([np.asarray(change(image, factor)) for factor in FACTORS])
    made['hue'] = np.stack([np.asarray(F.adjust_hue(image, turn)) for turn in HUES])
    for mode in ('nearest', 'bilinear', 'bicubic', 'lanczos', 'box'):
        resize = T.Resize(24, interpolation=F.InterpolationMode(mode), antialias=True)
        made[f'resize/{mode}'] = np.asarray(T.CenterCrop(20)(resize(image)))
        box = F.resized_crop(image, 5, 7, 25, 30, [20, 20], F.InterpolationMode(mode), antialias=True)
        made[f'box/{mode}'] = np.asarray(box)
    made['affine'] = np.stack(
        [
            np.asarray(
                F.affine(image, angle, list(move), scale, list(shear), F.InterpolationMode.BILINEAR, fill=[0, 0, 0])
            )
            for angle, move, scale, shear in AFFINE
        ]
    )
    np.savez_compressed(HERE / 'transforms.npz', **made)
    print(f'{len(made)} arrays')


if __name__ == '__main__':
    main()
