"""Programs on folders in buckets: trackers that are sent later, sweeps, the doctor; the server is one in memory."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from cvresearch.base import at_hand, paths, track, trackers, uploads
from cvresearch.base import config as configs
from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import UserError
from cvresearch.data import mirror as data_mirror
from cvresearch.engine import doctor_buckets
from launch import local as launch_local
from launch import sweep
from tests.base.test_buckets import ADDRESS, opened, quietly, run_folder, store

__all__ = ['store']


class Noting:
    """A tracker that keeps what it is sent, and may be down."""

    rows, down = [], False

    def begin(self, run):
        if Noting.down:
            raise ConnectionError

    def write(self, rows):
        Noting.rows += [row['step'] for row in rows]

    def end(self, card):
        pass


def test_a_run_in_a_bucket_is_tracked_later_and_each_row_comes_once(store, monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, 'noting', Noting)
    row = {'epoch': 0, 'split': 'test', 'loss': 1.0}
    with opened() as place:
        run_folder(place, 4)
        assert paths.meant(place) == ADDRESS and paths.meant(Path('/other')) == '/other'
        (place / 'metrics.jsonl').write_text(''.join(json.dumps({'step': step, **row}) + '\n' for step in (2, 4)))
    for _ in range(2):
        assert track.main([ADDRESS, '--to', 'noting']) == 0
    assert Noting.rows == [2, 4] and json.loads(Bucket.of(ADDRESS).read('trackers/noting.json'))['taken'] == 2
    quietly(Bucket.of(ADDRESS))
    with pytest.raises(UserError, match='in use by another process'):
        track.main([ADDRESS, '--to', 'noting'])


def test_a_sweep_lies_in_a_bucket_with_its_runs_and_goes_on_elsewhere(store, monkeypatch, tmp_path):
    trained = []

    def go(launcher):
        for run in launcher.waiting:
            trained.append(run.name)
            run.workdir.mkdir()
            run_folder(run.workdir, 4)
            (run.workdir / 'config.json').write_text(configs.to_json(run.config))
            (run.workdir / 'run.json').write_text(json.dumps({'status': 'finished'}))
            run.log.write_text('done')
        return 0

    monkeypatch.setattr(launch_local.Local, 'go', go)
    command = ['--config', 'tests/launch/tiny_sweep.py', '--workdir', 'gs://lab/sweep']
    assert sweep.main(command) == 0
    files = Bucket.of('gs://lab/sweep').files()
    for name in trained:
        assert {f'{name}/run.json', f'{name}/checkpoints/4/{uploads.MARK}', f'.launch/{name}.log'} <= files.keys()
    assert 'sweep.json' in files and len(trained) > 1 and not [name for name in files if name.endswith('.lock')]
    monkeypatch.setenv(at_hand.VARIABLE, str(tmp_path / 'elsewhere'))
    count = len(trained)
    assert sweep.main(command) == 0 and len(trained) == count  # there all are finished
    with pytest.raises(UserError, match='a sweep in a bucket is run by one machine'):
        sweep.main([*command, '--on', 'slurm'])


def test_the_doctor_tries_a_bucket_and_leaves_nothing(store):
    copies = []
    (verdict,) = doctor_buckets.workdir(ADDRESS, copies)
    assert (
        verdict[0] == doctor_buckets.OK
        and 'has 0 files' in verdict[1]
        and copies == []
        and Bucket.of(ADDRESS).files() == {}
    )
    with opened() as place:
        run_folder(place, 4)
    quietly(Bucket.of(ADDRESS))
    assert [verdict for verdict, _ in doctor_buckets.workdir(ADDRESS, copies)] == [
        doctor_buckets.OK,
        doctor_buckets.WARNING,
    ]
    assert (copies[0] / 'config.json').exists()


def test_the_doctor_finds_a_store_that_writes_over_what_is_there(store, monkeypatch):
    monkeypatch.setattr(Bucket, 'create', lambda self, name, data: self.write(name, data) or True)
    ((verdict, text),) = doctor_buckets.workdir(ADDRESS, [])
    assert verdict == doctor_buckets.WRONG and 'two processes could write one run' in text


def test_the_doctor_asks_for_data_and_fetches_none(store, tmp_path):
    for number in range(24):
        image = np.random.default_rng(number).integers(0, 256, (9, 10, 3), np.uint8)
        store.pipe_file(f'lab/pets/{"ab"[number % 2]}/{number}.png', cv2.imencode('.png', image)[1].tobytes())
    spec = {'name': 'image_folder', 'root': 'gs://lab/pets', 'cache': str(tmp_path / 'cache')}
    config = ConfigDict({'data': spec, 'minival': 0})
    ((verdict, text),) = doctor_buckets.data(config.data)
    assert verdict == doctor_buckets.OK and '24 files' in text and f'still to come to {tmp_path / "cache"}' in text
    asked, images = doctor_buckets.asking(config)
    assert asked.data.cache == '' and images is None and not (tmp_path / 'cache').exists()
    config.data.name = 'mnist'
    assert doctor_buckets.asking(config) == (None, None)
    data_mirror.mirrored('gs://lab/pets', str(tmp_path / 'cache'))
    assert doctor_buckets.asking(config)[0].data.cache  # nothing is to be fetched any more
