"""A folder of a bucket, copied to this machine.

A file lies under its name only when it is whole: it is written elsewhere, its size and (if the bucket tells it) its MD5
compared, and renamed. A copy that was interrupted goes on where it was, also within a file, and the processes of one
machine share it. What has changed in the bucket is fetched anew, what is gone there is removed here.
"""

import collections
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import UserError, reason

THREADS, PIECE = 16, 1 << 24  # requests at once; bytes of each
TRIES, PAUSE_SECONDS = 6, 0.5  # of a file; before the second, twice as long before each further one
ROOM = 1 << 28  # bytes that a disk is to have left
INDEX = 'index.jsonl'


def mirrored(
    bucket: Bucket, place: Path, setting: str, chosen: Callable[[dict], dict] = dict, quiet: bool = False
) -> Path:
    """Returns the folder of this machine that holds what is in a bucket, after fetching what is missing.

    Args:
      bucket: the folder there.
      place: for all mirrors.
      setting: names `place` for a user: 'config.data.cache'.
      chosen: returns the files that are to be fetched of those that are there, {name: {'size', 'tag'}}.
      quiet: show no progress.

    Raises:
      UserError: no such bucket or no right to it, the disk is too small, or files could not be fetched (the same
        command goes on).
    """
    folder, state = _places(bucket, place)
    try:
        for directory in (folder, state):
            directory.mkdir(parents=True, exist_ok=True)
        lock = open(state / 'lock', 'a', encoding='utf-8')
    except OSError as error:
        raise UserError(f'{setting}: {folder} cannot be written ({error.strerror}); choose another') from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of this machine may be at it: then all is there afterwards
        Mirror(bucket, folder, state, setting, chosen, quiet).update()
    return folder


def missing(bucket: Bucket, place: Path) -> int:
    """Returns how many bytes of a bucket's folder `mirrored` would fetch; nothing is written."""
    there = Mirror(bucket, *_places(bucket, place), '', dict, quiet=True)
    return sum(info['size'] for name, info in bucket.listing().items() if not there.has(name, info))


def _places(bucket: Bucket, place: Path) -> tuple[Path, Path]:
    """Returns the folder of the copy, and one for its state: apart, for a reader would count it as left out."""
    state = place / '.mirror' / hashlib.sha256(bucket.address.encode()).hexdigest()[:16]
    return place / bucket.scheme / bucket.path, state


