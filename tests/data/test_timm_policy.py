"""timm's RandAugment, value by value against timm (goldens/generate_timm.py)."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvresearch.base import config as configs
from cvresearch.base.errors import UserError
from cvresearch.data import policies, timm_operations

GOLDEN = dict(np.load(Path(__file__).parent / 'goldens' / 'timm.npz'))
IMAGE = Image.fromarray(GOLDEN['pixels'])
SPECS = {
    'rand-m9-mstd0.5': {},
    'rand-m7-n3-p0.8-inc1': dict(magnitude=7, layers=3, probability=0.8, magnitude_std=0, increasing=True),
    'rand-m9-mstd101': dict(magnitude_std=101),
    'rand-m15-mmax20-mstd4-p1.0': dict(
        magnitude=15, magnitude_max=20, magnitude_std=4, probability=1.0),
}  # fmt: skip


def test_operations_are_drawn_from_timms_lists():
    assert tuple(GOLDEN['names/decreasing']) == timm_operations.DECREASING
    assert tuple(GOLDEN['names/increasing']) == timm_operations.INCREASING


@pytest.mark.parametrize('name', [name for name in GOLDEN if name.startswith('op/')])
def test_operation_is_timms(name):
    _, operation, resample = name.split('/')
    cases = [(level, negative) for level in GOLDEN['levels'].tolist() for negative in (False, True)]
    for (level, negative), expected in zip(cases, GOLDEN[name], strict=True):
        value = timm_operations.argument(operation, level, negative)
        ours = timm_operations.apply(operation, IMAGE, value, Image.Resampling[resample], (124, 116, 104))
        np.testing.assert_array_equal(np.asarray(ours), expected, err_msg=f'{level} {negative}')


@pytest.mark.parametrize('spec', SPECS)
def test_policy_is_timms(spec):
    policy = policies.make(dict(name='timm_rand_augment', **SPECS[spec]))
    for u, expected in zip(GOLDEN['numbers'].tolist(), GOLDEN[f'policy/{spec}'], strict=True):
        np.testing.assert_array_equal(np.asarray(policy(IMAGE, u[: policy.numbers])), expected)


def test_levels_by_hand():
    # Level 9 of 10: timm's threshold is int(0.9 * 256), torchvision's at magnitude 27 of 30 is 25.5.
    assert timm_operations.argument('Solarize', 9, negative=False) == 230
    assert timm_operations.argument('SolarizeIncreasing', 9, negative=False) == 26
    assert timm_operations.argument('Posterize', 9, negative=False) == 3
    assert timm_operations.argument('PosterizeIncreasing', 9, negative=False) == 1
    assert timm_operations.argument('TranslateXRel', 10, negative=True) == -0.45


def test_half_of_the_operations_are_made():
    policy = policies.TimmRandAugment(layers=1)
    invert = (timm_operations.DECREASING.index('Invert') + 0.5) / 15
    made = [policy(IMAGE, [invert, chance, 0, 0, 0.5, 0.5]) is not IMAGE for chance in np.linspace(0, 0.999, 1000)]
    assert sum(made) == 500


def test_the_recipe_of_mobile_nets_is_timms():
    config = configs.load('configs/efficientnet_b0.py:modern')
    policy = policies.make(config.transform.train.policy)
    assert policy == policies.TimmRandAugment(layers=2, magnitude=9.0, magnitude_std=0.5, probability=0.5)
    assert policy.fill == (124, 116, 104)  # 255 times (0.485, 0.456, 0.406)


def test_trivial_augments_translations_are_torchvisions():
    # torch.linspace(0, 32, 31) in float32, of which torchvision takes the whole pixels: 15 in the middle, not 16.
    expected = np.load(Path(__file__).parent / 'goldens' / 'transforms.npz')['magnitudes/wide/TranslateX']
    ours = [policies.TrivialAugment().magnitude('TranslateX', place) for place in range(31)]
    assert [int(pixels) for pixels in ours] == expected.astype(int).tolist()
    assert int(ours[15]) == 15


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (dict(magnitude=11), 'expected layers >= 0, a magnitude of 0 to magnitude_max'),
        (dict(probability=1.5), 'a probability of 0 to 1'),
        (dict(interpolation='nearest'), 'unknown interpolation'),
        (dict(fill=(1, 2)), 'expected a grey value or an RGB'),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        policies.make(dict(name='timm_rand_augment', **spec))
