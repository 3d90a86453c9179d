"""Runs that are asked to stop, find the disk full, meet a batch that is no good, or are of an older version."""

import functools
import http.server
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cvresearch import train
from cvresearch.base import config as configs
from cvresearch.base import metadata as places
from cvresearch.base import preemption as preemptions
from cvresearch.base import trees
from cvresearch.base.errors import PREEMPTED, RunError, UserError
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.base.workdir import check_config
from cvresearch.data.stream import Stream
from cvresearch.engine import augment, compiling, recipes, steps
from cvresearch.engine import state as states
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.evaluation.runs import Run
from cvresearch.nn import norms
from cvresearch.nn.overrides import Net
from cvresearch.objectives import losses
from cvresearch.objectives.mixing import Mixing
from cvresearch.optim import optimizers
from cvresearch.optim.updates import OptimizerOptions
from tests.engine.curves import Small
from tests.seams import at_step

OLD = Path(__file__).parent / 'data' / 'runs'
OFTEN = dict(save_every_epochs=0.125)  # saves at 2, 4, 6, 8


def rows(workdir):
    return [{k: v for k, v in row.items() if k not in SPEED} for row in read_metrics(Path(workdir) / 'metrics.jsonl')]


@pytest.fixture(scope='module')
def update():
    """An update with all that a state can hold: batch statistics, moments, an average, random mixing."""
    model = Net(Small(np.float32), norms.Normalization())
    clipped = OptimizerOptions(clip_norm=1.0)
    tx = optimizers.make({'name': 'adamw', 'weight_decay': 0.1}, lambda step: 0.01 / (1 + step), clipped)
    recipe = steps.UpdateOptions(mixing=Mixing(mixup=0.5), average=lambda step: 0.1, skip=2)
    loss = losses.make({'name': 'softmax_cross_entropy'})
    step = steps.make_train_step(model, tx, loss, augment.Augment(), (0.5,), (0.25,), recipe)
    begin = jax.jit(functools.partial(states.create, model, tx, (6, 6, 1), average=True, skips=True))(np.uint32(0))
    return jax.jit(step), begin


def batch(number, bad=False):
    random = np.random.default_rng(number)
    images = random.integers(0, 256, (8, 6, 6, 1)).astype(np.float32)
    images[3, 2, 2] = np.nan if bad else 1
    index = np.arange(8, dtype=np.int32)
    return {'image': images, 'label': index, 'epoch': np.full(8, number, np.int32), 'index': index}


def test_after_a_skipped_batch_the_state_is_as_if_it_had_not_been(update):
    step, state = update
    for number in (0, 1):
        state = step(state, batch(number))
    with_it, without = step(state, batch(99, bad=True)), state
    assert with_it.skipped == {'total': 1, 'in_a_row': 1} and int(with_it.position) == 3
    for number in (2, 3):
        with_it, without = step(with_it, batch(number)), step(without, batch(number))
    assert with_it.skipped == {'total': 1, 'in_a_row': 0} and int(with_it.step) == 4 and int(with_it.bad_step) == -1
    assert trees.sha256(with_it.replace(skipped={})) == trees.sha256(without.replace(skipped={}))


def test_so_many_in_a_row_stop_the_run_and_leave_the_state_good(update):
    step, begin = update
    state = functools.reduce(lambda state, bad: step(state, batch(0, bad)), [False, True, False, True, True], begin)
    assert int(state.bad_step) == 4 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_precise_statistics_leave_a_skipped_batch_out():
    good = {'norm': {'mean': np.ones(2, np.float32), 'var': np.ones(2, np.float32)}}
    bad = jax.tree.map(lambda x: x * np.nan, good)
    assert trees.sha256(recipes.population([good, bad, good])) == trees.sha256(recipes.population([good, good]))


@pytest.fixture
def nan_at(monkeypatch):
    """Returns a function that puts a NaN into the batches of some positions of the stream."""
    real = Stream.batch

    def put(*positions):
        def patched(stream, position):
            found = real(stream, position)
            images = found['image'].astype(np.float32)
            images[0] = np.nan if position in positions else images[0]
            return found | {'image': images}

        monkeypatch.setattr(Stream, 'batch', patched)

    return put


SKIP = {'non_finite__name': 'skip', 'non_finite__in_a_row': 3, 'average__name': 'ema', 'log_every_steps': 1}


