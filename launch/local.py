"""Runs of a sweep as processes of this machine, its devices divided between them.

A run is going on as long as its lock is held. The lock belongs to the run's own process, which
inherits it: a launcher that dies leaves its runs going and locked, and the next launcher waits for
them in place of starting them again. The kernel drops the lock when the run dies, however it dies.
"""

import collections
import dataclasses
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

from cvresearch.base.errors import FAILED, PREEMPTED
from cvresearch.base.preemption import Preemption
from launch import devices
from launch.plan import SweepRun
from launch.progress import Board

ATTEMPTS = 3  # of one run in one launch, where it dies without a word
POLL_SECONDS = 0.1


@dataclasses.dataclass
class Child:
    """A run that is going on: started here, or left by a launcher that died (no process of ours)."""

    run: SweepRun
    slot: int
    process: subprocess.Popen | None


def spawn(run: SweepRun, slot: int, share: tuple) -> Child | None:
    """Starts a run; None where another process has it."""
    lock = open(run.lock, 'a+', encoding='utf-8')
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        lock.truncate(0)
        lock.write(json.dumps({'host': socket.gethostname(), 'launcher': os.getpid(), 'slot': slot}))
        lock.flush()
        environment, first = share
        with open(run.log, 'a', encoding='utf-8') as log:
            process = subprocess.Popen(
                run.command(),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | environment,
                pass_fds=(lock.fileno(),),
                preexec_fn=first,
                start_new_session=True,
            )
    return Child(run, slot, process)


def orphan(run: SweepRun) -> Child | None:
    """Returns a run that a launcher of this machine left behind when it died, if it still goes on."""
    if run.state() != 'running' or not run.lock.exists():
        return None
    try:
        note = json.loads(run.lock.read_text(encoding='utf-8'))
        os.kill(note['launcher'], 0)
    except ProcessLookupError:
        return Child(run, note['slot'], None) if note['host'] == socket.gethostname() else None
    except (PermissionError, json.JSONDecodeError, KeyError):
        return None
    return None


class Local:
    """Brings runs to their end, `jobs` at a time."""

    def __init__(self, runs: Sequence[SweepRun], jobs: int):
        self.board = Board(runs)
        self.shares = devices.shares(jobs)
        self.waiting = collections.deque(run for run in runs if run.state() != 'finished')
        self.children: list[Child] = []
        self.attempts: collections.Counter = collections.Counter()

    def go(self) -> int:
        """Returns the exit code: 0 all finished, 1 some failed, 75 stopped by a signal."""
        for run in list(self.waiting):
            if child := orphan(run):
                self.waiting.remove(run)
                self.children.append(child)
                self.board.say(f'{run.name} is going on already')
        with Preemption() as preemption:
            while self.waiting or self.children:
                if preemption.requested:
                    return self._stop()
                self._start()
                time.sleep(POLL_SECONDS)
                self._collect()
                self.board.tell()
        self.board.end()
        return FAILED if self.board.failed else 0

    def _start(self) -> None:
        taken = {child.slot for child in self.children}
        free = [slot for slot in range(len(self.shares)) if slot not in taken]
        # As many as there are places, but each run asked once: what another launcher has is asked again later.
        for _ in range(len(self.waiting)):
            if not free or len(self.children) >= len(self.shares):
                return
            run = self.waiting.popleft()
            if run.state() == 'finished':  # by another launcher, meanwhile
                self.board.finished(run)
            elif child := spawn(run, free[0], self.shares[free[0]]):
                self.children.append(child)
                free.pop(0)
            else:
                self.waiting.append(run)

    def _collect(self) -> None:
        for child in list(self.children):
            code = child.process.poll() if child.process else None
            if code is None and (child.process or child.run.state() == 'running'):
                continue
            self.children.remove(child)
            if child.run.state() == 'finished':
                self.board.finished(child.run)
            elif child.run.state() == 'running':  # someone trains it by hand
                self.waiting.append(child.run)
            elif self._mend(child.run, code):
                self.waiting.appendleft(child.run)
            else:
                self.board.failure(child.run)

    def _mend(self, run: SweepRun, code: int | None) -> bool:
        """Whether a run that ended unfinished is started again: it was killed or asked to stop."""
        self.attempts[run.name] += 1
        killed = code == PREEMPTED or (code or 0) < 0 or (code is None and run.state() != 'failed')
        if killed and self.attempts[run.name] < ATTEMPTS:
            self.board.say(f'{run.name} was interrupted and is continued')
            return True
        return False

    def _stop(self) -> int:
        """Hands the signal on; the runs save and end."""
        self.board.say('stopping: the runs save their state')
        for child in self.children:
            if child.process:
                child.process.send_signal(signal.SIGTERM)
        for child in self.children:
            if child.process:
                child.process.wait()
        return PREEMPTED
