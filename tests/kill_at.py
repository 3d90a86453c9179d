"""Runs the training program and sends it a signal at a chosen instant: python -m tests.kill_at KILL [main's flags].

KILL is a `Kill` as JSON. The signal comes from a thread, so also in the middle of compiled code, and is a real one:
the kernel ends the process. The program itself knows nothing of it.
"""

import dataclasses
import functools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import jax

import cvresearch.main as main
from cvresearch import train
from cvresearch.base import cli
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.session import Session
from cvresearch.evaluation.periodic import Evaluator

# What is called when a phase begins and returns when it ends. Compiling begins with one function and ends with another,
# in a thread; steps have none: see `Watch.watch`.
PHASES = {
    'restore': (Checkpoints, 'restore'),
    'evaluate': (Evaluator, 'evaluate'),
    'save': (Checkpoints, 'save'),
    'restart': (Session, 'snapshot'),
    'end': (Session, 'end'),
}
PATIENCE = 10  # wall seconds waited for a second of the process' own


@dataclasses.dataclass(frozen=True)
class Kill:
    """An instant, and the signal that comes then.

    Attributes:
      phase: one of PHASES; 'step', or 'resize' (both are the arrival at `step`).
      step: the first beginning of the phase at this step or later counts.
      delay: from then on, in seconds of the process' own time, so that the load of the machine changes little;
        PATIENCE times as many on the clock where it waits.
      signal: 'SIGKILL' or 'SIGTERM'.
    """

    phase: str
    step: int
    delay: float
    signal: str = 'SIGKILL'


class Watch:
    """Waits for the instant, and says in `found` where the signal met the program.

    `found` is JSON: the step at which the program had arrived last (-1 before the loop), and the phases that had
    begun and not ended, in whichever thread.
    """

    def __init__(self, kill: Kill, found: Path):
        self.kill, self.found = kill, found
        self.step, self.inside = -1, []
        self.armed = False

    def watch(self) -> None:
        """Puts itself into the program."""
        for phase, (owner, name) in PHASES.items():
            setattr(owner, name, self._during(phase, getattr(owner, name)))
        begin_compiling, compiled = Experiment.train_step, jax.stages.Lowered.compile
        loop, arrive = train.Training.loop, Session.arrived

        @functools.wraps(begin_compiling)
        def compiling(experiment, *more):
            self.inside.append('compile')
            self._begin('compile')
            return begin_compiling(experiment, *more)

        @functools.wraps(compiled)
        def done(*arguments, **keywords):
            try:
                return compiled(*arguments, **keywords)
            finally:
                if 'compile' in self.inside:
                    self.inside.remove('compile')

        @functools.wraps(loop)
        def looping(training):
            self.step = training.step
            return loop(training)

        @functools.wraps(arrive)
        def arrived(session, step, *more):
            self.step = step
            if self.kill.phase in ('step', 'resize'):
                self._begin(self.kill.phase)
            arrive(session, step, *more)

        Experiment.train_step, jax.stages.Lowered.compile = compiling, done
        train.Training.loop, Session.arrived = looping, arrived

    def _during(self, phase: str, function):
        @functools.wraps(function)
        def wrapped(*arguments, **keywords):
            self.inside.append(phase)
            self._begin(phase)
            try:
                return function(*arguments, **keywords)
            finally:
                self.inside.remove(phase)

        return wrapped

    def _begin(self, phase: str) -> None:
        if phase == self.kill.phase and self.step >= self.kill.step and not self.armed:
            self.armed = True
            threading.Thread(target=self._fire, daemon=True).start()

    def _fire(self) -> None:
        own, wall = time.process_time() + self.kill.delay, time.monotonic() + PATIENCE * self.kill.delay
        while time.process_time() < own and time.monotonic() < wall:
            time.sleep(0.001)
        self.found.write_text(json.dumps({'step': self.step, 'inside': list(self.inside)}))
        os.kill(os.getpid(), getattr(signal, self.kill.signal))


def run(arguments: list[str], kill: dict | None, found: str = '') -> None:
    """Is the training program with these flags, in a process of its own."""
    if kill:
        Watch(Kill(**kill), Path(found)).watch()
    sys.argv[1:] = arguments
    cli.run(main.main)


if __name__ == '__main__':
    wish = json.loads(sys.argv[1])
    run(sys.argv[2:], wish, wish.pop('found'))
