"""Brings what a run writes on this machine to its bucket, beside training, so that the bucket always holds a whole run.

The promise of a run's folder is that no checkpoint is newer than the rows, snapshots and predictions that belong to it.
So a pass first looks which checkpoints are whole, then sends all other files, then snapshots, then those checkpoints,
and last deletes the ones that they replace. Each file is one object, written in one step. The files of a checkpoint
come before a mark; without it there is none.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cvresearch.base.buckets import Bucket, in_threads
from cvresearch.base.errors import reason
from cvresearch.base.lease import FOLDER, Lease, LostError

PASS_SECONDS = 5.0  # between two looks at the folder
MOST_SECONDS = 60.0  # between two tries where the bucket cannot be written
END_SECONDS = 300.0  # for which the end of a run is tried
MARK = 'whole.txt'  # of a checkpoint, in the bucket alone; Orbax's own mark is a file of it like any other
RUN = ('config.json',)  # a folder without it holds no run
# Folders that are whole or nothing, and what is not for others: locks, and what is being written or deleted.
_UNITS = re.compile(r'(?:.*/)?(?:checkpoints|snapshots)/\d+')
_OWN = re.compile(r'(.*/)?lock|.*\.(tmp|lock)|(.*/)?[^/]*(orbax-checkpoint-tmp|\.deleting).*')


@dataclasses.dataclass(frozen=True)
class Unit:
    """A checkpoint in the folder of a run: its name, 'checkpoints/120', and what tells it from another of that name."""

    name: str
    mark: tuple[int, int]


def unit_of(name: str) -> str:
    """Returns the checkpoint that a file belongs to, 'checkpoints/120', '' if to none."""
    match = _UNITS.match(name)
    return match[0] if match and name[match.end() : match.end() + 1] == '/' else ''


def whole(names) -> set[str]:
    """Returns the checkpoints among the files of a bucket's folder that are whole."""
    return {unit for name in names if (unit := unit_of(name)) and name == f'{unit}/{MARK}'}


def of_runs(files: dict[str, dict], records: bool = False) -> dict[str, dict]:
    """Returns the files of a bucket's folder that make the folders of runs on a disk.

    So no locks; checkpoints and snapshots that are whole, without their marks; with `records` none of these.
    """
    units = set() if records else whole(files)

    def is_of_run(name: str) -> bool:
        unit = unit_of(name)
        return f'/{FOLDER}/' not in f'/{name}' and (not unit or (unit in units and name != f'{unit}/{MARK}'))

    return {name: info for name, info in files.items() if is_of_run(name)}


