"""Runs: counted, resumed, interrupted, damaged, sharded. Each compares with a run left alone."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from cvresearch import evaluate as evaluation
from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base import trees
from cvresearch.base.errors import PREEMPTED, RunError, UserError
from cvresearch.base.preemption import Preemption
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.data.stream import Stream
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment, Plan
from cvresearch.evaluation import periodic
from cvresearch.nn.stacked import unstack
from tests.seams import at_each_step, at_step


def rows(workdir):
    """Returns the metrics without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in SPEED} for row in read_metrics(workdir / 'metrics.jsonl')]


def digest(workdir):
    return read_card(workdir)['params_sha256']


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """A run that nothing disturbed."""
    config = configs.load('configs/lenet5_fake.py:smoke', {'mesh.data': '1', 'model.name': 'softmax_regression'})
    workdir = tmp_path_factory.mktemp('alone') / 'run'
    assert train.run(config, workdir) == 0
    return workdir


def test_run_leaves_the_promised_files(alone):
    assert {'config.json', 'run.json', 'metrics.jsonl', 'checkpoints'} <= {path.name for path in alone.iterdir()}
    assert list(alone.glob('events.*'))
    card = read_card(alone)
    assert card['status'] == 'finished' and card['step'] == 8 and card['images_seen'] == 512
    assert card['final']['test']['n_seen'] == 256 and card['params'] == 7850
    assert len(card['params_sha256']) == 64 and card['packages']['jax'] == jax.__version__
    assert Checkpoints(alone / 'checkpoints', read_only=True).steps() == [4, 8]


def test_tensorboard_events_can_be_read(alone):
    from tensorboardX.proto.event_pb2 import Event

    data, tags = next(iter(alone.glob('events.*'))).read_bytes(), set()
    while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], 'little')
        tags |= {value.tag for value in Event.FromString(data[12 : 12 + length]).summary.value}
        data = data[16 + length :]
    assert {'train/loss', 'train/learning_rate', 'test/top1', 'test/n_seen'} <= tags


def test_finished_run_is_not_run_again(alone, smoke, capsys):
    before = {path: path.stat().st_mtime_ns for path in alone.rglob('*') if path.name != 'lock'}
    assert train.run(smoke(), alone) == 0
    assert 'is finished' in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in alone.rglob('*') if path.name != 'lock'}


@pytest.mark.parametrize('batch_size', [64, 96, 250, 1000])
def test_evaluation_counts_every_image_once(alone, batch_size):
    values = evaluation.run(alone, batch_size=batch_size)
    assert values['n_seen'] == 256
    assert values['top1'] == read_card(alone)['final']['test']['top1']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('step', [1, 4, 6, 8])
def test_preempted_run_saves_this_step_and_goes_on_bit_for_bit(alone, smoke, tmp_path, monkeypatch, step, number):
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        assert train.run(smoke(), tmp_path / 'run') == PREEMPTED
    assert Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True).steps()[-1] == step
    assert read_card(tmp_path / 'run')['status'] == 'preempted'
    assert train.run(smoke(), tmp_path / 'run') == 0
    assert digest(tmp_path / 'run') == digest(alone)
    assert rows(tmp_path / 'run') == rows(alone)


def test_signal_between_saving_and_returning_loses_no_step(alone, smoke, tmp_path, monkeypatch):
    # The flag turns true the second time the loop reads it after step 6, where no save is due.
    reads = 0

    def requested(preemption):
        nonlocal reads
        reads += last == 6
        return (last == 6 and reads > 1) or last > 6

    last = 0

    def arrived(step):
        nonlocal last
        last = step

    with monkeypatch.context() as patch:
        at_each_step(patch, arrived)
        patch.setattr(Preemption, 'requested', property(requested))
        assert train.run(smoke(), tmp_path / 'run') == PREEMPTED
    saved = Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True).steps()[-1]
    assert saved == read_card(tmp_path / 'run')['step']


def test_sigterm_in_evaluation_saves_and_the_evaluation_is_done_again(alone, smoke, tmp_path, monkeypatch):
    real = periodic.evaluate

    def interrupted(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(periodic, 'evaluate', interrupted)
        assert train.run(smoke(), tmp_path / 'run') == PREEMPTED
    assert Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True).steps() == [4]
    assert not [row for row in rows(tmp_path / 'run') if row['split'] == 'test']
    assert train.run(smoke(), tmp_path / 'run') == 0
    assert digest(tmp_path / 'run') == digest(alone)
    assert rows(tmp_path / 'run') == rows(alone)


def test_evaluation_takes_a_relative_workdir(alone, monkeypatch):
    monkeypatch.chdir(alone.parent)
    assert evaluation.run('run')['n_seen'] == 256


