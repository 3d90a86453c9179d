"""Runs in buckets: what is where when, who may write, and what is said; a bucket in memory stands for the server's."""

import json
import threading
import time
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cvresearch.base import at_hand, buckets, lease, mirror, staging, uploads
from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import RunError, UserError
from cvresearch.base.lease import Lease, LostError
from cvresearch.base.paths import local
from cvresearch.report import tables as report_tables

ADDRESS = 'gs://lab/runs/a'


class Store(MemoryFileSystem):
    """A bucket of this process, which tells what was written and deleted, in order, and can be down."""

    cachable = False

    def __init__(self):
        super().__init__()
        self.store, self.pseudo_dirs = {}, ['']
        self.done, self.down = [], ''

    def _asked(self, path='', what=''):
        if self.down and self.down in f'{what} {path}':
            raise ConnectionResetError('by peer')
        if what:
            self.done.append(f'{what} {path.rpartition("runs/a/")[2]}')

    def find(self, path, **options):
        self._asked()
        return {key.lstrip('/'): info for key, info in super().find(path, detail=True).items()}

    def pipe_file(self, path, value, mode='overwrite', **options):
        self._asked(path, 'write')
        super().pipe_file(path, value, mode=mode)

    def put_file(self, here, path, **options):
        with open(here, 'rb') as file:
            self.pipe_file(path, file.read())

    def rm_file(self, path):
        self._asked(path, 'delete')
        super().rm_file(path)

    def cat_file(self, path, **options):
        self._asked(path)
        return super().cat_file(path, **options)


