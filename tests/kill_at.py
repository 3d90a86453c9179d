"""Runs the training program and kills it: python tests/kill_at.py PHASE VISIT DELAY [main's flags].

SIGKILL comes DELAY seconds after the program enters PHASE (compile, step, evaluate, save, snapshot) for the
VISIT-th time; from a thread, so also in the middle of compiled code. The program itself knows
nothing of it.
"""

import functools
import os
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import cvresearch.main as main
from cvresearch import train
from cvresearch.base import cli
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.program import Program


def armed(function, visit: int, delay: float, signal_number: int):
    """Returns `function`, sending the signal `delay` seconds into its `visit`-th call."""
    calls = 0

    @functools.wraps(function)
    def wrapped(*arguments, **keywords):
        nonlocal calls
        calls += 1
        if calls == visit:
            threading.Timer(delay, os.kill, (os.getpid(), signal_number)).start()
        return function(*arguments, **keywords)

    return wrapped


def arm(phase: str, visit: int, delay: float, signal_number: int = signal.SIGKILL) -> None:
    """Puts the signal into the phase."""
    owner, name = {
        'compile': (Program, 'train_step'),
        'step': (train.Progress, 'step'),
        'evaluate': (train, 'evaluate'),
        'save': (Checkpoints, 'save'),
        'snapshot': (train.Training, '_snapshot'),
    }[phase]
    setattr(owner, name, armed(getattr(owner, name), visit, delay, signal_number))


if __name__ == '__main__':
    phase, visit, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    arm(phase, visit, delay, getattr(signal, os.environ.get('KILL_SIGNAL', 'SIGKILL')))
    sys.argv[1:] = sys.argv[4:]
    cli.run(main.main)
