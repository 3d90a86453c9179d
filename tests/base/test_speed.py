"""Speed, waiting, the use of the device and profiles: what is told of a run, and that it changes nothing of it."""

import jax
import pytest

from cvresearch import train
from cvresearch.base import speed as speeds
from cvresearch.base.errors import UserError
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.base.speed import Observation, Speed
from cvresearch.inspect import cost
from cvresearch.models import registry


class Ticking:
    """A clock of a step of 0.1 s, of which 0.025 s are waited for data."""

    step = 0

    @property
    def training(self):
        return 0.1 * self.step

    @property
    def waited(self):
        return 0.025 * self.step


def test_rates_are_of_the_steps_after_the_first_ones():
    clock, device = Ticking(), jax.devices()[0]
    speed = Speed(clock, 10, 32, [device, device], peak=1e9, flops=lambda step: 1e7 if step < 15 else 3e7)
    for clock.step in range(11, 19):
        speed.step(clock.step)
    # Six steps in 0.6 s, from 12 to 18: three of 1e7 operations and three of 3e7, 1.2e8 in all; 2e9 a second could be.
    assert speed.values() | {'peak_bytes': 0} == {
        'steps_per_second': 10.0,
        'images_per_second': 320.0,
        'data_wait': 0.25,
        'mfu': 0.1,
        'peak_bytes': 0,
    }
    assert speed.text() == '10.0 steps/s, 320 images/s, 25 % waiting for data, MFU 10.0 %'


def test_steps_that_were_dispatched_and_not_yet_done_are_in_the_time_once_the_device_is_idle():
    clock = Ticking()
    speed = Speed(clock, 0, 32, [jax.devices()[0]])
    for step in (2, 3, 4, 5, 6):
        speed.step(step)  # dispatched at once
    clock.step = 4  # and done 0.4 s later
    assert speed.values()['steps_per_second'] == 10.0


def test_operations_of_an_update_are_six_a_multiply_add():
    # 784 * 10 multiply-adds an image; with sharpness-aware minimisation two gradients.
    model = registry.build('softmax_regression')
    assert cost.training_flops(model, (28, 28, 1), 64, gradients=2) == 2 * 6 * 64 * 7840


def test_observing_leaves_the_results_alone_and_writes_a_profile(smoke, tmp_path):
    config = smoke(epochs=0.25)
    assert train.run(config, tmp_path / 'plain') == 0
    observed = Observation(peak='measure', profile=2)
    assert train.run(config, tmp_path / 'observed', observed) == 0
    plain, watched = (read_card(tmp_path / name) for name in ('plain', 'observed'))
    assert plain['params_sha256'] == watched['params_sha256']
    row = next(row for row in read_metrics(tmp_path / 'observed' / 'metrics.jsonl') if row['split'] == 'train')
    assert 0 < row['mfu'] < 1 and 0 <= row['data_wait'] < 1 and row['images_per_second'] > 0
    assert set(SPEED) >= {key for key in row if key not in plain} - {
        'step',
        'epoch',
        'split',
        'loss',
        'top1',
        'top5',
        'n_seen',
        'learning_rate',
    }
    assert list((tmp_path / 'observed').glob('profile/plugins/profile/*/*.xplane.pb'))
    assert not (tmp_path / 'plain' / 'profile').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(dict(peak='fast'), "--peak is 'fast'"), (dict(peak='-1'), '--peak'), (dict(peak='nan'), '--peak')],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        Observation(**arguments)


def test_a_profile_of_a_step_that_is_not_there_is_refused():
    with pytest.raises(UserError, match='--profile_from is 8; expected a step from 0 on, before the end at 8'):
        Observation(profile=2, profile_from=8).first(0, 8)
    assert Observation(profile=2, profile_from=7).first(0, 8) == 7
    assert Observation(profile=2).first(4, 8) == 4 + speeds.FIRST_STEPS
