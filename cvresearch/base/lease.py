"""A lock in a bucket: one process at a time has a run, and one that died loses it.

FOLDER/lock/N is the N-th process that had it. To take it is to create the next number, which of two processes one alone
can do; the highest number has it. While it works its process writes its object anew every few seconds. A process that
comes looks on: where the object changes, it is in use; where it does not for as long as a lease lasts, its process is
dead. So no two clocks are compared. On one machine nobody need wait, since the kernel knows: see `Lease.take`.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import RunError, UserError

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
FOLDER = 'lock'


class LostError(RunError):
    """Another process has taken the run."""


class Lease(threading.Thread):
    """The right to write a folder of a bucket, kept alive by a thread.

    Attributes:
      before: the identity of the process that had it before, '' where there was none.
      id: of this one.
    """

    def __init__(self, bucket: Bucket, number: int, entry: dict, before: str, lost: Callable[[], None]):
        super().__init__(name='lease', daemon=True)
        self._bucket, self._number, self._said, self._tell = bucket, number, entry, lost
        self.before, self.id = before, entry['id']
        self._over, self._turn, self._gone = threading.Event(), threading.Lock(), False
        self._alive = time.monotonic()

    @classmethod
    def take(cls, bucket: Bucket, lock: Path, lost: Callable[[], None] = lambda: None) -> 'Lease':
        """Takes the lock; waits for `LEASE_SECONDS` at most where a process had it that may be dead.

        Args:
          bucket: the folder.
          lock: a file of this machine that the caller has locked. A process that had the lease and held the same file
            is dead, or the caller would not hold it.
          lost: is called, in a thread, when another process has taken the lease.

        Raises:
          UserError: another process has it.
        """
        here = [_kernel(), os.stat(lock).st_dev, os.stat(lock).st_ino]
        entry = {'host': socket.gethostname(), 'pid': os.getpid(), 'id': uuid.uuid4().hex, 'lock': here, 'beat': 0}
        numbers = _numbers(bucket)
        before = _read(bucket, numbers[-1]) if numbers else {}
        if before and not before.get('released') and before.get('lock') != here:
            _watch(bucket, numbers[-1], before)
        number = numbers[-1] + 1 if numbers else 1
        if not bucket.create(f'{FOLDER}/{number}', _text(entry)) or _numbers(bucket)[-1] != number:
            raise UserError(f'workdir {bucket.address} was taken by another process just now; choose another --workdir')
        bucket.remove(f'{FOLDER}/{older}' for older in numbers)
        lease = cls(bucket, number, entry, before.get('id', ''), lost)
        lease.start()
        return lease

    def run(self) -> None:
        """Goes on until it is given back or lost."""
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._beat()
            except LostError:
                return
            except Exception:  # the network; whoever wants to write asks `check`
                continue

    def check(self) -> None:
        """Returns if this process may write.

        Raises:
          LostError: another process has taken the lease.
          Exception: of the server, where that cannot be known now.
        """
        if self._gone:
            raise self._lost()
        if time.monotonic() - self._alive > LEASE_SECONDS / 2:
            self._beat()

    def release(self) -> None:
        """Gives it back, if it is still there to be given; errors of the server are raised."""
        self._over.set()
        with self._turn:
            if not self._gone:
                self._bucket.write(f'{FOLDER}/{self._number}', _text(self._said | {'released': True}))

    def drop(self) -> None:
        """Gives it back and leaves nothing in the bucket."""
        self._over.set()
        with self._turn:
            self._bucket.remove([f'{FOLDER}/{self._number}'])

    def _beat(self) -> None:
        with self._turn:
            if self._over.is_set():
                return
            now = time.monotonic()
            if (numbers := _numbers(self._bucket)) and numbers[-1] > self._number:
                self._gone = True
                self._tell()
                raise self._lost()
            self._said['beat'] += 1
            self._bucket.write(f'{FOLDER}/{self._number}', _text(self._said))
            self._alive = now

    def _lost(self) -> LostError:
        return LostError(
            f'workdir {self._bucket.address} was taken by another process while this one was not heard of; this one '
            'stops, and writes nothing more'
        )


def in_use(bucket: Bucket) -> bool:
    """Whether a process has the lease, or died less than a lease ago as far as one can see without waiting."""
    numbers = _numbers(bucket)
    return bool(numbers) and not _read(bucket, numbers[-1]).get('released')


def _watch(bucket: Bucket, number: int, before: dict) -> None:
    """Returns when a process has given no sign of life for as long as a lease lasts; raises UserError if it has."""
    until, who = time.monotonic() + LEASE_SECONDS, f'process {before.get("pid")} on {before.get("host")}'
    print(f'{bucket.address}: looking whether {who} is still alive (at most {LEASE_SECONDS:g} s)', flush=True)
    while time.monotonic() < until:
        time.sleep(min(BEAT_SECONDS / 4, max(until - time.monotonic(), 0.01)))
        now = _read(bucket, number)
        if now.get('released'):
            return
        if now != before:
            raise UserError(
                f'workdir {bucket.address} is in use by another process ({who}); wait for it or choose another '
                '--workdir'
            )


def _numbers(bucket: Bucket) -> list[int]:
    names = (name.rpartition('/')[2] for name in bucket.files(FOLDER))
    return sorted(int(name) for name in names if name.isdigit())


def _read(bucket: Bucket, number: int) -> dict:
    try:
        return dict(json.loads(bucket.read(f'{FOLDER}/{number}')))
    except (ValueError, TypeError):
        return {'damaged': True}
    except FileNotFoundError:
        return {'gone': True}  # another has taken it since: whoever creates the next number will see


def _text(entry: dict) -> bytes:
    return json.dumps(entry).encode()


def _kernel() -> str:
    """Returns what names this boot of this machine; for one that does not tell, something that is never the same."""
    file = Path('/proc/sys/kernel/random/boot_id')
    return file.read_text(encoding='utf-8').strip() if file.exists() else uuid.uuid4().hex
