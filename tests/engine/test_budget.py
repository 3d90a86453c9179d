"""The cost of a run before it is begun, against arithmetic."""

import contextlib

import pytest

from cvresearch import main as program_main
from cvresearch.base import config as configs
from cvresearch.engine import budget
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.phases import Phases

FAKE = {'mesh.data': '1', 'data.name': 'fake', 'data.channels': '1', 'data.image_size': '28', 'data.train': '100'}


def test_images_and_multiply_adds_are_those_of_arithmetic():
    config = configs.load('configs/fashion_mnist_tutorials.py', FAKE | {'batch_size': '32', 'epochs': '2'})
    cost = budget.of(config)
    # 200 images in batches of 32: 7 updates. Softmax regression: 784 * 10 multiply-adds, three times.
    assert (cost.images, cost.macs) == (224, 224 * 3 * 7_840) and cost.seconds > 0
    assert cost.text.startswith('224 images, 5.27e-06 tera multiply-adds, about ')


def test_a_phase_of_smaller_images_costs_less():
    sizes = {'resize.name': 'efficientnet_v2', 'resize.size': '(20,28)', 'resize.stages': '2'}
    config = configs.load('configs/cnn_gap_mnist5k.py', {'mesh.data': '1', 'epochs': '1'} | sizes)
    experiment = Experiment.from_config(config)
    with contextlib.closing(Phases(experiment)) as phases:
        halves = [phases.experiment(phase.first).training_flops() // 2 for phase in phases.phases]
        steps = experiment.plan.steps
        expected = halves[0] * phases.phases[1].first + halves[1] * (steps - phases.phases[1].first)
        assert halves[0] < halves[1] and budget.multiply_adds(phases, steps) == expected


@pytest.mark.parametrize('flag', ['--dry-run', '--dry_run'])
def test_the_flag_tells_it_in_one_line_and_trains_nothing(flag, capsys, tmp_path, monkeypatch):
    flags = [f'--config.{key}={value}' for key, value in FAKE.items()]
    argv = ['--config', 'configs/fashion_mnist_tutorials.py', flag, '--workdir', str(tmp_path / 'run'), *flags]
    assert program_main.main(argv) == 0
    out = capsys.readouterr().out
    assert out.count('\n') == 1 and '1,024 images' in out and not (tmp_path / 'run').exists()
