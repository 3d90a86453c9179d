"""`plan`: a recipe compiled for a machine that is not here, and what is said of one that does not fit or is unknown."""

import importlib.util
import json
import subprocess
import sys

import pytest

from cvresearch.base import config as configs
from cvresearch.base import machines
from cvresearch.base.errors import UserError
from cvresearch.engine import ahead, forecast, plan

SMOKE = ('--config', 'configs/lenet5_fake.py:smoke')
needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec('libtpu'), reason='NOT TESTED: compiling for a TPU, for which libtpu is not installed'
)


def test_a_machine_is_named_by_its_shape_or_its_devices():
    assert machines.machine('v5e:2x4').devices == machines.machine('v5e:8').devices == 8
    assert machines.machine('v5e:8').shape == '2x4' and machines.machine('h100:8').chip.platform == 'cuda'


@pytest.mark.parametrize('name', ['v5e:3x3', 'v5e', 'h100:9', 'tpu', ''])
def test_an_unknown_machine_is_refused_with_those_that_are_known(name):
    with pytest.raises(UserError, match=r'known: v5e:\{1x1,.*h100:\{1,'):
        machines.machine(name)


def test_a_missing_compiler_is_said_with_its_extra(monkeypatch):
    monkeypatch.setattr(machines.importlib.util, 'find_spec', lambda name: None)
    for name, extra in (('v5e:1', 'tpu'), ('h100:1', 'plan')):
        with pytest.raises(UserError, match=rf'pip install "cvresearch\[{extra}\]"'):
            plan.main([*SMOKE, '--machine', name])


def test_bytes_of_a_buffer_assignment_by_kind():
    text = '\n'.join(
        f'allocation {number}: size {line}:'
        for number, line in enumerate(
            [
                '512, thread-local',
                '100, parameter 0, shape |f32[25]| at ShapeIndex {}',
                '40, output shape is |f32[10]|, maybe-live-out',
                '700, preallocated-temp',
                '999, color 1, preallocated-temp',
            ]
        )
    )
    assert ahead._sizes(text, on_chip=True) == dict(arguments=100, outputs=40, temporaries=700)
    assert ahead._sizes(text, on_chip=False)['temporaries'] == 1699


@pytest.fixture
def resnet():
    """A recipe, and a forecast of it that is too large."""
    config = configs.load('configs/resnet50.py:goyal', {'batch_size': '1024', 'model.stage_sizes': '(1, 1, 1, 1)'})
    target = machines.machine('v5e:2x2')
    gib = forecast.GIB
    memory = dict(total=20 * gib, limit=target.chip.memory, arguments=gib, outputs=0, temporaries=19 * gib)
    return config, target, dict(fits=False, batch_size=1024, devices=4, memory=memory)


def test_what_does_not_fit_says_how_much_is_missing_and_what_would_mend_it(resnet):
    said = forecast.complaint(*resnet)
    assert 'needs 20.00 GiB of each device, which has 15.75: 4.25 GiB are missing' in said
    for cure in ('--config.batch_size=512', '--config.updates.accumulate=2', '--config.remat=True'):
        assert cure in said
    assert 'shard' not in said  # the parameters are not what fills the memory


def test_what_nothing_mends_says_so(resnet):
    config, target, found = resnet
    state_alone = found | dict(memory=found['memory'] | dict(limit=1000))
    assert 'take more devices' in forecast.complaint(config, target, state_alone)


@needs_libtpu
def test_a_recipe_is_compiled_for_a_tpu_without_images_or_device(capsys):
    net = ('--config.model.stage_sizes=(1,1,1,1)', '--config.transform.train.crop.size=64', '--config.dtype=bfloat16')
    arguments = ('--config', 'configs/resnet50.py:goyal', *net, '--config.batch_size=128', '--machine', 'v5e:2x2')
    assert plan.main([*arguments, '--early', '--format', 'json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['fits'] and found['estimated_cycles'] is None and found['images_per_device'] == 32
    sums = [each for each in found['collectives'] if each['kind'] == 'all-reduce']
    parameters = found['memory']['parameters'] // 4
    # Gradients are summed in bfloat16 or float32, once; over links 2 (n - 1) / n of it.
    assert 2 * parameters <= sum(each['bytes'] for each in sums) <= 4.1 * parameters
    assert sum(each['wire_bytes'] for each in sums) == pytest.approx(1.5 * sum(each['bytes'] for each in sums))
    assert found['hbm_bytes_per_image_padded'] >= found['hbm_bytes_per_image'] > 0
    assert found['temp_bytes'] > 0 and found['flops_per_image'] > 0


@needs_libtpu
def test_machine_code_tells_cycles(capsys):
    assert plan.main([*SMOKE, '--machine', 'v5e:1', '--format', 'json']) == 0
    assert json.loads(capsys.readouterr().out)['estimated_cycles'] > 0


@needs_libtpu
def test_a_batch_that_does_not_fit_ends_with_code_2(capsys):
    big = ('--config', 'configs/resnet50.py:goyal', '--config.model.stage_sizes=(1,1,1,1)', '--config.batch_size=4096')
    assert plan.main([*big, '--machine', 'v5e:1', '--early']) == 2
    said = capsys.readouterr()
    assert 'DOES NOT FIT' in said.out and '--config.batch_size=' in said.err


def test_the_program_leaves_jax_alone_until_flags_are_read():
    code = "import sys, cvresearch.engine.plan; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)
