"""Runs that go on with other values: those on which no result depends, and a larger number of epochs."""

import json
import shutil

import numpy as np
import pytest

from cvresearch import main, train
from cvresearch.base import config as configs
from cvresearch.base import workdir
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.engine import continuing
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.session import Session
from cvresearch.report import results, tables
from tests.conftest import SMOKE
from tests.seams import at_step

CONSTANT = dict(schedule__name='constant', schedule__peak=0.01, schedule__warmup_epochs=0.1)


def rows(path, *splits):
    found = [{k: v for k, v in row.items() if k not in SPEED} for row in read_metrics(path / 'metrics.jsonl')]
    return [row for row in found if row['split'] in splits]


def digest(path):
    return read_card(path)['params_sha256']


def files(path):
    """Returns what is in a workdir, but for the lock, byte by byte."""
    return {str(file): file.read_bytes() for file in sorted(path.rglob('*')) if file.is_file() and file.name != 'lock'}


def saved(path):
    return Checkpoints(path / 'checkpoints', read_only=True).steps()


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """A run of a tenth of a second's work, 8 steps, that nothing disturbed: its config's overrides are none."""
    config = configs.load(SMOKE, {'mesh.data': '1', 'model.name': 'softmax_regression'})
    path = tmp_path_factory.mktemp('alone') / 'run'
    assert train.run(config, path) == 0
    return path


@pytest.fixture
def stopped(smoke, tmp_path, monkeypatch):
    """Returns a function that trains to a step, is stopped there, and returns the workdir."""

    def start(step, **overrides):
        with monkeypatch.context() as patch:
            at_step(patch, step)
            assert train.run(smoke(**overrides), tmp_path / 'run') == PREEMPTED
        return tmp_path / 'run'

    return start


@pytest.mark.parametrize(
    ('key', 'value', 'said'),
    [
        ('keep', 5, 'keep: 2 -> 5'),
        ('keep', 1, 'keep: 2 -> 1'),
        ('log_every_steps', 2, 'log_every_steps: 5 -> 2'),
        ('save_every_epochs', 0.125, 'save_every_epochs: 0.25 -> 0.125'),
        ('save_every_epochs', 0.0, '0.25 -> 0.0'),
        ('eval_batch_size', 96, 'eval_batch_size: 256 -> 96 (losses of evaluations may differ in their last digits)'),
        ('keep_predictions', False, 'keep_predictions: True -> False'),
        ('save_failures', 7, 'save_failures: 3 -> 7'),
    ],
)
def test_what_no_result_depends_on_may_change(alone, smoke, stopped, capfd, key, value, said):
    path = stopped(3)
    old = json.loads((path / 'config.json').read_text())
    capfd.readouterr()
    assert train.run(smoke(**{key: value}), path) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith('continues with ')]
    assert len(lines) == 1 and said in lines[0]
    assert digest(path) == digest(alone)
    ours, theirs = (rows(each, 'test') for each in (path, alone))
    assert [(row['step'], row['top1'], row['n_seen']) for row in ours] == [
        (row['step'], row['top1'], row['n_seen']) for row in theirs
    ]
    # In batches of another size, losses of 256 images are added up in another order.
    assert [row['loss'] for row in ours] == pytest.approx([row['loss'] for row in theirs], rel=256 * 2**-24)
    assert json.loads((path / 'config.json').read_text())[key] == value
    assert [line['config'] for line in workdir.history(path)] == [old]
    session = read_card(path)['sessions'][-1]
    assert session['continued_at'] == 3 and session['continued_with'] == lines


def test_a_run_that_goes_on_unchanged_has_no_history(alone, smoke, stopped, capfd):
    path = stopped(3)
    assert train.run(smoke(), path) == 0
    assert 'continues with' not in capfd.readouterr().err and not (path / workdir.HISTORY).exists()


FOLDER = {'data.name': 'image_folder'}