@pytest.fixture
def store(monkeypatch, tmp_path):
    made = Store()
    monkeypatch.setattr(buckets, 'filesystem', lambda scheme: made)
    monkeypatch.setenv(at_hand.VARIABLE, str(tmp_path / 'staging'))
    for module, name, value in (
        (buckets, 'PAUSE_SECONDS', 0.001), (lease, 'BEAT_SECONDS', 0.05), (lease, 'LEASE_SECONDS', 0.4),
        (uploads, 'PASS_SECONDS', 3600), (uploads, 'END_SECONDS', 0.0),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    return made


def lock_file(tmp_path, name='lock'):
    (tmp_path / name).touch()
    return tmp_path / name


def quietly(bucket):
    """Takes the lease for a process that dies at once: nothing beats."""
    taken = Lease.take(bucket, __file__)
    taken._over.set()
    taken.join()
    return taken


def run_folder(place, step, rows=1):
    """Writes what a run has at a step."""
    (place / 'config.json').write_text('{}')
    (place / 'metrics.jsonl').write_text('row\n' * rows)
    (place / f'checkpoints/{step}/state').mkdir(parents=True)
    (place / f'checkpoints/{step}/state/data').write_text(f'of {step}')
    for name in ('_CHECKPOINT_METADATA', 'commit_success.txt'):  # Orbax's own
        (place / f'checkpoints/{step}/{name}').write_text('x')


def test_a_second_process_is_refused_while_the_first_lives(store, tmp_path):
    bucket = Bucket.of(ADDRESS)
    first = Lease.take(bucket, lock_file(tmp_path))
    with pytest.raises(UserError, match=r'gs://lab/runs/a is in use by another process \(process \d+ on '):
        Lease.take(bucket, lock_file(tmp_path, 'other'))
    first.release()
    Lease.take(bucket, lock_file(tmp_path, 'other')).drop()
    assert bucket.files() == {}


def test_the_lock_of_a_dead_process_expires(store, tmp_path):
    bucket = Bucket.of(ADDRESS)
    dead, begun = quietly(bucket), time.monotonic()
    taken = Lease.take(bucket, lock_file(tmp_path))
    assert taken.before == dead.id and time.monotonic() - begun > 0.4
    taken.drop()


def test_on_one_machine_nobody_waits_for_the_dead(store, tmp_path, monkeypatch):
    bucket = Bucket.of(ADDRESS)
    quietly(bucket)
    monkeypatch.setattr(lease, '_watch', lambda *arguments: pytest.fail('it waits'))
    Lease.take(bucket, __file__).drop()


def test_of_two_that_take_it_at_once_one_has_it(store, tmp_path):
    bucket, found = Bucket.of(ADDRESS), []
    quietly(bucket)

    def take(name):
        try:
            found.append(Lease.take(bucket, lock_file(tmp_path, name)))
        except UserError as error:
            found.append(str(error))

    threads = [threading.Thread(target=take, args=(name,)) for name in 'ab']
    for each in (*threads,):
        each.start()
    for each in threads:
        each.join()
    assert sorted(type(each).__name__ for each in found) == ['Lease', 'str']
    next(each for each in found if isinstance(each, Lease)).drop()


def test_who_was_silent_too_long_writes_nothing_more(store, tmp_path):
    bucket, told = Bucket.of(ADDRESS), []
    silent = Lease.take(bucket, lock_file(tmp_path), lambda: told.append('lost'))
    store.down = 'lock'
    time.sleep(0.2)  # its beats do not come
    bucket.store.down = ''
    bucket.store.pipe_file('lab/runs/a/lock/2', b'{"id": "other"}')  # another one has taken it meanwhile
    silent.join(5)
    assert told == ['lost']
    with pytest.raises(LostError, match='was taken by another process'):
        silent.check()


def test_a_lease_that_was_not_renewed_in_time_is_asked_for_before_a_write(store, tmp_path):
    bucket = Bucket.of(ADDRESS)
    sleeping = quietly(bucket)  # as if the whole process had been stopped
    sleeping._over.clear()
    time.sleep(0.25)
    store.pipe_file('lab/runs/a/lock/2', b'{"id": "other"}')
    with pytest.raises(LostError):
        sleeping.check()


def opened(address=ADDRESS, extend=False):
    return staging.opened(address, extend)


def test_a_checkpoint_comes_after_its_rows_and_its_mark_is_last(store):
    with opened() as place:
        run_folder(place, 4)
    writes = [line for line in store.done if 'lock' not in line]
    assert writes[0] == 'write config.json' and writes[-1] == f'write checkpoints/4/{uploads.MARK}'
    assert writes.index('write checkpoints/4/commit_success.txt') < len(writes) - 1
    assert writes.index('write metrics.jsonl') < writes.index('write checkpoints/4/state/data')
    assert not place.exists()  # nothing stays on a small disk


def test_no_checkpoint_comes_before_a_snapshot_of_its_past(store):
    with opened() as place:
        run_folder(place, 6)
        for step in (2, 4):
            (place / f'snapshots/{step}').mkdir(parents=True)
            (place / f'snapshots/{step}/_CHECKPOINT_METADATA').write_text('x')
    marks = [line.split()[1] for line in store.done if line.endswith(uploads.MARK)]
    assert [mark.rpartition('/')[0] for mark in marks] == ['snapshots/4', 'snapshots/2', 'checkpoints/6']


def test_what_was_replaced_goes_when_the_new_one_is_whole(store):
    with opened() as place:
        run_folder(place, 4)
    with opened() as place:
        assert (place / 'checkpoints/4/state/data').read_text() == 'of 4'
        assert not (place / f'checkpoints/4/{uploads.MARK}').exists()  # Orbax's folder as it was
        (place / 'checkpoints/4').rename(place / 'checkpoints/4.deleting')
        run_folder(place, 6, rows=2)
        store.done.clear()
    order = [line for line in store.done if 'checkpoints' in line]
    assert order.index(f'write checkpoints/6/{uploads.MARK}') < order.index(f'delete checkpoints/4/{uploads.MARK}')
    assert order.index(f'delete checkpoints/4/{uploads.MARK}') < order.index('delete checkpoints/4/state/data')
    assert uploads.whole(Bucket.of(ADDRESS).files()) == {'checkpoints/6'}


def test_the_last_checkpoint_of_a_bucket_never_goes(store):
    with opened() as place:
        run_folder(place, 4)
    with opened() as place:
        mirror.shutil.rmtree(place / 'checkpoints')  # a cleaner of temporary files, or a mistake
    assert uploads.whole(Bucket.of(ADDRESS).files()) == {'checkpoints/4'}


def test_half_a_checkpoint_is_none(store):
    with opened() as place:
        run_folder(place, 4)
    Bucket.of(ADDRESS).write('checkpoints/6/state/data', b'half')
    with opened() as place:
        assert [folder.name for folder in (place / 'checkpoints').iterdir()] == ['4']


def test_what_a_run_is_writing_does_not_come(store):
    with opened() as place:
        run_folder(place, 4)
        for name in (
            'lock',
            'run.json.tmp',
            'checkpoints/6.orbax-checkpoint-tmp/state/data',
            'checkpoints/2.deleting/x',
        ):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text('x')
    assert {name.split('/')[0] for name in Bucket.of(ADDRESS).files()} == {
        'config.json', 'metrics.jsonl', 'checkpoints', 'lock'}  # fmt: skip
    assert not [name for name in Bucket.of(ADDRESS).files() if 'tmp' in name or 'deleting' in name]


def test_rows_that_a_run_appends_while_they_are_sent_are_sent_again(store, monkeypatch):
    monkeypatch.setattr(uploads, 'PASS_SECONDS', 0.02)
    with opened() as place:
        run_folder(place, 4)
        for number in range(20):
            with open(place / 'metrics.jsonl', 'a') as file:
                file.write(f'{number}\n')
            time.sleep(0.01)
    assert Bucket.of(ADDRESS).read('metrics.jsonl').endswith(b'\n18\n19\n')


def test_a_bucket_that_is_down_is_said_once_and_has_all_in_the_end(store, monkeypatch, capsys):
    monkeypatch.setattr(uploads, 'PASS_SECONDS', 0.02)
    monkeypatch.setattr(uploads, 'MOST_SECONDS', 0.02)
    with opened() as place:
        store.down = 'metrics'
        run_folder(place, 4)
        time.sleep(0.6)
        assert not uploads.whole(Bucket.of(ADDRESS).files())  # no checkpoint without its rows
        store.down = ''
    said = capsys.readouterr().err
    assert said.count('gs://lab/runs/a cannot be written (ConnectionResetError: by peer); training goes on') == 1
    assert said.count('can be written again') == 1 and uploads.whole(Bucket.of(ADDRESS).files()) == {'checkpoints/4'}


def test_what_could_not_be_brought_stays_here_and_comes_with_the_same_command(store):
    with (
        pytest.raises(RunError, match=r'could not be written .* the same command on this machine brings it'),
        opened() as place,
    ):
        store.down = 'checkpoints'
        run_folder(place, 4)
    assert (place / 'checkpoints/4').exists()
    store.down = ''
    with opened():
        pass
    assert uploads.whole(Bucket.of(ADDRESS).files()) == {'checkpoints/4'}


def test_another_machine_takes_what_the_bucket_holds(store, monkeypatch, tmp_path):
    with pytest.raises(RunError), opened() as place:
        run_folder(place, 4)
        store.down = 'checkpoints'
    store.down = ''
    monkeypatch.setenv(at_hand.VARIABLE, str(tmp_path / 'elsewhere'))
    with opened() as other:
        assert not (other / 'checkpoints').exists() and (other / 'config.json').exists()
        run_folder(other, 2)
    monkeypatch.setenv(at_hand.VARIABLE, str(tmp_path / 'staging'))
    with opened() as place:  # the first machine again: another one has had the run since
        assert [folder.name for folder in (place / 'checkpoints').iterdir()] == ['2']


def test_a_finished_run_is_read_and_not_taken(store):
    with opened() as place:
        run_folder(place, 4)
        (place / 'run.json').write_text(json.dumps({'status': 'finished'}))
    store.done.clear()
    with opened() as place:
        assert (place / 'run.json').exists() and not (place / 'checkpoints').exists()
    assert store.done == []
    with opened(extend=True) as place:
        assert (place / 'checkpoints/4/state/data').exists()


def test_a_folder_that_holds_no_run_is_refused_and_left_as_it_is(store):
    Bucket.of(ADDRESS).write('photos/cat.png', b'x')
    with pytest.raises(UserError, match=r'is not empty and holds no run \(it has photos\)'), opened():
        pass
    assert list(Bucket.of(ADDRESS).files()) in (['photos/cat.png'], ['lock/1', 'photos/cat.png'])


def test_a_folder_of_this_machine_is_given_as_it_is(tmp_path):
    with staging.opened(tmp_path / 'run') as place:
        assert place == tmp_path / 'run' and not place.exists()


@pytest.mark.parametrize('address', ['gs://lab/../x', 'gs://lab//x', 's3://./x'])
def test_addresses_that_lead_elsewhere_are_refused(address):
    with pytest.raises(UserError, match='expected gs://BUCKET/PATH, s3://BUCKET/PATH or az://CONTAINER/PATH'):
        Bucket.of(address)


@pytest.mark.parametrize(('scheme', 'package'), [('gs', 'gs'), ('s3', 's3'), ('az', 'az')])
def test_a_scheme_without_its_package_says_which_extra(scheme, package, monkeypatch):
    def absent(scheme, **options):
        raise ImportError('no such package')

    monkeypatch.setattr(fsspec, 'filesystem', absent)
    with pytest.raises(UserError, match=rf'pip install "cvresearch\[{package}\]"'):
        Bucket.of(f'{scheme}://lab/run')


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    asked = []

    def silent():
        asked.append(time.sleep(0.05))
        raise TimeoutError

    monkeypatch.setattr(buckets, 'PATIENCE_SECONDS', 0.12)
    monkeypatch.setattr(buckets, 'PAUSE_SECONDS', 0.0)
    with pytest.raises(TimeoutError):
        buckets.patiently(silent)
    assert 1 < len(asked) < buckets.TRIES


def test_a_scheme_that_has_no_credentials_says_so(monkeypatch):
    def without(scheme, **options):
        raise ValueError('unable to connect to account for Must provide either a connection_string or account_name')

    monkeypatch.setattr(fsspec, 'filesystem', without)
    with pytest.raises(UserError, match=r'az:// cannot be used \(ValueError: unable to connect .*package adlfs'):
        Bucket.of('az://lab/run')


def test_a_bucket_that_is_not_there_is_one_line(store, monkeypatch):
    def absent(*arguments, **options):
        raise FileNotFoundError('The specified bucket does not exist')

    monkeypatch.setattr(store, 'find', absent)
    with pytest.raises(UserError) as caught, opened():
        pass
    assert 'workdir gs://lab/runs/a cannot be used (FileNotFoundError: The specified bucket does not exist)' in str(
        caught.value
    )


def test_a_table_of_runs_in_a_bucket_is_that_of_their_folders(store, tmp_path, capsys):
    record = Path(__file__).parents[2] / 'docs/records/lenet5_mnist5k_seed0'
    for file in record.iterdir():
        store.pipe_file(f'lab/sweep/lenet5_mnist5k_seed0/{file.name}', file.read_bytes())
    store.pipe_file('lab/sweep/lenet5_mnist5k_seed0/checkpoints/4/state/data', b'large')
    printed = []
    for place in (str(record), 'gs://lab/sweep/*', 'gs://lab/sweep/lenet5_mnist5k_seed0'):
        assert report_tables.main([place]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2] and 'lenet5' in printed[0]
    assert not list((tmp_path / 'staging').rglob('large')) and not list((tmp_path / 'staging').rglob('checkpoints'))


def test_of_a_run_that_goes_on_whole_checkpoints_are_read(store):
    with opened() as place:
        run_folder(place, 4)
    Bucket.of(ADDRESS).write('checkpoints/6/state/data', b'half')
    assert [path.name for path in (at_hand.read(ADDRESS) / 'checkpoints').iterdir()] == ['4']
    with opened() as place:
        run_folder(place, 6)
        (place / 'checkpoints/4').rename(place / 'checkpoints/4.deleting')
    folder = at_hand.read(ADDRESS)
    assert (folder / 'checkpoints/6/state/data').read_text() == 'of 6'
    assert not (folder / 'checkpoints/4/state/data').exists() and not (folder / 'lock').exists()


@pytest.mark.parametrize('address', ['gs://lab/out', 'sftp://lab/out', 'abfs://lab/out', 'hdfs://lab/out'])
def test_what_reads_nothing_of_buckets_and_other_schemes_are_refused_by_name(address):
    with pytest.raises(UserError, match=f"--out is '{address}'; .* runs and data can lie in gs://, s3://, az://"):
        local(address, '--out')
