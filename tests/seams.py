"""Where tests reach into a training: one place."""

import os
import signal

from cvresearch.engine.session import Session


def at_step(monkeypatch, steps, action=lambda: os.kill(os.getpid(), signal.SIGTERM), once=False):
    """Does something when a training arrives at a step, or at each of several; by default it asks it to stop.

    Args:
      monkeypatch: pytest's, which takes it back.
      steps: a number, or several; None for all.
      action: called without an argument; if `steps` is None, with the step.
      once: at each of the steps only the first time.
    """
    real, left = Session.arrived, None if steps is None else {steps} if isinstance(steps, int) else set(steps)

    def arrived(session, step, state):
        real(session, step, state)
        if left is None:
            action(step)
        elif step in left:
            if once:
                left.discard(step)
            action()

    monkeypatch.setattr(Session, 'arrived', arrived)