def test_where_the_data_lie_and_who_decodes_them_may_change(tmp_path):
    config = configs.load('configs/resnet18.py:smoke', FOLDER | {'data.root': '/a', 'data.threads': '1'})
    (tmp_path / 'config.json').write_text(configs.to_json(config))
    moved = configs.load('configs/resnet18.py:smoke', FOLDER | {'data.root': '/b', 'data.threads': '4'})
    workdir.check_config(tmp_path, moved)
    assert workdir.adopt(tmp_path, moved) == ['data.root: /a -> /b', 'data.threads: 1 -> 4']
    other = configs.load('configs/resnet18.py:smoke', {'data.name': 'imagenet', 'data.root': '/b', 'data.threads': '4'})
    with pytest.raises(UserError, match=r'\(data.name: image_folder -> imagenet\)'):
        workdir.check_config(tmp_path, other)


@pytest.mark.parametrize(
    'overrides',
    [
        dict(seed=1),
        dict(batch_size=32),
        dict(evaluate_every_epochs=0.125),
        dict(keep=5, seed=1),
        dict(snapshot_every_epochs=0.25),
        dict(data__noise=0.5),
        dict(schedule__peak=1.0),
        dict(epochs=1.0),
        dict(epochs=0.25),
    ],
    ids=str,
)
def test_what_results_depend_on_is_refused_and_nothing_is_written(smoke, stopped, overrides):
    path = stopped(3)
    before = files(path)
    with pytest.raises(UserError, match='another configuration') as error:
        train.run(smoke(**overrides), path)
    assert 'keep:' not in str(error.value)
    assert files(path) == before


def test_evaluations_in_other_batches_are_refused_where_the_learning_rate_follows_them(smoke, stopped):
    plateau = dict(schedule__name='plateau', schedule__metric='loss', minival=64)
    path = stopped(3, **plateau)
    with pytest.raises(UserError, match=r'eval_batch_size: 256 -> 64.*the learning rate follows the evaluations'):
        train.run(smoke(**plateau, eval_batch_size=64), path)


def test_more_epochs_need_the_word_and_fewer_are_no_use(alone, smoke):
    with pytest.raises(UserError, match=r'epochs: 0.5 -> 1.0\); add --extend to the command'):
        train.run(smoke(epochs=1.0), alone)
    for extend in (False, True):
        with pytest.raises(UserError, match=r'epochs: 0.5 -> 0.25\); a run cannot be shortened'):
            train.run(smoke(epochs=0.25), alone, extend=extend)
    with pytest.raises(UserError, match=r'another configuration \(seed: 0 -> 1\)'):
        train.run(smoke(epochs=1.0, seed=1), alone, extend=True)


def test_there_is_nothing_to_extend_where_there_is_no_run(smoke, tmp_path):
    with pytest.raises(UserError, match='holds no run; leave --extend out'):
        train.run(smoke(), tmp_path / 'run', extend=True)
    assert not (tmp_path / 'run').exists()


@pytest.fixture(scope='module')
def long(tmp_path_factory):
    """A run of 16 steps, and one of 8, at a constant rate."""
    paths = {}
    for epochs in (0.5, 1.0):
        overrides = {key.replace('__', '.'): str(value) for key, value in CONSTANT.items()}
        overrides |= {'model.name': 'softmax_regression', 'mesh.data': '1', 'epochs': str(epochs)}
        config = configs.load(SMOKE, overrides)
        paths[epochs] = tmp_path_factory.mktemp('long') / 'run'
        assert train.run(config, paths[epochs]) == 0
    return paths


