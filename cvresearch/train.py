"""Training, from a configuration to a finished run: at each step what is due, then the update."""

import contextlib
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cvresearch.base import hosts, settings
from cvresearch.base.errors import PREEMPTED, RunError
from cvresearch.base.speed import Observation
from cvresearch.data.stream import prefetch
from cvresearch.engine import teacher, watching
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.phases import Phases
from cvresearch.engine.session import Session
from cvresearch.engine.state import State
from cvresearch.engine.warm_start import WarmStart
from cvresearch.evaluation import layers
from cvresearch.evaluation.periodic import Evaluator


def run(config: ConfigDict, workdir: str | Path, observation: Observation = Observation(), extend: bool = False) -> int:
    """Trains a configuration in `workdir`, from where an earlier process left off.

    Args:
      config: of the run.
      workdir: its folder.
      observation: what is watched beside; no result depends on it.
      extend: the run is there, perhaps finished, and is trained on to more epochs.

    Returns:
      The exit code: 0 finished, 75 preempted (the state is saved; the same command goes on).

    Raises:
      UserError: bad input, before anything is written.
      RunError: the run cannot go on: a loss that is not finite, a disk that is full.
    """
    settings.check()
    start = WarmStart.of(config, workdir)  # what the configuration leaves open follows from the weights
    experiment = Experiment.from_config(start.config)  # mesh, data, model, optimizer: built and checked
    experiment.check_training()
    layers.check(experiment)
    experiment.freezing.check(experiment.abstract_state().params, experiment.plan.all_steps)
    with Session.open(experiment, workdir, observation, extend) as session:
        ended = Training(session, start).loop() if session else 'finished'
    return 0 if ended == 'finished' else PREEMPTED


class Training:
    """The loop of a run, and what it is made of: phases of updates, batches, evaluations, what is due."""

    def __init__(self, session: Session, start: WarmStart | None = None):
        self.session, self.experiment, self.clock = session, session.experiment, session.clock
        # Precedence: resume, then the weights of config.init, then from scratch.
        state, origin = session.restore(), None
        if state is None:
            with self.clock.spent('initialise'):
                state, origin = start.started(self.experiment) if start else (self.experiment.initial_state(), None)
        self.phases = session.closes(Phases(self.experiment, teacher.of(self.experiment)))
        self.evaluator = Evaluator(session, self.phases.compiler)
        self.watcher = layers.Watcher(session, self.phases)
        self.due = session.begin(state, self.phases, origin)
        self.state, self.step = state, int(state.position)
        self._follow_plateau()
        if self.step < self.experiment.plan.steps:
            self._compiled(self.step)
        batches = prefetch(self.phases.batch, self.step, self.experiment.plan.steps, workers=self.phases.workers)
        self.batches = session.closes(batches)

    def loop(self) -> str:
        """Trains to the end, or to a request to stop; returns 'finished' or 'preempted'."""
        with self.ending():
            while not (ended := self.arrive()):
                self.update()
            self.session.end(ended, self.state, self.step)
        return ended

    @contextlib.contextmanager
    def ending(self):
        """Writes the run card of a run that fails in the block."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(RunError):  # a full disk must not hide what went wrong
                self.session.end('failed', self.state, self.step)
            raise

    def update(self) -> None:
        """Makes the update from this step."""
        with self.clock.waiting():
            batch = next(self.batches)
        with self.session.profile.update(self.step, self.state):
            self.state = self.phases.update(self.step, self.state, batch)
        self.step += 1
        self.session.arrived(self.step, self.state)

    def arrive(self) -> str | None:
        """Does what is due at this step; returns 'finished' or 'preempted' if the run ends here, else None."""
        step, due, session, last = self.step, self.due, self.session, self.step == self.experiment.plan.steps
        if due.log(step) or due.evaluations(step) or due.checkpoint(step) or due.snapshot(step) or due.layers(step):
            jax.block_until_ready(self.state)  # steps under way count as training
            session.check_finite(self.state)
        if due.log(step):
            with self.clock.spent('log'):
                self.state = session.log(step, self.state)
        if due.layers(step) and not session.stopping:
            with self.clock.spent('watch'):
                self._look_at_layers()
        if due.data(step):
            with self.clock.spent('log'):
                session.record_data(step, self.phases.streams[0].digest)
        # Before the evaluations, which are of the net as it is kept.
        if due.precise_statistics(step):
            with self.clock.spent('evaluate'):
                self.state = self._with_precise_statistics(self.state)
        evaluations = due.evaluations(step)
        for split, weights in evaluations:
            with self.clock.spent('evaluate'):
                self.evaluator.evaluate(step, self.state, split, weights)
                # The learning rate of the next step goes by this evaluation.
                self._follow_plateau()
        if due.snapshot(step):
            with self.clock.spent('save'):
                session.snapshot(self.state, step)
        if due.early_stop(step) and not session.stopping:
            with self.clock.spent('evaluate'):
                last = self._finish_early()
        if not last:
            self._compiled(step)

        # Asked once for the rest of this turn: a signal that came between saving and leaving would otherwise end the
        # run without its last step.
        stop = session.stop_requested()
        best = due.best_step() if due.checkpoint(step) or evaluations or stop or last else None
        if due.checkpoint(step) or best == step or stop or last:
            session.check_finite(self.state)
            with self.clock.spent('save'):
                session.save(self.state, step, best, must=stop or last)
        if not (stop or last):
            return None
        return 'finished' if last and due.evaluated(step) and not due.layers(step) else 'preempted'

    def _look_at_layers(self) -> None:
        """Records what the layers give at this step, and draws it over the run so far."""
        if self.watcher.record(self.step, self.state) and hosts.is_primary():
            from cvresearch.report import layers as drawn  # Matplotlib, which no other run needs

            drawn.keep(self.session.records.of(watching.SPLIT), self.session.path)

    def _compiled(self, step: int) -> None:
        """Waits until the update from a step is compiled, or until the run is asked to stop."""
        with self.clock.spent('compile'):
            self.session.waits_for(self.phases.compiler, self.phases.begin(step))

    def _finish_early(self) -> bool:
        """Does what is due at the last step of any run; False if the run is asked to stop before."""
        if not self.session.records.has(self.step, 'train'):
            self.state = self.session.log(self.step, self.state)
        kept = [self.evaluator.keep_predictions(self.step, self.state, *which)
                for which in self.due.last_evaluations(self.step)]  # fmt: skip
        return all(kept)

    def _follow_plateau(self) -> None:
        """Sets the learning rate that the evaluations so far ask for, a function of the records."""
        if rule := self.experiment.plateau:
            self.state = self.experiment.with_plateau(self.state, self.session.records.of(rule.split))

    def _with_precise_statistics(self, state: State) -> State:
        """Returns the state with statistics of norms over the last batches. To do so again changes nothing."""
        steps = self.experiment.plan.steps
        last = range(steps - self.session.config.precise_batches, steps)
        batches = (self.phases.batch(max(step, 0)) for step in last)
        return self.phases.experiment(steps - 1).with_precise_statistics(state, batches)
