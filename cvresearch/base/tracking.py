"""Brings a run's records to a tracker, beside training: in a process of its own, from the files that the run writes.

So a tracker that is slow, down, or leaks costs training nothing, and nothing is lost: what it has not taken yet is in
metrics.jsonl, and the next session, or `cvresearch track`, sends it. How far it is stands in
WORKDIR/trackers/NAME.json, and what its package prints in NAME.log.
"""

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from cvresearch.base import config as configs
from cvresearch.base import plugins, trackers
from cvresearch.base.overrides import flatten
from cvresearch.base.paths import meant
from cvresearch.base.records import named, read_card
from cvresearch.base.workdir import write_atomically

POLL_SECONDS, MOST_SECONDS = 1.0, 60.0  # between looks; between tries of a tracker that fails
END_SECONDS = 20.0  # for a tracker to take the rest, once training is over: a machine that is to go has 30
BATCH = 500  # rows at once
NICENESS = 10


class Tracking:
    """The processes that bring a run's records to trackers while a session lasts."""

    def __init__(self, path: Path, names: Iterable[str]):
        """Starts them.

        Args:
          path: the workdir, with its config.json and metrics.jsonl.
          names: of the trackers.
        """
        root = str(Path(__file__).parents[2])  # for a program that was started elsewhere
        python_path = os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])])
        # The devices are the run's, whatever a plugin imports.
        environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': python_path}
        self._path = path
        # In a session of their own: Ctrl-C is for the run, whose end they wait for.
        self._processes = {
            name: subprocess.Popen(
                [sys.executable, '-m', 'cvresearch.base.tracking', str(path), name, str(END_SECONDS)],
                stdin=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            for name in dict.fromkeys(names)
        }

    def close(self) -> None:
        """Waits until they have sent the rest, or have had `END_SECONDS` for it."""
        for process in self._processes.values():
            if process.stdin:
                process.stdin.close()
        until = time.monotonic() + END_SECONDS + 2 * POLL_SECONDS
        for name, process in self._processes.items():
            try:
                code = process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if code:
                run = meant(self._path)
                print(
                    f'warning: the tracker {name} has not taken all of {run}; to send the rest: '
                    f'cvresearch track {run} --to {name}',
                    file=sys.stderr,
                )


def send(
    path: Path,
    name: str,
    training: Callable[[float], bool],
    say: Callable[[str], None],
    patience: float = END_SECONDS,
) -> bool:
    """Sends what a tracker has not taken yet of a run, until the run has ended; returns whether it took all.

    Args:
      path: the workdir.
      name: of the tracker.
      training: waits for at most so many seconds, and says whether the run may still write.
      say: is told in one line when the tracker fails first.
      patience: seconds to go on trying after that.

    Raises:
      UserError: no such tracker.
    """
    config = configs.from_json((path / 'config.json').read_text(encoding='utf-8'))
    plugins.load(config.get('plugins', ()), path)
    trackers.check([name])
    tracker, state = trackers.known()[name](), State(path, name)
    rows, reached, pause, more, until = [], False, POLL_SECONDS, True, 0.0
    fresh = _fresh(path / 'metrics.jsonl')
    while True:
        if more and not (more := training(pause)):
            until = time.monotonic() + patience
        rows += [row for row in next(fresh) if state.is_new(row)]
        try:
            if not reached:
                tracker.begin(_tracked(path, state, flatten(config)))
                reached = True
            while rows:
                tracker.write(rows[:BATCH])
                state.took(rows[:BATCH])
                del rows[:BATCH]
            if not more:
                tracker.end(read_card(path) or {})
                return True
            pause = POLL_SECONDS
        except Exception as error:  # whatever a tracker, its package or its network raises
            if pause == POLL_SECONDS:
                say(
                    f'the tracker {name} fails ({type(error).__name__}: {" ".join(str(error).split())[:300]}); '
                    'it is tried again, and training does not wait for it'
                )
            pause = min(2 * pause, MOST_SECONDS)
            if not more:
                if time.monotonic() > until - POLL_SECONDS:
                    return False
                time.sleep(POLL_SECONDS)


def state_file(path: Path, name: str) -> Path:
    """Returns the file that says how far a tracker is with a run."""
    return path / 'trackers' / f'{name}.json'


class State:
    """How far a tracker is with a run, in a file: a resumed run rewinds, and writes the same rows again."""

    def __init__(self, path: Path, name: str):
        self._file = state_file(path, name)
        known = json.loads(self._file.read_text(encoding='utf-8')) if self._file.exists() else {}
        self.id, self.taken = known.get('id') or uuid.uuid4().hex[:12], known.get('taken', 0)
        self._step, self._at_step = known.get('step', -1), known.get('at_step', [])
        self._write()  # the id first: a tracker must not begin a run twice

    def is_new(self, row: dict) -> bool:
        """Whether the tracker has not taken a row yet."""
        return row['step'] > self._step or (row['step'] == self._step and _name(row) not in self._at_step)

    def took(self, rows: list[dict]) -> None:
        """Notes that the tracker has taken rows."""
        for row in rows:
            at_step = self._at_step if row['step'] == self._step else []
            self._step, self._at_step = row['step'], [*at_step, _name(row)]
        self.taken += len(rows)
        self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        known = {'id': self.id, 'taken': self.taken, 'step': self._step, 'at_step': self._at_step}
        write_atomically(self._file, json.dumps(known) + '\n')


def _name(row: dict) -> str:
    return named(row['split'], row.get('weights', 'raw'))


def _fresh(file: Path) -> Iterator[list[dict]]:
    """Yields the rows of a file that grows, each whole line once."""
    offset = 0
    while True:
        rows = []
        if file.exists():
            with open(file, 'rb') as lines:
                lines.seek(offset)
                complete = lines.read().rpartition(b'\n')[0]
            offset += len(complete) + 1 if complete else 0
            rows = [json.loads(line) for line in complete.splitlines()]
        yield rows


def _tracked(path: Path, state: State, config: dict) -> trackers.Tracked:
    card = read_card(path) or {}
    tags = {key: str(card[key]) for key in ('model', 'data', 'seed', 'revision') if card.get(key) is not None}
    return trackers.Tracked(state.id, path.name, path, tags, config, state.taken)


@contextlib.contextmanager
def alone(path: Path, name: str) -> Iterator[TextIO]:
    """Waits until no other process sends this run to this tracker; yields the log of what its package prints."""
    folder = path / 'trackers'
    folder.mkdir(exist_ok=True)
    with open(folder / f'{name}.log', 'a', encoding='utf-8') as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        yield log


def main(path: str, name: str, seconds: str) -> None:
    """Is the process of one tracker: sends until its standard input is closed, as it is when the run's process ends."""
    patience = float(seconds)
    os.nice(NICENESS)
    screen = os.fdopen(os.dup(2), 'w')

    def say(line: str) -> None:
        print(f'warning: {line}', file=screen, flush=True)

    def training(pause: float) -> bool:
        ready, _, _ = select.select([0], [], [], pause)
        if not ready:
            return True
        threading.Timer(patience, os._exit, [1]).start()  # also where the tracker never answers
        return False

    with alone(Path(path), name) as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        try:
            done = send(Path(path), name, training, say, patience)
        except Exception as error:  # a file of its state that is damaged, a plugin that is gone
            say(f'the tracker {name} is given up: {type(error).__name__}: {" ".join(str(error).split())}')
            done = False
        sys.stderr.flush()
    os._exit(0 if done else 1)  # packages wait at exit for servers that do not answer


if __name__ == '__main__':
    main(*sys.argv[1:])
