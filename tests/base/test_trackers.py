"""Trackers: what they are told, over sessions and failures; the documents' own, and W&B and MLflow where they are."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cvresearch import main
from cvresearch.base import plugins, track, trackers, tracking
from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.records import read_card, read_metrics, scalars
from tests import seams

PAGE = Path('docs/observing.md').read_text('utf-8')
EXAMPLE = re.search(r'<!-- tracker example -->\n```python\n(.*?)```', PAGE, re.S)[1]
RECORD = Path('docs/records/lenet5_mnist5k_seed0')  # a run of twenty epochs
SMOKE = [
    '--config',
    'configs/lenet5_fake.py:smoke',
    '--config.model.name=softmax_regression',
    '--config.mesh.data=1',
    '--config.log_every_steps=1',
]
NEVER = """
import time
class Never:
    def begin(self, run):
        {body}
    write = end = begin
TRACKERS = {{'shared': Never}}
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder for notes, and the documents' tracker in a file."""
    monkeypatch.setattr(plugins, '_LOADED', {})
    monkeypatch.setattr(tracking, 'POLL_SECONDS', 0.05)
    monkeypatch.setenv('LAB_NOTES', str(tmp_path))
    (tmp_path / 'notes.py').write_text(EXAMPLE)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith('_plugin')]:
        del sys.modules[name]


@pytest.fixture
def run(lab):
    """The workdir of a run that was trained, with the documents' tracker among its plugins."""
    path = lab / 'run'
    shutil.copytree(RECORD, path)
    config = json.loads((path / 'config.json').read_text())
    (path / 'config.json').write_text(json.dumps(config | {'plugins': [str(lab / 'notes.py')]}))
    return path


def notes(lab):
    (file,) = lab.glob('run-*.jsonl')  # one tracked run
    return [json.loads(line) for line in file.read_text().splitlines()]


def rows_in(path):
    return [{'step': row['step'], **scalars(row)} for row in read_metrics(path / 'metrics.jsonl')]


def sent(path):
    return tracking.send(path, 'shared', lambda _: False, pytest.fail)


def test_a_run_that_was_stopped_goes_on_in_the_same_tracked_run(lab, monkeypatch):
    flags = [*SMOKE, f'--config.plugins={lab / "notes.py"}', '--workdir', str(lab / 'run'), '--track', 'shared']
    with monkeypatch.context() as patch:
        seams.at_step(patch, 5)
        assert main.main(flags) == PREEMPTED
    assert main.main(flags) == 0
    told = notes(lab)
    assert [note['ended'] for note in told if 'ended' in note] == ['preempted', 'finished']
    assert [note for note in told if 'step' in note] == rows_in(lab / 'run')
    assert told[0]['begun']['model'] == 'softmax_regression' and len(EXAMPLE.splitlines()) <= 30


def test_rows_that_a_killed_run_writes_again_are_not_sent_again(run, lab):
    lines = (run / 'metrics.jsonl').read_text().splitlines(keepends=True)
    last = json.loads(lines[7])['step']
    # Killed between the rows of a step, with half of the next one written.
    (run / 'metrics.jsonl').write_text(''.join(lines[:8]) + lines[8][:20])
    assert sent(run) and len(notes(lab)) == 8 + 2
    again = [json.dumps(row | {'steps_per_second': 1.0}) + '\n' for row in map(json.loads, lines[4:])]
    (run / 'metrics.jsonl').write_text(''.join(lines[:4] + again))
    assert sent(run)
    steps = [note['step'] for note in notes(lab) if 'step' in note]
    assert steps == [json.loads(line)['step'] for line in lines] and last in steps
    assert json.loads((run / 'trackers/shared.json').read_text())['taken'] == len(lines)


@pytest.mark.parametrize('body', ['raise ConnectionError("no route")', 'time.sleep(1000)'])
def test_a_tracker_that_is_down_costs_the_run_nothing_and_gets_all_of_it_later(body, lab, monkeypatch, capfd):
    plugin = lab / 'notes.py'
    plugin.write_text(NEVER.format(body=body))
    monkeypatch.setattr(tracking, 'END_SECONDS', 0.5)
    flags = [*SMOKE, f'--config.plugins={plugin}', '--workdir', str(lab / 'run'), '--track', 'shared']
    assert main.main(flags) == 0 and read_card(lab / 'run')['status'] == 'finished'
    said = capfd.readouterr().err
    assert f'cvresearch track {lab / "run"} --to shared' in said and 'Traceback' not in said
    plugin.write_text(EXAMPLE)
    plugins._LOADED.clear()
    assert track.main([str(lab / 'run'), '--to', 'shared']) == 0
    assert [note for note in notes(lab) if 'step' in note] == rows_in(lab / 'run')


def test_a_failure_is_said_once_and_tried_again(run, lab):
    plugins.load([str(lab / 'notes.py')])
    shared, calls, lines = trackers.known()['shared'], iter(range(100)), []
    write = shared.write

    def failing(self, rows):
        if next(calls) < 3:
            raise OSError('too many requests')
        write(self, rows)

    shared.write = failing
    training = iter([True] * 5)
    assert tracking.send(run, 'shared', lambda _: next(training, False), lines.append)
    assert len(lines) == 1 and 'OSError: too many requests' in lines[0]
    assert [note for note in notes(lab) if 'step' in note] == rows_in(run)


