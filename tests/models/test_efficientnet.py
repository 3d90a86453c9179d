"""The compound scaling rule of Tan & Le 2019, arXiv:1905.11946, equation 3, by hand."""

import math

import pytest

from cvresearch.models import efficientnet
from cvresearch.models.efficientnet import NETS, compound_scaling, deviations


def test_rule_at_one_two_and_minus_nine():
    assert compound_scaling(0) == (1, 1, 1)
    assert compound_scaling(1) == (1.1, 1.2, 1.15)
    assert compound_scaling(2) == pytest.approx((1.21, 1.44, 1.3225))
    # configs/efficientnet_mnist5k.py: 1.15 ** 9 is 3.518, and 224 / 3.518 are 63.7 pixels
    assert round(224 * compound_scaling(-9)[2]) == 64
    # The constraint of equation 3, alpha * beta ** 2 * gamma ** 2 about 2
    assert abs(1.2 * 1.1**2 * 1.15**2 - 2) < 0.1


@pytest.mark.parametrize('name', ['b0', 'b1', 'b2', 'b3'])
def test_b0_to_b3_fall_out_of_the_rule(name):
    assert deviations(name) == {}


@pytest.mark.parametrize(
    ('name', 'width', 'depth', 'resolution'),
    [  # of the rule (1.1 ** phi, 1.2 ** phi, 224 * 1.15 ** phi), and published
        ('b4', (1.3, 1.4), (1.7, 1.8), (341, 380)),
        ('b5', (1.5, 1.6), (2.1, 2.2), (392, 456)),
        ('b6', (1.6, 1.8), (2.5, 2.6), (451, 528)),
        ('b7', (1.8, 2.0), (3.0, 3.1), (518, 600)),
    ],
)
def test_b4_to_b7_exceed_the_rule(name, width, depth, resolution):
    assert deviations(name) == {'width': width, 'depth': depth, 'resolution': resolution}


@pytest.mark.parametrize('name', ['b4', 'b5', 'b6', 'b7'])
def test_no_phi_gives_b4_to_b7(name):
    width, depth, resolution = NETS[name][:3]
    # Of what is rounded to a tenth any phi from log(x - 0.05) to log(x + 0.05) would do; of pixels, within 2 %.
    intervals = [
        (math.log(width - 0.05, 1.1), math.log(width + 0.05, 1.1)),
        (math.log(depth - 0.05, 1.2), math.log(depth + 0.05, 1.2)),
        (math.log(resolution * 0.98 / 224, 1.15), math.log(resolution * 1.02 / 224, 1.15)),
    ]
    assert max(low for low, _ in intervals) > min(high for _, high in intervals)


def test_published_coefficients_are_those_of_the_authors_code():
    published = {name: efficientnet.NETS[name][:4] for name in efficientnet.PHI}  # width, depth, pixels, dropout
    assert published == {
        'b0': (1.0, 1.0, 224, 0.2), 'b1': (1.0, 1.1, 240, 0.2), 'b2': (1.1, 1.2, 260, 0.3), 'b3': (1.2, 1.4, 300, 0.3),
        'b4': (1.4, 1.8, 380, 0.4), 'b5': (1.6, 2.2, 456, 0.4), 'b6': (1.8, 2.6, 528, 0.5), 'b7': (2.0, 3.1, 600, 0.5),
    }  # fmt: skip