class Uploads(threading.Thread):
    """Keeps a folder of a bucket as the folder of this machine is."""

    def __init__(
        self,
        folder: Path,
        bucket: Bucket,
        lease: Lease,
        held: Path,
        say: Callable[[str], None],
        fetched: bool,
        marks: tuple[str, ...] = RUN,
    ):
        """Begins; errors of the server are raised as they come.

        Args:
          folder: of this machine, which a run writes.
          bucket: what it is brought to.
          lease: the right to do so.
          held: a folder beside `folder` on the same disk, where a checkpoint stays while it is sent.
          say: is told in one line when the bucket cannot be written, and when it can be again.
          fetched: the folder has just been taken from the bucket.
          marks: names that come before all others, since they say what the folder is.
        """
        super().__init__(name='uploads', daemon=True)
        self._folder, self._bucket, self._lease, self._held, self._say = folder, bucket, lease, held, say
        self._marks = marks
        # Files as they were when they were sent, and checkpoints; of what the bucket holds in halves, no true mark.
        self._sent: dict[str, tuple] = {}
        self._units: dict[str, Unit] = {}
        self._compare(fetched)
        self._over, self.error = threading.Event(), ''
        self.start()

    def run(self) -> None:
        """Goes on until the end, or until another process has the run."""
        pause = PASS_SECONDS
        while not self._over.wait(pause):
            pause = PASS_SECONDS if self._tried() else min(2 * pause, MOST_SECONDS)

    def finish(self) -> None:
        """Brings the rest; tries for `END_SECONDS`. `error` is empty where all has come.

        Raises:
          LostError: another process has taken the run.
        """
        self._over.set()
        self.join()
        until, pause = time.monotonic() + END_SECONDS, 1.0
        while not self._tried():
            if time.monotonic() + pause > until:
                return
            time.sleep(pause)
            pause = min(2 * pause, MOST_SECONDS)

    def _tried(self) -> bool:
        try:
            self._bring()
        except LostError:
            if self._over.is_set():
                raise
            return False
        except Exception as error:  # the network, a quota, credentials: each scheme has its own
            if not self.error:
                self._say(
                    f'warning: {self._bucket.address} cannot be written ({reason(error)}); training goes on, what is '
                    f'missing there lies in {self._folder}, and it is tried again'
                )
            self.error = reason(error)
            return False
        if self.error:
            self._say(f'{self._bucket.address} can be written again, and has all up to now')
        self.error = ''
        return True

    def _bring(self) -> None:
        """Makes one pass."""
        self._lease.check()
        units = self._whole_units()  # before anything else is read: what belongs to them is in the files by now
        files = self._files()
        new = [name for name, state in files.items() if self._sent.get(name) != state]
        for first in (True, False):
            names = [name for name in new if (name.partition('/')[0] in self._marks) == first]
            in_threads(lambda name: self._send(name, files[name]), names)
        for unit in units:
            if self._units.get(unit.name) != unit:
                self._send_unit(unit)
        self._drop_replaced(units)

    def _send(self, name: str, state: tuple) -> None:
        try:
            data = (self._folder / name).read_bytes()  # at once: the run may go on writing it
        except FileNotFoundError:
            return
        self._lease.check()
        self._bucket.write(name, data)
        self._sent[name] = state  # as it was before it was read: what came since is sent again

    def _send_unit(self, unit: Unit) -> None:
        """Sends a checkpoint, from links to its files: the run may delete it meanwhile."""
        shutil.rmtree(self._held, ignore_errors=True)
        try:
            shutil.copytree(self._folder / unit.name, self._held, copy_function=os.link)
        except (shutil.Error, FileNotFoundError):  # deleted just now
            return
        there = self._bucket.files(unit.name)
        if f'{unit.name}/{MARK}' in there:  # another one of this name
            self._bucket.remove([f'{unit.name}/{MARK}'])
        files = [file for file in self._held.rglob('*') if file.is_file()]
        sizes = {f'{unit.name}/{file.relative_to(self._held)}': file.stat().st_size for file in files}

        def send(name: str) -> None:
            self._lease.check()
            self._bucket.send(name, self._held / name.removeprefix(f'{unit.name}/'))

        in_threads(send, sizes)
        self._bucket.remove(there.keys() - sizes.keys())
        come = {name: info['size'] for name, info in self._bucket.files(unit.name).items()}
        if strange := sorted(come.items() ^ sizes.items()):
            name = strange[0][0]
            raise OSError(f'{name} has {come.get(name)} bytes there, and has {sizes.get(name)} here')
        self._lease.check()
        self._bucket.write(f'{unit.name}/{MARK}', f'{len(sizes)} files'.encode())
        self._units[unit.name] = unit
        shutil.rmtree(self._held, ignore_errors=True)

    def _drop_replaced(self, units: list[Unit]) -> None:
        """Deletes checkpoints that the run has deleted, where another one of their folder has come."""
        here = {unit.name for unit in units}
        come = {unit.name.rpartition('/')[0] for unit in units if self._units.get(unit.name) == unit}
        for name in [name for name in self._units if name not in here and name.rpartition('/')[0] in come]:
            self._lease.check()
            names = self._bucket.files(name)
            self._bucket.remove(sorted(names, key=lambda file: not file.endswith(MARK)))
            del self._units[name]

    def _compare(self, fetched: bool) -> None:
        """Finds out what the bucket holds already as it is here, and which checkpoints it holds at all."""
        there = self._bucket.files()

        def same(name: str) -> bool:
            file, info = self._folder / name, there.get(name)
            if fetched or info is None or info['size'] != file.stat().st_size:
                return fetched
            # What came in parts has no MD5.
            return '-' in info['tag'] or info['tag'] == hashlib.md5(file.read_bytes()).hexdigest()

        self._sent = {name: state for name, state in self._files().items() if same(name)}
        self._units = {unit: Unit(unit, (0, 0)) for name in there if (unit := unit_of(name))}
        for unit in self._whole_units():
            inside = [file for file in (self._folder / unit.name).rglob('*') if file.is_file()]
            names = [str(file.relative_to(self._folder)) for file in inside]
            if f'{unit.name}/{MARK}' in there and all(map(same, names)):
                self._units[unit.name] = unit

    def _whole_units(self) -> list[Unit]:
        """Returns the checkpoints of this machine in the order in which they are to come.

        Snapshots first, for no checkpoint may be newer than a missing one; looked for last, for they are written first.
        Then the newest checkpoint, which counts most.
        """
        units = []
        for folder in (folder for kind in ('checkpoints', 'snapshots') for folder in self._folder.rglob(f'{kind}/*')):
            name = str(folder.relative_to(self._folder))
            with contextlib.suppress(FileNotFoundError):
                if folder.name.isdigit() and folder.is_dir():
                    state = folder.stat()
                    units.append(Unit(name, (state.st_ino, state.st_mtime_ns)))
        return sorted(units, key=lambda unit: ('checkpoints/' in unit.name, -int(unit.name.rpartition('/')[2])))

    def _files(self) -> dict[str, tuple]:
        """Returns the files that belong to no checkpoint, with what tells one content of them from another."""
        files = {}
        for folder, inner, names in os.walk(self._folder):
            place = Path(folder).relative_to(self._folder)
            inner[:] = [name for name in inner if not _OWN.fullmatch(name) and not _UNITS.fullmatch(str(place / name))]
            for name in names:
                file = str(place / name)
                with contextlib.suppress(FileNotFoundError):
                    if not _OWN.fullmatch(file):
                        state = (self._folder / file).stat()
                        files[file] = (state.st_ino, state.st_size, state.st_mtime_ns)
        return files


def told(line: str) -> None:
    """Prints a line of this thread; where a progress bar stands, below it."""
    print(line, file=sys.stderr, flush=True)