def test_names_that_are_none_and_packages_that_are_missing_are_said_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="unknown tracker 'wandbb'; did you mean wandb"):
        main.main([*SMOKE, '--workdir', str(tmp_path / 'run'), '--track', 'wandbb'])
    monkeypatch.setattr(trackers.WandB, 'package', 'no_such_package')
    with pytest.raises(UserError, match=r'pip install "cvresearch\[wandb\]"'):
        main.main([*SMOKE, '--workdir', str(tmp_path / 'run'), '--track', 'wandb'])
    with pytest.raises(UserError, match='expected the workdirs of runs'):
        track.main([str(tmp_path), '--to', 'mlflow'])
    assert not list(tmp_path.iterdir())


def tracked(path, name, lines, **environment):
    """Sends the first lines of a run's records as a session of its own."""
    whole = (RECORD / 'metrics.jsonl').read_text().splitlines(keepends=True)
    (path / 'metrics.jsonl').write_text(''.join(whole[:lines]))
    subprocess.run(
        [sys.executable, '-m', 'cvresearch', 'track', str(path), '--to', name],
        check=True,
        timeout=240,
        cwd=path.parent,
        env=os.environ | {'PYTHONPATH': os.getcwd()} | environment,
    )
    return [json.loads(line) for line in whole[:lines]]


def wandb_records(file):
    """Yields the records of an offline run: 7 bytes, then blocks of 32 KiB in the format of LevelDB's logs."""
    from wandb.proto import wandb_internal_pb2

    data, place, part = file.read_bytes(), 7, b''
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], 'little'), data[place + 6]
        part, place = part + data[place + 7 : place + 7 + size], place + 7 + size
        if kind in (1, 4):  # whole, or the last of its parts
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b''
            yield record


def test_wandb_offline_has_both_sessions_in_its_files(run):
    pytest.importorskip('wandb', reason='W&B is not installed: --track wandb is not tested')
    for lines in (5, None):
        rows = tracked(run, 'wandb', lines, WANDB_MODE='offline', WANDB_PROJECT='lenets')
        time.sleep(1)  # its folders are named by the second
    files = sorted((run / 'wandb').glob('offline-run-*/*.wandb'))
    records = [list(wandb_records(file)) for file in files]
    begun = [record.run for session in records for record in session if record.WhichOneof('record_type') == 'run']
    assert len({each.run_id for each in begun}) == 1 and {each.project for each in begun} == {'lenets'}
    assert {each.display_name for each in begun} == {'run'} and 'seed:0' in begun[0].tags
    items = [
        {'/'.join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for session in records
        for record in session
        if record.WhichOneof('record_type') == 'history'
    ]
    assert [item['step'] for item in items] == [row['step'] for row in rows]
    assert [item['_step'] for item in items] == list(range(len(rows)))  # so that the second is appended to the first
    (top1,) = {item['test/top1'] for item in items[-3:] if 'test/top1' in item}
    assert top1 == json.loads((RECORD / 'run.json').read_text())['final']['test']['top1']
    config = {
        u.key: json.loads(u.value_json)
        for s in records
        for r in s
        if r.WhichOneof('record_type') == 'config'
        for u in r.config.update
    }
    assert config['batch_size'] == json.loads((RECORD / 'config.json').read_text())['batch_size']
    assert {file.name for file in run.glob('wandb/*/files/*.json')} >= {'run.json', 'config.json'}
    tables = sorted(run.glob('wandb/*/files/media/table/evaluations*.json'), key=lambda file: file.stat().st_mtime)
    evaluations = [row for row in rows if row['split'] != 'train' and 'loss' in row]
    assert len(json.loads(tables[-1].read_text())['data']) == len(evaluations)


def test_mlflow_with_sqlite_has_both_sessions_as_one_run(run, lab):
    pytest.importorskip('mlflow', reason='MLflow is not installed: --track mlflow is not tested')
    store = f'sqlite:///{lab / "mlflow.db"}'
    for lines in (5, None):
        rows = tracked(run, 'mlflow', lines, MLFLOW_TRACKING_URI=store, MLFLOW_EXPERIMENT_NAME='lenets')
    read = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(sys.argv[1])
(run,) = client.search_runs([client.get_experiment_by_name('lenets').experiment_id])
print(json.dumps({
    'tags': run.data.tags, 'params': run.data.params, 'status': run.info.status, 'name': run.info.run_name,
    'history': {key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics},
    'files': [file.path for file in client.list_artifacts(run.info.run_id)]}))
"""
    done = subprocess.run([sys.executable, '-c', read, store], capture_output=True, text=True, check=True, cwd=lab)
    found = json.loads(done.stdout.splitlines()[-1])
    expected = {}
    for row in rows:
        for name, value in scalars(row).items():
            expected.setdefault(name, []).append([row['step'], value])
    assert found['history'] == expected and found['status'] == 'FINISHED' and found['name'] == 'run'
    assert found['tags']['seed'] == '0' and found['params']['batch_size'] == '64'
    assert {'run.json', 'config.json', 'evaluations.csv'} <= {*found['files']}
    (evaluations,) = lab.rglob('evaluations.csv')
    assert evaluations.read_text().count(',test,') == sum(row['split'] == 'test' for row in rows)