def test_skipped_batches_are_counted_and_a_stop_among_them_changes_nothing(smoke, tmp_path, nan_at, monkeypatch):
    nan_at(2, 3)
    assert train.run(smoke(**SKIP), tmp_path / 'alone') == 0
    card = read_card(tmp_path / 'alone')
    assert (card['step'], card['skipped'], card['images_seen']) == (8, 2, 512)
    logged = {row['step']: row for row in rows(tmp_path / 'alone') if row['split'] == 'train'}
    assert [logged[step]['skipped'] for step in range(1, 9)] == [0, 0, 1, 2, 2, 2, 2, 2]
    assert [logged[step]['n_seen'] for step in range(1, 9)] == [64, 64, 0, 0, 64, 64, 64, 64]
    assert ['loss' in logged[step] for step in range(1, 9)] == [bool(logged[step]['n_seen']) for step in range(1, 9)]
    with monkeypatch.context() as patch:
        at_step(patch, 3)
        assert train.run(smoke(**SKIP), tmp_path / 'run') == PREEMPTED
    assert train.run(smoke(**SKIP), tmp_path / 'run') == 0
    assert read_card(tmp_path / 'run')['params_sha256'] == card['params_sha256']
    assert rows(tmp_path / 'run') == rows(tmp_path / 'alone')


def test_too_many_skipped_batches_stop_the_run(smoke, tmp_path, nan_at):
    nan_at(2, 4, 5, 6)
    with pytest.raises(RunError, match=r'3 batches in a row .* at step 6; the last good checkpoint is of step 4'):
        train.run(smoke(**SKIP), tmp_path / 'run')


@pytest.fixture
def full_at(monkeypatch):
    """Returns a function that lets the saves of some steps find the disk full."""
    real = Checkpoints._check_space

    def fill(*positions):
        def patched(checkpoints, state):
            real(checkpoints, state)
            if int(state.step) in positions:
                raise OSError('No space left on device')

        monkeypatch.setattr(Checkpoints, '_check_space', patched)

    return fill


def test_saves_that_fail_are_warnings_and_training_goes_on(smoke, tmp_path, full_at, capsys):
    assert train.run(smoke(**OFTEN), tmp_path / 'alone') == 0
    full_at(4, 6)
    capsys.readouterr()
    assert train.run(smoke(**OFTEN), tmp_path / 'run') == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith('warning: ')]
    assert len(warnings) == 2 and 'step 4: No space left on device; the last good one is of step 2' in warnings[0]
    assert 'failure 2 of the 3 in a row' in warnings[1]
    assert read_card(tmp_path / 'run')['params_sha256'] == read_card(tmp_path / 'alone')['params_sha256']
    assert rows(tmp_path / 'run') == rows(tmp_path / 'alone')
    assert Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True).steps() == [2, 8]


@pytest.mark.parametrize(
    ('full', 'preempted', 'message'),
    [
        ((4, 6), None, 'step 6: .* the last good one is of step 2; it is the last of 2 in a row'),
        ((8,), None, 'step 8: No space left on device; the last good one is of step 6'),
        ((5,), 5, 'step 5: No space left on device; the last good one is of step 4'),
    ],
)
def test_saves_that_fail_too_often_or_at_the_end_are_errors(
    smoke, tmp_path, full_at, monkeypatch, full, preempted, message
):
    full_at(*full)
    at_step(monkeypatch, preempted)
    with pytest.raises(RunError, match=message):
        train.run(smoke(**OFTEN, save_failures=2), tmp_path / 'run')
    assert read_card(tmp_path / 'run')['status'] == 'failed'


class Metadata(http.server.ThreadingHTTPServer):
    """Stands in for Google's metadata server."""

    def __init__(self, **values):
        self.values = values
        super().__init__(('127.0.0.1', 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    """One answer, as the real server gives it: nothing without the header."""

    def do_GET(self):
        name = self.path.removeprefix('/computeMetadata/v1/instance/')
        found = self.headers['Metadata-Flavor'] == 'Google' and name in self.server.values
        self.send_response(200 if found else 403)
        self.end_headers()
        self.wfile.write(self.server.values[name].encode() if found else b'')

    def log_message(self, *arguments):
        pass


@pytest.fixture
def metadata(monkeypatch):
    """Returns the stand-in, asked often."""
    with Metadata(preempted='FALSE', **{'maintenance-event': 'NONE'}) as server:
        monkeypatch.setenv('GCE_METADATA_HOST', f'127.0.0.1:{server.server_port}')
        monkeypatch.setattr(preemptions, 'POLL_SECONDS', 0.01)
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ('name', 'value', 'leaving'),
    [
        ('preempted', 'TRUE', True),
        ('maintenance-event', 'TERMINATE_ON_HOST_MAINTENANCE', True),
        ('maintenance-event', 'MIGRATE_ON_HOST_MAINTENANCE', False),
    ],
)
def test_notice_of_the_cloud(metadata, name, value, leaving):
    with preemptions.Preemption() as preemption:
        time.sleep(0.1)
        assert not preemption.requested
        metadata.values[name] = value
        end = time.monotonic() + (10 if leaving else 0.2)
        while time.monotonic() < end and not preemption.requested:
            time.sleep(0.01)
        assert preemption.requested == leaving


def test_notice_of_the_cloud_saves_and_stops_the_run(metadata, smoke, tmp_path, monkeypatch):
    def noticed():
        metadata.values['preempted'] = 'TRUE'
        while any(isinstance(thread, preemptions.Notice) for thread in threading.enumerate()):  # until it has seen it
            time.sleep(0.01)

    at_step(monkeypatch, 5, noticed)
    assert train.run(smoke(), tmp_path / 'run') == PREEMPTED
    assert read_card(tmp_path / 'run')['step'] == 5
    assert Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True).steps() == [4, 5]


