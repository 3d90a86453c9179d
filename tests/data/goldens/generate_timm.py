"""What timm's RandAugment makes of one small image: python tests/data/goldens/generate_timm.py.

Needs tests/goldens/requirements.txt (timm 1.0.31). Writes timm.npz beside this file, with which
tests/data/test_timm_policy.py compares ours, value by value. timm's random numbers are replaced by given ones, in the
order in which ours are drawn.
"""

import io
import math
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from timm.data import auto_augment as aa

HERE = Path(__file__).parent
LEVELS = (0.0, 3.3, 5.0, 9.0, 9.99, 10.0, 21.0)
MEAN = (124, 116, 104)  # timm's create_transform: round(255 * mean)
POLICIES = ('rand-m9-mstd0.5', 'rand-m7-n3-p0.8-inc1', 'rand-m9-mstd101', 'rand-m15-mmax20-mstd4-p1.0')
DRAWS = 24


def picture() -> Image.Image:
    """Returns a part of the picture of transforms.npz, 16 pixels high and 12 wide."""
    jpeg = np.load(HERE / 'transforms.npz')['jpeg'].tobytes()
    return Image.open(io.BytesIO(jpeg)).convert('RGB').crop((10, 5, 22, 21))


class Fed:
    """Stands in for Python's and NumPy's random numbers: choice, chance, sign, filter and two for a normal number."""

    def __init__(self, numbers, layers):
        self.rows = iter(np.reshape(numbers, (layers, 6)).tolist())
        self.all = np.reshape(numbers, (layers, 6))

    def operations(self, ops, layers, replace, p):
        return [self.of(ops[int(row[0] * len(ops))], row) for row in self.all.tolist()]

    def of(self, operation, row):
        def run(image):
            self.row, self.asked = row, 0
            return operation(image)

        return run

    def random(self):
        # An operation asks for its chance, if it has one, and then for its sign; 'p1.0' asks for the sign alone.
        self.asked += 1
        chance = self.asked == 1 and self.probability < 1
        # timm skips where the number is above p, and turns the sign where it is above 1/2; ours where it is below.
        return self.row[1] if chance else 1 - self.row[2]

    def gauss(self, mean, deviation):
        first, second = self.row[4:]
        return mean + deviation * math.sqrt(-2 * math.log1p(-first)) * math.cos(2 * math.pi * second)

    def uniform(self, low, high):
        return low + (high - low) * self.row[4]

    def choice(self, options):
        return options[int(self.row[3] * len(options))]


def policy(spec: str, numbers: np.ndarray, image: Image.Image) -> np.ndarray:
    """Returns the image after the policy, once for each row of numbers."""
    made = []
    for row in numbers:
        transform = aa.rand_augment_transform(spec, dict(translate_const=7, img_mean=MEAN))
        fed = Fed(row[: 6 * transform.num_layers], transform.num_layers)
        fed.probability = transform.ops[0].prob
        with (
            mock.patch.object(aa, 'random', fed),
            mock.patch.object(aa.np.random, 'choice', fed.operations),
        ):
            made.append(np.asarray(transform(image)))
    return np.stack(made)


def main() -> None:
    """Writes the golden file."""
    image = picture()
    made = dict(pixels=np.asarray(image), levels=np.array(LEVELS))
    for name in dict.fromkeys(aa._RAND_TRANSFORMS + aa._RAND_INCREASING_TRANSFORMS):
        for resample in ('BILINEAR', 'BICUBIC'):
            rows = []
            for level in LEVELS:
                for sign in (0.0, 1.0):  # above a half: negative
                    hparams = dict(img_mean=MEAN, interpolation=Image.Resampling[resample], magnitude_max=100)
                    operation = aa.AugmentOp(name, prob=1.0, magnitude=level, hparams=hparams)
                    with mock.patch.object(aa.random, 'random', lambda sign=sign: sign):
                        try:
                            rows.append(np.asarray(operation(image)))
                        except ValueError:  # Posterize to no bits: black, before Pillow refused it
                            rows.append(np.zeros_like(made['pixels']))
            made[f'op/{name}/{resample}'] = np.stack(rows)
    numbers = made['numbers'] = np.random.default_rng(5).random((DRAWS, 18))
    for spec in POLICIES:
        made[f'policy/{spec}'] = policy(spec, numbers, image)
    made['names/decreasing'] = np.array(aa._RAND_TRANSFORMS)
    made['names/increasing'] = np.array(aa._RAND_INCREASING_TRANSFORMS)
    np.savez_compressed(HERE / 'timm.npz', **made)
    print(f'{len(made)} arrays')


if __name__ == '__main__':
    main()
