"""Runs in buckets: a folder of this machine stands for the one in the bucket while a program works with it.

The run itself knows of no buckets: it writes its folder as ever, with the kernel's locks, renames and appends, and at
the disk's speed. Beside it a thread brings the folder to the bucket (uploads.py), and a lease in the bucket keeps other
processes out (lease.py). What counts is the bucket: a program that begins takes its folder from there, unless this very
machine had the run last and its folder is still here.

The folders lie in `CVRESEARCH_STAGING`, or in the user's cache folder. Whoever only reads gets a mirror (at_hand.py).
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from cvresearch.base import hosts, lease, mirror, uploads
from cvresearch.base.at_hand import VARIABLE, read, root
from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import RunError, UserError, reason
from cvresearch.base.paths import is_bucket
from cvresearch.base.preemption import Preemption

QUIETLY = 1 << 24  # bytes that are fetched without a progress bar


@contextlib.contextmanager
def opened(workdir: str | Path, extend: bool = False, marks: tuple[str, ...] = uploads.RUN) -> Iterator[str | Path]:
    """Gives the folder of this machine that a run, or a sweep, is to write for the length of the block.

    For a folder of this machine that is the one, and nothing more is done. For one in a bucket its files are here when
    the block begins, and all that is written has come there when it ends.

    Args:
      workdir: as typed.
      extend: a finished run is to be trained on.
      marks: names; a folder that is not empty must have one.

    Raises:
      UserError: no such bucket or no right to it, another process has the run, the folder holds something else.
      RunError: what the run left could not be brought to the bucket, or another process has taken the run.
    """
    if not is_bucket(workdir):
        yield workdir
        return
    bucket = Bucket.of(str(workdir), 'workdir')
    if not hosts.is_primary():  # of several hosts the first alone has to do with the folder
        place = root() / f'host{jax.process_index()}' / bucket.scheme / bucket.path
        place.mkdir(parents=True, exist_ok=True)
        yield place
        return
    if not extend and _is_finished(bucket):
        yield read(bucket.address, records=True)
        return
    with _staged(bucket, marks) as place:
        yield place


def _is_finished(bucket: Bucket) -> bool:
    try:
        return json.loads(bucket.read('run.json'))['status'] == 'finished'
    except FileNotFoundError:
        return False
    except Exception as error:
        raise _cannot(bucket, error) from error


@contextlib.contextmanager
def _staged(bucket: Bucket, marks: tuple[str, ...]) -> Iterator[Path]:
    place, state = root() / bucket.scheme / bucket.path, root() / '.state' / _digest(bucket.address)
    with contextlib.ExitStack() as closing:
        right = _claimed(bucket, place, state, closing)
        try:
            if not (current := _is_current(right, place, state, marks)):
                _fetch(bucket, place, state, marks)
            (state / 'holder.json').write_text(json.dumps({'id': right.id}), encoding='utf-8')
            sending = uploads.Uploads(place, bucket, right, state / 'held', uploads.told, not current, marks)
        except BaseException as error:
            _given_back(right, is_run=True)
            if isinstance(error, Exception) and not isinstance(error, UserError):
                raise _cannot(bucket, error) from error
            raise
        try:
            yield place
        except BaseException:
            _ended(bucket, place, right, sending, marks, failed=True)
            raise
        _ended(bucket, place, right, sending, marks, failed=False)


def _claimed(bucket: Bucket, place: Path, state: Path, closing: contextlib.ExitStack) -> lease.Lease:
    """Takes a run's folder, first on this machine, then in the bucket."""
    try:
        for folder in (place, state):
            folder.mkdir(parents=True, exist_ok=True)
        lock = closing.enter_context(open(state / 'lock', 'a', encoding='utf-8'))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f'workdir {bucket.address} is in use by another process of this machine; wait for it or choose another '
            '--workdir'
        ) from None
    except OSError as error:
        raise UserError(
            f'{VARIABLE}: {place} cannot be written ({error.strerror or error}); choose another folder of this machine'
        ) from error
    try:
        return lease.Lease.take(bucket, state / 'lock', _stop)
    except UserError:
        raise
    except Exception as error:  # each scheme has its own
        raise _cannot(bucket, error) from error


def _is_current(right: lease.Lease, place: Path, state: Path, marks: tuple[str, ...]) -> bool:
    """Whether the folder of this machine is at least as new as the bucket: it was written by the last that had it."""
    if not right.before or not _is_marked(place, marks):
        return False
    try:
        return json.loads((state / 'holder.json').read_text(encoding='utf-8'))['id'] == right.before
    except (OSError, ValueError, KeyError):
        return False


def _is_marked(place: Path, marks: tuple[str, ...]) -> bool:
    return any((place / name).exists() for name in marks)


def _fetch(bucket: Bucket, place: Path, state: Path, marks: tuple[str, ...]) -> None:
    """Makes the folder what the bucket holds, but for checkpoints that are not whole there."""
    (state / 'holder.json').unlink(missing_ok=True)
    shutil.rmtree(place)
    place.mkdir()
    files = uploads.of_runs(bucket.files())
    strange = sorted({name.partition('/')[0] for name in files})
    if strange and not {*marks} & {*strange}:
        what = 'run' if marks == uploads.RUN else 'sweep'
        raise UserError(
            f'workdir {bucket.address} is not empty and holds no {what} (it has {", ".join(strange[:5])}); choose '
            'another --workdir'
        )
    if strange:
        index = state / 'fetched'
        shutil.rmtree(index, ignore_errors=True)
        index.mkdir()
        size = sum(info['size'] for info in files.values())
        mirror.Mirror(bucket, place, index, VARIABLE, uploads.of_runs, size < QUIETLY).update()


def _ended(
    bucket: Bucket,
    place: Path,
    right: lease.Lease,
    sending: uploads.Uploads,
    marks: tuple[str, ...],
    failed: bool,
) -> None:
    """Brings the rest, and gives the run back."""
    try:
        with Preemption():  # a signal does not end it, but for a second Ctrl-C
            sending.finish()
    except lease.LostError as error:
        shutil.rmtree(place, ignore_errors=True)
        if not failed:
            raise
        print(f'error: {error}', file=sys.stderr)
        return
    _given_back(right, is_run=_is_marked(place, marks))
    if not sending.error:
        shutil.rmtree(place, ignore_errors=True)  # the disks of such machines are small
        print(f'{bucket.address} has all of it', flush=True)
        return
    text = (
        f'{bucket.address} could not be written ({sending.error}): what is missing there lies in {place}; the same '
        'command on this machine brings it'
    )
    if not failed:
        raise RunError(text)
    print(f'error: {text}', file=sys.stderr)


def _given_back(right: lease.Lease, is_run: bool) -> None:
    with contextlib.suppress(Exception):  # it ends by itself
        right.release() if is_run else right.drop()


def _stop() -> None:
    """Asks the run to stop, as the cloud does: another process has it."""
    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN, None):
        os.kill(os.getpid(), signal.SIGTERM)


def _cannot(bucket: Bucket, error: Exception) -> UserError:
    return UserError(
        f'workdir {bucket.address} cannot be used ({reason(error)}); check its name, and that this machine has the '
        'right to read and write it'
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