def test_elsewhere_than_at_google_nobody_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv('GCE_METADATA_HOST', raising=False)
    monkeypatch.setattr(places, '_PRODUCT', tmp_path / 'product_name')
    assert places.server() is None
    (tmp_path / 'product_name').write_text('Google Compute Engine\n')
    assert places.server() == 'metadata.google.internal'
    monkeypatch.setenv('NO_GCE_CHECK', 'true')
    assert places.server() is None


@pytest.mark.parametrize(('of', 'saved'), [('update', 0), ('evaluation', 4), ('predictions', 8)])
def test_sigterm_does_not_wait_for_a_compilation(smoke, tmp_path, monkeypatch, of, saved):
    # Ten minutes of compiling an update, an evaluation or the last logits, and a signal in the first second.
    blocked = threading.Event()
    real = compiling.Compiler.begin

    def slow(compiler, name, make):
        if name[0] == of and name not in compiler._found:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            make = functools.partial(blocked.wait, 600)
        real(compiler, name, make)

    monkeypatch.setattr(compiling.Compiler, 'begin', slow)
    start = time.monotonic()
    assert train.run(smoke(), tmp_path / 'run') == PREEMPTED
    assert time.monotonic() - start < 300
    blocked.set()
    monkeypatch.undo()
    assert Checkpoints(tmp_path / 'run' / 'checkpoints', read_only=True).steps()[-1] == saved
    assert train.run(smoke(), tmp_path / 'run') == 0


@pytest.mark.parametrize(
    ('old', 'digest'),
    [
        # Made by revision 9bc97e4 and stopped at step 4 of 7; its metrics.jsonl is the one of the whole run.
        ('softmax_ema_plateau', '752ff199afe70dfade5e4a974b4bad576061823b51e6e103595b6221f9ce424b'),
        # Made by revision 20ec1f4 and stopped at step 4 of 8: all that is in `updates` was in `optimizer` and outside.
        ('densenet_one_optimizer_group', '0c08255833c6e590c4df3cdcd23faec4fd084515c22671c394ab1969a7ccad2d'),
    ],
)
def test_a_run_of_an_older_version_is_restored_and_goes_on(tmp_path, old, digest):
    workdir = tmp_path / 'run'
    shutil.copytree(OLD / old, workdir)
    run = Run.open(workdir)
    state = jax.device_get(run.checkpoint())
    assert trees.sha256(state) == digest
    assert train.run(run.config, workdir) == 0
    before = [row for row in rows(OLD / old) if row['split'] != 'data']
    for ours, theirs in zip((row for row in rows(workdir) if row['split'] != 'data'), before, strict=True):
        assert {k: ours[k] for k in ('step', 'split', 'n_seen')} == {k: theirs[k] for k in ('step', 'split', 'n_seen')}
        # The last steps are of another processor than the one that made it.
        assert ours['loss'] == pytest.approx(theirs['loss'], rel=1e-4)


def test_a_run_with_older_names_of_keys_is_continued_by_todays_command(tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(OLD / 'densenet_one_optimizer_group', workdir)
    config = configs.load(
        'tests/kill_config.py:plain',
        {
            'data.train': '64',
            'data.image_size': '6',
            'mixing.mixup': '0.2',
            'mixing.per_example': 'True',
            'updates.clip_norm': '1.0',
            'updates.sam': '0.05',
            'updates.accumulate': '2',
            'precise_batches': '2',
            'updates.freeze': "(('stage1_block0', 0.25), 'stem_conv')",
            'updates.lr_scale': "(('head', 2.0),)",
            'evaluate_every_epochs': '0.5',
            'save_every_epochs': '0.5',
            'keep': '1',
            'keep_predictions': 'False',
        },
    )
    experiment = Experiment.from_config(config)  # of a mesh that is as the run's: one device
    assert experiment.recipe.mixing == Mixing(mixup=0.2, per_example=True) and experiment.recipe.sam == 0.05
    check_config(workdir, config)
    with pytest.raises(UserError, match=r'another configuration \(updates.clip_norm: 1.0 -> 2.0\)'):
        configs.override(config, 'updates.clip_norm', '2.0')
        check_config(workdir, config)
