"""Progressive resizing: sizes and strengths of the papers' tables, as functions of the step."""

import pytest

from cvresearch.base.errors import UserError
from cvresearch.data import resizing


def test_efficientnet_v2s_stages_grow_evenly():
    # Tan & Le 2021, table 6, EfficientNetV2-S: 128 to 300 pixels, RandAugment 5 to 15, dropout 0.1 to 0.3, 4 stages.
    spec = dict(name='efficientnet_v2', stages=4, size=(128, 300), magnitude=(5, 15), dropout=(0.1, 0.3))
    phases = resizing.make(spec, steps=1000, steps_per_epoch=10.0)
    assert [phase.first for phase in phases] == [0, 250, 500, 750]
    assert [phase.size for phase in phases] == [128, 185, 243, 300]  # algorithm 1: S0 + (Se - S0) i / (M - 1)
    grown = {'transform.train.policy.magnitude': [5, 25 / 3, 35 / 3, 15], 'model.dropout': [0.1, 1 / 6, 7 / 30, 0.3]}
    for key, values in grown.items():
        assert [phase.values[key] for phase in phases] == pytest.approx(values)
    assert [resizing.phase_at(phases, step) for step in (0, 249, 250, 999)] == [0, 0, 1, 3]


def test_ramp_is_ffcvs():
    # ffcv's rn50_configs/rn50_88_epochs.yaml: 160 to 192 between the epochs 65 and 76, in steps of 32.
    phases = resizing.make(dict(name='ramp'), steps=88 * 100, steps_per_epoch=100.0)
    assert [(phase.first, phase.size) for phase in phases] == [(0, 160), (7100, 192)]
    fine = resizing.make(dict(name='ramp', size=(128, 192), start_epochs=2.0, end_epochs=6.0, multiple=16), 1000, 100.0)
    assert [(phase.first, phase.size) for phase in fine] == [(0, 128), (300, 144), (400, 160), (500, 176), (600, 192)]
    short = resizing.make(dict(name='ramp', size=(16, 32), start_epochs=0.1, end_epochs=0.25, multiple=16), 8, 16.0)
    assert [(phase.first, phase.size) for phase in short] == [(0, 16), (4, 32)]


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (dict(name='efficientnet_v2', size=(128,)), 'expected two numbers'),
        (dict(name='ramp', start_epochs=3.0, end_epochs=2.0), 'expected 0 <= start_epochs < end_epochs'),
        (dict(name='ramps'), 'did you mean ramp'),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError) as error:
        resizing.make(spec, 100, 10.0)
    assert message in str(error.value)