def damage_truncate(path):
    largest = max((file for file in path.rglob('*') if file.is_file()), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def damage_flip(path):
    largest = max((file for file in path.rglob('*') if file.is_file()), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def damage_missing(path):
    shutil.rmtree(path / 'state')


def damage_empty_record(path):
    (path / 'record' / 'metadata').write_text('')


@pytest.mark.parametrize('damage', [damage_truncate, damage_flip, damage_missing, damage_empty_record])
def test_damaged_checkpoint_is_passed_over_with_one_line(alone, smoke, tmp_path, capsys, monkeypatch, damage):
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train.run(smoke(), tmp_path / 'run') == PREEMPTED
    damage(tmp_path / 'run' / 'checkpoints' / '6')
    capsys.readouterr()
    assert train.run(smoke(), tmp_path / 'run') == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith('warning: ')]
    assert len(warnings) == 1 and 'checkpoint 6 is damaged' in warnings[0]
    assert (tmp_path / 'run' / 'damaged' / '6.0').is_dir()
    assert digest(tmp_path / 'run') == digest(alone)
    assert rows(tmp_path / 'run') == rows(alone)


def test_half_written_checkpoint_and_half_written_record_are_cleared_away(alone, smoke, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        train.run(smoke(), tmp_path / 'run')
    checkpoints = tmp_path / 'run' / 'checkpoints'
    shutil.copytree(checkpoints / '4', checkpoints / '6.orbax-checkpoint-tmp')
    with open(tmp_path / 'run' / 'metrics.jsonl', 'a', encoding='utf-8') as file:
        file.write('{"step": 5, "spl')
    assert train.run(smoke(), tmp_path / 'run') == 0
    assert sorted(path.name for path in checkpoints.iterdir()) == ['4', '8']
    assert digest(tmp_path / 'run') == digest(alone) and rows(tmp_path / 'run') == rows(alone)


def test_loss_that_is_not_finite_stops_the_run_and_names_the_step(smoke, tmp_path):
    broken = dict(optimizer__name='sgd', schedule__peak=1e12, schedule__warmup_epochs=0.0, optimizer__momentum=0.0)
    broken |= dict(optimizer__weight_decay=0.01)
    broken |= dict(save_every_epochs=0.0625, evaluate_every_epochs=0.0)  # a save is due at every step
    with pytest.raises(RunError, match=r'not finite at step [0-4]; (the last good|no checkpoint)'):
        train.run(smoke(**broken), tmp_path / 'run')
    checkpoints = Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True)
    for step in checkpoints.steps():
        state = checkpoints.restore(Experiment.from_config(smoke(**broken)).abstract_state(), step)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert read_card(tmp_path / 'run')['status'] == 'failed'


def test_another_configuration_in_the_workdir_is_refused(alone, smoke):
    with pytest.raises(UserError, match=r'another configuration \(seed: 0 -> 1\)'):
        train.run(smoke(seed=1), alone)


def test_another_process_in_the_workdir_is_refused(alone, smoke):
    import fcntl

    with open(alone / 'lock', 'a', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match='is in use by another process'):
            train.run(smoke(), alone)


def test_a_folder_that_is_no_run_is_refused_and_left_alone(smoke, tmp_path):
    (tmp_path / 'thesis.tex').write_text('x')
    with pytest.raises(UserError, match=r'holds no run \(it has thesis.tex\)'):
        train.run(smoke(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_checkpoint_of_another_model_is_an_error_with_the_difference(alone, smoke, tmp_path):
    shutil.copytree(alone, tmp_path / 'run')
    text = (tmp_path / 'run' / 'config.json').read_text().replace('softmax_regression', 'mlp')
    (tmp_path / 'run' / 'config.json').write_text(text)
    (tmp_path / 'run' / 'run.json').unlink()
    with pytest.raises(UserError, match='does not fit the program'):
        train.run(smoke(model__name='mlp'), tmp_path / 'run')


@pytest.mark.parametrize('devices', [2, 8])
def test_more_devices_see_the_same_images_and_count_the_same(alone, smoke, tmp_path, devices):
    assert train.run(smoke(mesh__data=devices), tmp_path / 'run') == 0
    ours, theirs = rows(tmp_path / 'run'), rows(alone)
    assert [row['n_seen'] for row in ours] == [row['n_seen'] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):  # rounding differs between partitions
        assert a['loss'] == pytest.approx(b['loss'], rel=1e-4)


def test_batch_that_does_not_divide_over_the_devices_is_refused(smoke, tmp_path):
    with pytest.raises(UserError, match=r'config\.batch_size is 60, which does not divide over 8 devices'):
        train.run(smoke(mesh__data=8, batch_size=60), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_best_checkpoint_by_the_selection_split_is_kept(smoke, tmp_path):
    config = smoke(minival=128, keep=1, epochs=2.0, evaluate_every_epochs=0.25, save_every_epochs=0.5)
    assert train.run(config, tmp_path / 'run') == 0
    held = [row for row in rows(tmp_path / 'run') if row['split'] == 'minival']
    best = max(held, key=lambda row: (row['top1'], -row['step']))['step']
    kept = Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True).steps()
    assert best in kept and len(kept) <= 2
    assert {row['n_seen'] for row in held} == {128}


def test_bfloat16_trains_with_float32_parameters(smoke, tmp_path):
    assert train.run(smoke(dtype='bfloat16'), tmp_path / 'run') == 0
    assert json.loads((tmp_path / 'run' / 'run.json').read_text())['final']['test']['top1'] > 50


@pytest.mark.parametrize('every', [0.25, 0.3, 1.0, 1.7])
def test_plan_counts_whole_periods_of_images(every):
    # Against counting image by image: a period ends where its last image is in the batch.
    plan = Plan(examples=100, batch_size=7, epochs=5.0)
    assert plan.steps == -(-500 // 7)
    ends = set(range(round(every * 100), 500 + 7, round(every * 100)))
    for step in range(1, plan.steps):
        images = set(range((step - 1) * 7 + 1, step * 7 + 1))
        assert plan.due(step, every_epochs=every) == bool(images & ends)
    assert plan.due(plan.steps, every_epochs=every) and not plan.due(0, every_epochs=every)
    assert not plan.due(plan.steps, every_epochs=0)


def deep(stacked):
    """Returns a short training of a block and three more that are alike, with their variables stacked or not."""
    values = {
        'model.name': 'preact_resnet110_cifar10',
        'model.stage_sizes': '(4,)',
        'model.stacked': stacked,
        'mesh.data': 1,
        'data.image_size': 8,
        'data.channels': 3,
        'optimizer.name': 'sgd',
    }
    return configs.load('configs/lenet5_fake.py:smoke', {key: str(value) for key, value in values.items()})


def per_block(state):
    return unstack(jax.device_get(state))


@pytest.fixture(scope='module')
def deep_runs(tmp_path_factory):
    """Undisturbed runs, {stacked: workdir}."""
    workdirs = {stacked: tmp_path_factory.mktemp('deep') / 'run' for stacked in (True, False)}
    for stacked, workdir in workdirs.items():
        assert train.run(deep(stacked), workdir) == 0
    return workdirs


def test_layout_of_the_variables_cannot_be_told_from_a_run(deep_runs):
    records = [json.loads((run / 'checkpoints/8/record/metadata').read_text()) for run in deep_runs.values()]
    assert records[0]['leaves'] == records[1]['leaves']
    assert 'params/stage1_block3/conv1/kernel' in records[0]['leaves']
    assert not [name for name in records[0]['leaves'] if '-' in name]
    assert len({read_card(run)['params'] for run in deep_runs.values()}) == 1
    assert len({evaluation.run(run, batch_size=64)['top1'] for run in deep_runs.values()}) == 1


def test_layouts_begin_alike_to_the_bit_and_train_alike(deep_runs):
    experiments = {stacked: Experiment.from_config(deep(stacked)) for stacked in deep_runs}
    assert len({trees.sha256(per_block(experiment.initial_state())) for experiment in experiments.values()}) == 1
    ends = [
        per_block(Checkpoints(deep_runs[stacked] / 'checkpoints', read_only=True).restore(experiment.abstract_state()))
        for stacked, experiment in experiments.items()
    ]
    for (name, a), (_, b) in zip(*map(trees.named_leaves, ends), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('stacked', [True, False])
def test_a_run_goes_on_in_the_other_layout(deep_runs, tmp_path, monkeypatch, stacked):
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train.run(deep(stacked), tmp_path / 'run') == PREEMPTED
    (tmp_path / 'run' / 'config.json').write_text(configs.to_json(deep(not stacked)))
    abstract = Experiment.from_config(deep(not stacked)).abstract_state()
    restored = Checkpoints(tmp_path / 'run/checkpoints').restore(abstract)
    assert trees.sha256(per_block(restored.params)) == digest(tmp_path / 'run')
    assert train.run(deep(not stacked), tmp_path / 'run') == 0
    for ours, theirs in zip(rows(tmp_path / 'run'), rows(deep_runs[stacked]), strict=True):
        assert ours['n_seen'] == theirs['n_seen'] and ours['loss'] == pytest.approx(theirs['loss'], rel=1e-4)


def test_a_checkpoint_of_another_depth_is_refused_by_the_names_of_its_blocks(deep_runs):
    config = deep(True)
    configs.override(config, 'model.stage_sizes', '(5,)')
    with pytest.raises(UserError, match=r'stage1_block4/norm1/scale: absent -> float32\[16\]'):
        abstract = Experiment.from_config(config).abstract_state()
        Checkpoints(deep_runs[True] / 'checkpoints', read_only=True).restore(abstract)


def test_training_is_a_program_of_one_size_for_every_depth(smoke):
    def lines(depth):
        net = dict(model__name=f'resnet{depth}_cifar10', data__image_size=32, data__channels=3)
        experiment = Experiment.from_config(smoke(**net, updates__clip_norm=1.0))
        batch = Stream(experiment.source.splits['train'], 0, 64).batch(0)
        return experiment.train_step().lower(experiment.abstract_state(), batch).as_text().count('\n')

    assert lines(56) == lines(32)