@pytest.mark.parametrize('stop', [3, 8, None], ids=lambda stop: f'stopped at {stop}' if stop else 'finished')
def test_an_extended_run_is_bit_for_bit_the_one_that_was_as_long_from_the_start(smoke, long, stopped, tmp_path, stop):
    path = stopped(stop, **CONSTANT) if stop else tmp_path / 'run'
    if not stop:
        shutil.copytree(long[0.5], path)
    assert train.run(smoke(**CONSTANT, epochs=1.0), path, extend=True) == 0
    card = read_card(path)
    assert (card['status'], card['step']) == ('finished', 16)
    assert digest(path) == digest(long[1.0])
    assert rows(path, 'test', 'data') == rows(long[1.0], 'test', 'data')
    (said,) = card['sessions'][-1]['continued_with']
    assert 'the learning rate stays' in said and 'are the first of a run of 1 epochs' in said
    # The same commands again: it is finished, with the word and without it; the shorter run is gone.
    for extend in (True, False):
        assert train.run(smoke(**CONSTANT, epochs=1.0), path, extend=extend) == 0
    with pytest.raises(UserError, match='cannot be shortened'):
        train.run(smoke(**CONSTANT), path)


def test_a_run_whose_curve_was_stretched_is_no_run_of_that_length_in_tables(smoke, alone, long, tmp_path):
    shutil.copytree(alone, tmp_path / 'extended')
    assert train.run(smoke(epochs=1.0), tmp_path / 'extended', extend=True) == 0
    assert train.run(smoke(epochs=1.0, seed=1), tmp_path / 'whole') == 0
    assert read_card(tmp_path / 'extended')['extended_from'] == [0.5]
    assert train.run(smoke(epochs=1.25), tmp_path / 'extended', extend=True) == 0
    assert read_card(tmp_path / 'extended')['extended_from'] == [0.5, 1.0]
    (row,) = tables.results([tmp_path / 'extended'])
    assert row['epochs'] == '1.25 (extended from 0.5, 1)'
    assert 'extended_from' not in read_card(long[1.0]) and tables.results([tmp_path / 'whole'])[0]['epochs'] == 1.0
    read = [results.read(tmp_path / name).recipe() for name in ('extended', 'whole')]
    assert 'extended_from' in read[0] and 'extended_from' not in read[1]


def test_the_command_line_has_the_word(long, tmp_path, capfd):
    shutil.copytree(long[0.5], tmp_path / 'run')
    flags = [f'--config.{key.replace("__", ".")}={value}' for key, value in CONSTANT.items()]
    flags += ['--config.model.name=softmax_regression', '--config.mesh.data=1', '--config.epochs=0.625', '--extend']
    assert main.main(['--config', SMOKE, '--workdir', str(tmp_path / 'run'), *flags]) == 0
    assert read_card(tmp_path / 'run')['step'] == 10
    assert 'test top-1' in capfd.readouterr().err.splitlines()[-1]


def test_an_evaluation_at_the_old_end_stays(smoke, tmp_path):
    # Evaluations are due after 4, 8 ...: the one after 6 is of the end.
    config = dict(CONSTANT, epochs=0.375)
    assert train.run(smoke(**config), tmp_path / 'run') == 0
    assert train.run(smoke(**{**config, 'epochs': 0.5}), tmp_path / 'run', extend=True) == 0
    assert [row['step'] for row in rows(tmp_path / 'run', 'test')] == [4, 6, 8]


def test_an_extended_run_killed_before_its_first_step_goes_on_with_the_word(smoke, long, tmp_path, monkeypatch):
    shutil.copytree(long[0.5], tmp_path / 'run')
    config = smoke(**CONSTANT, epochs=1.0)

    def killed(session, state):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Session, '_adopt_config', killed)
        train.run(config, tmp_path / 'run', extend=True)
    assert train.run(config, tmp_path / 'run', extend=True) == 0
    assert digest(tmp_path / 'run') == digest(long[1.0])


