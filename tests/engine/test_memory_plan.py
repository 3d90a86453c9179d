"""What a plan needs of each device, by hand arithmetic; and that it is said before anything is compiled."""

import pytest

from cvresearch import train
from cvresearch.base.errors import UserError
from cvresearch.base.mesh import Layout
from cvresearch.engine import memory_plan
from cvresearch.engine.experiment import Experiment
from cvresearch.inspect import summary

KERNEL, BIAS, BATCH = 784 * 10 * 4, 10 * 4, 64


@pytest.mark.parametrize(('data', 'shard'), [(1, 1), (8, 1), (16, 4)])
def test_bytes_of_a_device_by_hand(smoke, data, shard):
    config = smoke(mesh__data=data, mesh__shard=shard, mesh__least=64, average__name='ema')
    need = memory_plan.of(Experiment.from_config(config, layout=Layout.of(config.mesh, devices=64)))
    held = KERNEL // shard + BIAS
    assert (need.params, need.average) == (held, held)
    assert 0 <= need.optimizer - 2 * held <= 64  # two moments, and counters
    assert need.gradients == KERNEL + BIAS and need.gathered == (shard > 1) * (KERNEL + BIAS)
    # The images, and less than eight times the logits.
    images, logits = BATCH * 784 * 4 / (data * shard), BATCH * 10 * 4 / (data * shard)
    assert images < need.activations < images + 8 * logits
    assert need.total == 4 * held + need.optimizer - 2 * held + need.gradients + need.gathered + need.activations


def test_rows_add_up_to_the_footprint(smoke):
    net = dict(model__name='resnet20_cifar10', model__depth=26, data__channels=3, mesh__shard=2)
    experiment = Experiment.from_config(smoke(**net))
    need, rows = memory_plan.of(experiment), list(memory_plan.rows(experiment))
    for part in ('params', 'optimizer', 'average'):
        assert sum(row[part] for row in rows) == getattr(need, part)
    # A stage is one block and the entry of the three like it, each of two kernels and two norms; stem and head have 5.
    assert sum(row['arrays'] or 0 for row in rows) == 3 * 2 * 6 + 5


def test_rematerialised_blocks_keep_less_and_parts_of_a_batch_too(smoke):
    nets = dict(model__name='resnet20_cifar10', data__channels=3, data__image_size=8)
    plain, remat, parts = (
        memory_plan.of(Experiment.from_config(smoke(**nets, **more))).activations
        for more in ({}, {'remat': True}, {'updates.accumulate': 4})
    )
    assert remat < plain / 2 and parts == pytest.approx(plain / 4, rel=0.01)


def test_a_plan_that_does_not_fit_is_said_before_compiling(smoke, tmp_path, monkeypatch, capsys):
    class ReachedError(Exception):
        pass

    def reached(*_):
        raise ReachedError

    monkeypatch.setattr(train, 'Training', reached)
    for limit in (1 << 40, 1 << 10):
        monkeypatch.setattr(memory_plan.memory, 'of_device', lambda *_, limit=limit: limit)
        with pytest.raises(ReachedError):
            train.run(smoke(), tmp_path / str(limit))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith('warning: on a mesh of data 1 x shard 1 this run needs about')


def test_the_summary_of_a_mesh_that_is_not_here(capsys):
    arguments = ['--config', 'configs/resnet50.py:resnet50', '--devices', '256', '--config.mesh.shard=8', '--mesh']
    assert summary.main([*arguments, '--memory', '16GiB']) == 0
    text = capsys.readouterr().out
    assert 'resnet50 on a mesh of data 32 x shard 8, batch 256' in text and 'fits into 16,384 MiB' in text
    with pytest.raises(UserError, match="--memory is '16 pounds'"):
        summary.main([*arguments, '--memory', '16 pounds'])
