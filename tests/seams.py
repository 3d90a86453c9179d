"""Where tests reach into a training: one place."""

import os
import signal

from cvresearch.engine.session import Session


def at_each_step(monkeypatch, action):
    """Calls `action(step)` whenever a training arrives at a step; pytest's monkeypatch takes it back."""
    real = Session.arrived

    def arrived(session, step, state):
        real(session, step, state)
        action(step)

    monkeypatch.setattr(Session, 'arrived', arrived)


def at_step(monkeypatch, steps, action=lambda: os.kill(os.getpid(), signal.SIGTERM), once=False):
    """Does something when a training arrives at a step, or at each of several; by default it asks it to stop.

    Args:
      monkeypatch: pytest's.
      steps: a number, or several; None for no step.
      action: called without an argument.
      once: at each of the steps only the first time.
    """
    left = set() if steps is None else {steps} if isinstance(steps, int) else set(steps)

    def act(step):
        if step in left:
            if once:
                left.discard(step)
            action()

    at_each_step(monkeypatch, act)
