"""Tables of studies: settings of a sweep, deviations by layer, compute to a level, shifts."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from cvresearch.base.errors import UserError
from cvresearch.evaluation.shifts import shifted
from cvresearch.inspect import training
from cvresearch.models import registry
from cvresearch.report import efficiency, initialisation, results, shifts, studies

RECORDS = Path('docs/records')
ABLATION = 'configs/ablation_mnist5k.py'


def test_rows_are_the_settings_of_the_sweep_with_their_seeds():
    found = studies.groups(ABLATION, sorted((RECORDS / 'ablation_mnist5k').iterdir()))
    assert len(found) == 8 and all(group.seeds == len(group.runs) == 3 for group in found)
    plain, last = found[0], found[-1]
    assert plain.name == 'mixup 0, label_smoothing 0, size (28, 28)'
    assert plain.tests == pytest.approx([98.3, 97.6, 98.0]) and last.tests == pytest.approx([98.7, 98.8, 98.6])
    # Student with two degrees of freedom: 4.3027 * 0.1 / sqrt(3).
    assert last.interval() == pytest.approx(0.2484, abs=1e-3)
    assert studies.rows(found)[0]['mean'] == '97.97' and studies.rows(found)[0]['n_seen'] == 1000


def test_what_has_no_run_is_a_row_of_dashes(capsys):
    settings = [path for path in sorted((RECORDS / 'ablation_mnist5k').iterdir()) if 'mixup=0.2' in path.name]
    found = studies.rows(studies.groups(ABLATION, [*settings[1:], RECORDS / 'lenet5_mnist5k_seed0']))
    assert [row['seeds'] for row in found].count('0 of 3') == 4 and found[0]['mean'] is None
    assert sorted(row['seeds'] for row in found[4:]) == ['2 of 3', *['3 of 3'] * 3]
    assert 'lenet5_mnist5k_seed0 is no run of configs/ablation_mnist5k.py' in capsys.readouterr().err


def test_a_run_of_another_length_is_no_run_of_the_study(tmp_path):
    source = RECORDS / 'ablation_mnist5k' / 'mixup=0,label_smoothing=0,size=28x28,seed=0'
    shutil.copytree(source, tmp_path / 'run')
    config = json.loads((source / 'config.json').read_text())
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(config | {'epochs': 2.0}))
    with pytest.raises(UserError, match='differs in epochs'):
        studies.groups(ABLATION, [tmp_path / 'run'])


@pytest.mark.parametrize(('act', 'init', 'expected'), [
    ('linear', 'normal_0.01', (0.01 * 500**0.5) ** 9), ('linear', 'lecun_fan_in', 1.0), ('relu', 'he_fan_in', 1.0),
    ('linear', 'he_fan_in', 2**4.5), ('relu', 'lecun_fan_in', 2**-4.5),
])  # fmt: skip
def test_signals_grow_as_the_closed_form_says_forwards_and_backwards(act, init, expected):
    assert initialisation.growth(init, act, 500, 9) == pytest.approx(expected)
    net = registry.build('mlp', widths=(500,) * 10, act=act, kernel_init=init)
    images = jax.random.normal(jax.random.key(0), (64, 8, 8, 1))
    variables = net.init(jax.random.key(1), images)
    layers = training.activations(net, variables, images)
    sizes = [np.hypot(one.mean, one.std) for name, one in layers.items() if name.startswith('hidden')]
    assert len(sizes) == 10 and sizes[-1] / sizes[0] == pytest.approx(expected, rel=0.5)
    slopes = training.gradients(net, variables, images, None, lambda logits: logits[:, 0].sum())
    back = [one.std for name, one in slopes.items() if name.startswith('hidden')]
    assert back[0] / back[-1] == pytest.approx(expected, rel=0.5)


@pytest.mark.parametrize('init', ['normal_0.01', 'normal_1.0'])
def test_batch_norm_makes_up_for_weights_of_any_size(init):
    net = registry.build('mlp', widths=(64,) * 5, act='linear', norm=True, kernel_init=init)
    images = jax.random.normal(jax.random.key(0), (64, 8, 8, 1))
    variables = net.init(jax.random.key(1), images)
    layers = training.activations(net, variables, images, train=True)
    assert [one.std for name, one in layers.items() if name.startswith('norm')] == pytest.approx([1] * 5, rel=0.02)


def test_compute_to_a_level_is_three_passes_over_the_images_up_to_it():
    (result,) = results.take([RECORDS / 'lenet5_mnist5k_seed0'])
    rows = [json.loads(line) for line in (RECORDS / 'lenet5_mnist5k_seed0/metrics.jsonl').read_text().splitlines()]
    tests = [row for row in rows if row['split'] == 'test']
    first = next(row for row in tests if row['top1'] >= 97.5)
    (row,) = efficiency.compared(efficiency.rows([result], 97.5), 'lenet5')
    images = first['step'] * 64
    assert row['compute (10^12 multiply-adds)'] == f'{3 * 416_520 * images / 1e12:.3g}' and row['times less'] == '1'
    (never,) = efficiency.rows([result], 99.99)
    assert never['reached by'] == '0 of 1' and never['compute'] is None


def test_the_level_of_a_net_is_its_best_recipes():
    both = results.take([RECORDS / f'fashion_{name}_seed0' for name in ('d2l_lenet', 'lenet5')])
    assert efficiency.level_of(both, 'lenet5') == both[1].values['top1'] > both[0].values['top1']


def test_openais_table_has_its_44_times():
    found = {row['net']: row for row in efficiency.published() if row['level'].startswith('79.1')}
    base = float(found['AlexNet']['teraflop/s-days'])
    for row in found.values():
        assert base / float(row['teraflop/s-days']) == pytest.approx(float(row['times less']), rel=0.04)
    assert found['EfficientNet']['times less'] == '44'


def test_a_shift_moves_pixels_down_and_to_the_right_and_lets_zeros_in():
    image = np.arange(1, 13, dtype=np.uint8).reshape(3, 4, 1)
    np.testing.assert_array_equal(shifted(image, 1, -1)[..., 0], [[0, 0, 0, 0], [2, 3, 4, 0], [6, 7, 8, 0]])
    np.testing.assert_array_equal(shifted(image, 0, 0), image)
    assert not shifted(image, 3, 0).any()


def test_shifts_of_other_grids_are_not_set_beside_each_other(tmp_path):
    one = {'as_given': dict.fromkeys(shifts.METRICS, 90.0), 'shifted': dict.fromkeys(shifts.METRICS, 50.0)}
    for name, reach in (('a', 2), ('b', 4)):
        record = one | {'grid': [[90.0]], 'places': [-reach, 0, reach]}
        (tmp_path / f'{name}.json').write_text(json.dumps(record))
    with pytest.raises(UserError, match='different grids'):
        shifts.read([tmp_path / 'a.json', tmp_path / 'b.json'])
    (tmp_path / 'c.json').write_text('{}')
    with pytest.raises(UserError, match='no record of shifts'):
        shifts.read([tmp_path / 'c.json'])


def test_a_run_that_diverged_has_no_training_loss():
    folder = RECORDS / 'study_initialisation'
    table = initialisation.rows(initialisation.read(sorted(folder.glob('act=linear*'))))
    by_weights = {row['weights']: row for row in table}
    assert by_weights['lecun_fan_in']['training loss'] == 'diverged'  # its records say 0.0, of no image
    assert by_weights['normal_0.01']['training loss'] == '2.3'
    # The closed form, worked by hand: (0.01 * sqrt(500)) ** 9 = 1.4e-6; 1.
    assert float(by_weights['normal_0.01']['growth']) == pytest.approx(1.4e-6, rel=0.15)
    assert float(by_weights['lecun_fan_in']['growth']) == pytest.approx(1, rel=0.15)