def test_a_finished_run_without_weights_cannot_be_extended(smoke, long, tmp_path):
    shutil.copytree(long[0.5], tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints')
    before = files(tmp_path / 'run')
    with pytest.raises(UserError, match='has no checkpoint, so it cannot be extended'):
        train.run(smoke(**CONSTANT, epochs=1.0), tmp_path / 'run', extend=True)
    assert files(tmp_path / 'run') == before


# 16 steps an epoch. The rates at step 8 of 8 and of 16 by hand, and that of the last step; peak 1.
SCHEDULES = {
    'constant': (dict(), 'stays 1, at the end it is 1:', True),
    'step': (dict(every_epochs=0.5), 'stays 0.1, at the end it is 0.1:', True),
    'multistep': (dict(epochs='(0.25,)'), 'stays 0.1, at the end it is 0.1:', True),
    'exponential': (dict(every_epochs=0.25, rate=0.5), 'stays 0.25, at the end it is 0.125:', True),
    # (1 - 8 / 16); 1 - 15 / 16
    'polynomial': (dict(), 'goes from 0 to 0.5, at the end it is 0.0625:', False),
    # (1 + cos(pi / 2)) / 2; (1 + cos(15 pi / 16)) / 2 = 0.0096074
    'cosine': (dict(), 'goes from 0 to 0.5, at the end it is 0.009607:', False),
    # cycles of 4 steps: at 8 one is over, with which the shorter run ends; (1 + cos(3 pi / 4)) / 2 = 0.14645
    'sgdr': (dict(t_0_epochs=0.25), 'goes from 0 to 1, at the end it is 0.1464:', True),
    # up to 1 at 7, down to 1 / 250,000 at 15: 0.04 / 1e4 + (1 - 4e-6) * 7 / 8
    'one_cycle': (dict(rise=0.5, shape='linear'), 'goes from 4e-06 to 0.875, at the end it is 4e-06:', False),
    'trapezoid': (dict(decay_epochs=0.25), 'goes from 0 to 1, at the end it is 0.25:', False),
    'plateau': (dict(split='test'), 'stays 1, at the end it is 1:', False),  # its evaluation at 8 counts
}


@pytest.mark.parametrize('name', SCHEDULES)
def test_what_more_epochs_do_to_a_schedule_is_said(smoke, name):
    arguments, expected, as_from_start = SCHEDULES[name]
    overrides = {f'schedule__{key}': value for key, value in arguments.items()}
    overrides |= dict(schedule__name=name, schedule__peak=1.0, schedule__warmup_epochs=0.0, batch_size=64)
    before, config = (smoke(**overrides, epochs=epochs) for epochs in (0.5, 1.0))
    experiment = Experiment.from_config(config)
    state = experiment.initial_state().replace(step=np.int32(8))
    (line,) = continuing.extended(experiment, before, state)
    start = f'extended from 0.5 to 1 epochs (8 to 16 steps): schedule {name!r}: at step 8 the learning rate {expected}'
    assert line.startswith(start)
    assert line.endswith(f'the steps so far are {"" if as_from_start else "not "}the first of a run of 1 epochs')


def test_what_a_plateau_made_of_the_rate_is_in_what_is_said(smoke):
    plateau = dict(schedule__name='plateau', schedule__peak=1.0, schedule__split='test', schedule__warmup_epochs=0.0)
    before, config = (smoke(**plateau, epochs=epochs) for epochs in (0.5, 1.0))
    experiment = Experiment.from_config(config)
    state = experiment.initial_state()
    state = state.replace(step=np.int32(8), plateau={**state.plateau, 'scale': np.float32(0.01)})
    (line,) = continuing.extended(experiment, before, state)
    assert 'the learning rate stays 0.01, at the end it is 0.01' in line


def test_that_images_become_smaller_again_is_said(smoke):
    resize = dict(CONSTANT, resize__name='efficientnet_v2', resize__stages=2, resize__size='(14,28)')
    before, config = (smoke(**resize, epochs=epochs) for epochs in (0.5, 1.0))
    experiment = Experiment.from_config(config)
    state = experiment.initial_state().replace(step=np.int32(4))  # the second stage of 4 steps; of 16 the first, of 8
    assert continuing.extended(experiment, before, state)[1] == (
        "resize 'efficientnet_v2': at step 4 training images go from 28 to 14 pixels"
    )


def test_a_run_that_saves_never_has_its_last_weights(smoke, alone, tmp_path):
    assert train.run(smoke(save_every_epochs=0.0, evaluate_every_epochs=0.0), tmp_path / 'run') == 0
    assert saved(tmp_path / 'run') == [8] and digest(tmp_path / 'run') == digest(alone)


def test_a_batch_larger_than_the_data_set_is_refused_with_the_number(smoke, tmp_path):
    assert train.run(smoke(data__train=64), tmp_path / 'fits') == 0
    with pytest.raises(UserError, match=r'batch_size is 64, more than the 63 training images.* at most 63'):
        train.run(smoke(data__train=63), tmp_path / 'run')
    with pytest.raises(UserError, match='more than the 54 training images'):
        train.run(smoke(data__train=64, minival=10), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_sixth_class_is_named_as_such(smoke, stopped):
    path = stopped(3, data__classes=5)
    before = files(path)
    config = path / 'config.json'
    config.write_text(config.read_text().replace('"classes": 5', '"classes": 6'))
    card = json.loads((path / 'run.json').read_text())
    del card['dataset']  # as a run of an earlier version, whose data cannot be compared
    (path / 'run.json').write_text(json.dumps(card))
    before |= {str(file): file.read_bytes() for file in (config, path / 'run.json')}
    with pytest.raises(UserError) as error:
        train.run(smoke(data__classes=6), path)
    text = str(error.value)
    assert 'params/head/kernel: float32[784, 5] -> float32[784, 6]' in text
    assert 'trained with 5 classes, and the data set or config.model.num_classes now has 6' in text
    assert 'version' not in text and files(path) == before


def test_another_optimizer_and_another_model_are_told_apart(alone, smoke):
    def refusal(**overrides):
        like = Experiment.from_config(smoke(**overrides)).abstract_state()
        with pytest.raises(UserError) as error:
            Checkpoints(alone / 'checkpoints', read_only=True).restore(like)
        return str(error.value)

    assert 'the model is the same and the optimizer is another' in refusal(optimizer__name='sgd')
    assert 'it is of another model' in refusal(model__name='mlp')
    assert 'images of another size' in refusal(data__image_size=14)


def test_a_finished_run_is_told_in_a_sentence(alone, smoke, capfd):
    row = read_card(alone)['final']['test']
    assert train.run(smoke(), alone) == 0
    assert capfd.readouterr().out == (f'{alone} is finished at step 8: test top-1 {row["top1"]:.2f} % of 256 images\n')


def test_card_and_tensorboard_say_the_model_and_its_hyper_parameters(alone):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    card = read_card(alone)
    assert card['model'] == 'softmax_regression'
    assert card['hyperparameters']['optimizer.weight_decay'] == 0.01 and card['hyperparameters']['batch_size'] == 64
    (file,) = alone.glob('events.*')
    data, found = file.read_bytes(), {}
    while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], 'little')
        for value in Event.FromString(data[12 : 12 + length]).summary.value:
            if value.metadata.plugin_data.plugin_name == 'hparams':
                found[value.tag] = HParamsPluginData.FromString(value.metadata.plugin_data.content)
        data = data[16 + length :]
    assert set(found) == {f'_hparams_/{name}' for name in ('experiment', 'session_start_info', 'session_end_info')}
    values = found['_hparams_/session_start_info'].session_start_info.hparams
    assert values['schedule.peak'].number_value == 2e-3 and values['model.name'].string_value == 'softmax_regression'
    assert values['augment.flip'].HasField('bool_value') and values['mesh.rules'].string_value == '()'
    assert [metric.name.tag for metric in found['_hparams_/experiment'].experiment.metric_infos] == ['test/top1']