class Mirror:
    """A folder that is made to hold what is below an address."""

    def __init__(
        self, bucket: Bucket, folder: Path, state: Path, setting: str, chosen: Callable[[dict], dict], quiet: bool
    ):
        self._bucket, self._address, self._folder, self._state = bucket, bucket.address, folder, state
        self._setting, self._chosen, self._quiet = setting, chosen, quiet
        self._here = self._index()

    def update(self) -> None:
        """Fetches what is missing or changed, removes what is gone; raises as `mirrored`."""
        listing = self._bucket.listing()
        for name in self._here.keys() - listing.keys():
            (self._folder / name).unlink(missing_ok=True)
            del self._here[name]
        chosen = self._chosen(listing)
        wanted = {name: info for name, info in chosen.items() if not self.has(name, info)}
        size = sum(info['size'] for info in wanted.values())
        free = shutil.disk_usage(self._folder).free - ROOM
        if size > free:
            raise UserError(
                f'{self._address} needs {size / 2**30:.1f} GiB more in {self._folder}, which has '
                f'{max(free, 0) / 2**30:.1f} GiB; set {self._setting} to a larger disk'
            )
        if wanted:
            self._fetch_all(wanted, size)
        for part in self._state.glob('*.part'):  # begun, of a content that has changed since
            part.unlink()
        # Written anew: the lines that were appended while fetching hold old entries too.
        lines = ''.join(json.dumps([name, info]) + '\n' for name, info in self._here.items())
        temporary = self._state / f'{INDEX}.tmp'
        temporary.write_text(lines, encoding='utf-8')
        os.replace(temporary, self._state / INDEX)

    def has(self, name: str, info: dict) -> bool:
        """Whether a file is here as the bucket has it."""
        file = self._folder / name
        return self._here.get(name) == info and file.is_file() and file.stat().st_size == info['size']

    def _fetch_all(self, wanted: dict[str, dict], size: int) -> None:
        bar = tqdm(total=size, unit='B', unit_scale=True, desc=self._address, leave=False, disable=self._quiet or None)
        pool, ahead = ThreadPoolExecutor(THREADS, 'mirror'), max(1, THREADS // len(wanted))
        with open(self._state / INDEX, 'a', encoding='utf-8') as index, bar:
            tasks = {pool.submit(self._fetch, name, info, ahead): name for name, info in wanted.items()}
            try:
                for task in as_completed(tasks):
                    name = tasks[task]
                    task.result()
                    self._here[name] = wanted[name]
                    index.write(json.dumps([name, wanted[name]]) + '\n')
                    bar.update(wanted[name]['size'])
            except Exception as error:
                missing = sum(self._here.get(name) != info for name, info in wanted.items())
                raise UserError(
                    f'{missing:,} files of {self._address} are still missing: {name!r} could not be fetched '
                    f'({reason(error)}); the same command goes on from here'
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)

    def _fetch(self, name: str, info: dict, ahead: int) -> None:
        """Fetches one file, by so many requests at once; a connection that breaks, or other bytes, are tried again."""
        file, pause, seen = self._folder / name, PAUSE_SECONDS, set()
        file.parent.mkdir(parents=True, exist_ok=True)
        of = hashlib.sha256(json.dumps([name, info]).encode()).hexdigest()[:16]
        part = self._state / f'{of}.part'  # of this content: what is in it already is the file's beginning
        for tries in range(1, TRIES + 1):
            try:
                self._fetch_rest(name, info['size'], part, ahead)
                _check(part, info, seen)
                os.replace(part, file)
                return
            except Exception as error:
                if tries == TRIES or isinstance(error, FileNotFoundError | PermissionError):
                    raise
            time.sleep(pause)
            pause *= 2

    def _fetch_rest(self, name: str, size: int, part: Path, ahead: int) -> None:
        def piece(start: int) -> bytes:
            return self._bucket.read(name, start, min(start + PIECE, size), tries=1)  # `_fetch` tries again

        with open(part, 'ab') as file:
            starts = range(file.tell(), size, PIECE)
            if ahead == 1 or len(starts) == 1:
                file.writelines(map(piece, starts))
                return
            with ThreadPoolExecutor(ahead, 'pieces') as pool:  # in their order, so that what is there is a beginning
                waiting: collections.deque = collections.deque()
                for start in starts:
                    waiting.append(pool.submit(piece, start))
                    if len(waiting) == ahead:
                        file.write(waiting.popleft().result())
                for task in waiting:
                    file.write(task.result())

    def _index(self) -> dict[str, dict]:
        """Returns what was fetched so far; a last line that is half written is left out."""
        known, file = {}, self._state / INDEX
        for line in file.read_text(encoding='utf-8').splitlines() if file.exists() else ():
            try:
                name, info = json.loads(line)
            except json.JSONDecodeError:
                continue
            known[name] = info
        return known


def _check(file: Path, info: dict, seen: set[str]) -> None:
    """Raises OSError if a file's MD5 is not what the bucket says, and removes it.

    Of S3 the mark of an object is its MD5, unless it came in parts ('...-12') or is encrypted by a key of KMS. The
    latter looks like an MD5: so bytes that come twice alike, which `seen` tells, are taken.
    """
    if not re.fullmatch(r'[0-9a-f]{32}', info['tag']):
        return
    with open(file, 'rb') as data:
        digest = hashlib.file_digest(data, 'md5').hexdigest()
    if digest != info['tag'] and digest not in seen:
        seen.add(digest)
        file.unlink()
        raise OSError(f'its MD5 is {digest}, and the bucket says {info["tag"]}')
