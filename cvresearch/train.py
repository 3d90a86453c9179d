"""Training, from a configuration to a finished run: at each step what is due, then the update."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from cvresearch.base import hosts, settings
from cvresearch.base.errors import PREEMPTED
from cvresearch.base.speed import Observation
from cvresearch.engine import teacher
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.phases import Phases
from cvresearch.engine.session import Session
from cvresearch.engine.warm_start import WarmStart, compressed
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
                state = compressed(self.experiment, state)
        self.phases = session.closes(Phases(self.experiment, teacher.of(self.experiment)))
        self.evaluator = Evaluator(session, self.phases.compiler)
        self.watcher = layers.Watcher(session, self.phases)
        self.due = session.begin(state, self.phases, origin)
        self.state, self.step = state, int(state.position)
        self._follow_plateau()
        if self.step < self.experiment.plan.steps:
            self._compiled(self.step)
        self.batches = session.closes(self.phases.batches(self.step))

    def loop(self) -> str:
        """Trains to the end, or to a request to stop; returns 'finished' or 'preempted'."""
        ended = ''
        with self.session.ending(self):
            for step in range(self.step, self.experiment.plan.steps + 1):
                if ended := self.arrive(step):
                    break
                self.update(step)
            self.session.end(ended, self.state, self.step)
        return ended

    def update(self, step: int) -> None:
        """Makes the update from a step to the next."""
        with self.clock.waiting():
            batch = next(self.batches)
        with self.session.profile.update(step, self.state):
            self.state = self.phases.update(step, self.state, batch)
        self.step = step + 1
        self.session.arrived(self.step, self.state)

    def arrive(self, step: int) -> str:
        """Does what is due at a step; returns 'finished' or 'preempted' if the run ends here, else ''."""
        due, session, last = self.due, self.session, step == self.experiment.plan.steps
        if due.log(step) or due.evaluations(step) or due.checkpoint(step) or due.snapshot(step) or due.layers(step):
            jax.block_until_ready(self.state)  # steps under way count as training
            session.check_finite(self.state)
        if due.log(step):
            self.state = session.log(step, self.state)
        if due.layers(step) and not session.stopping:
            self._look_at_layers(step)
        if due.data(step):
            session.record_data(step, self.phases.streams[0].digest)
        # Before the evaluations, which are of the net as it is kept.
        if due.precise_statistics(step):
            with self.clock.spent('evaluate'):
                self.state = self.phases.with_precise_statistics(self.state)
        for split, weights in (evaluations := due.evaluations(step)):
            with self.clock.spent('evaluate'):
                self.evaluator.evaluate(step, self.state, split, weights)
                # The learning rate of the next step goes by this evaluation.
                self._follow_plateau()
        if due.snapshot(step):
            session.snapshot(self.state, step)
        if due.early_stop(step) and not session.stopping:
            last = self._finish_early(step)
        if not last:
            self._compiled(step)
        # Asked once for the rest of this turn: a signal that came between saving and leaving would otherwise end the
        # run without its last step.
        stop = session.stop_requested()
        best = due.best_step() if due.checkpoint(step) or evaluations or stop or last else None
        if due.checkpoint(step) or best == step or stop or last:
            session.check_finite(self.state)
            session.save(self.state, step, best, must=stop or last)
        if not (stop or last):
            return ''
        return 'finished' if last and due.evaluated(step) and not due.layers(step) else 'preempted'

    def _look_at_layers(self, step: int) -> None:
        """Records what the layers give at a step, and draws it over the run so far."""
        with self.clock.spent('watch'):
            if self.watcher.record(step, self.state) and hosts.is_primary():
                from cvresearch.report import layers as drawn  # Matplotlib, which no other run needs

                drawn.keep(self.session.records.of(layers.SPLIT), self.session.path)

    def _compiled(self, step: int) -> None:
        """Waits until the update from a step is compiled, or until the run is asked to stop."""
        with self.clock.spent('compile'):
            self.session.waits_for(self.phases.compiler, self.phases.begin(step))

    def _finish_early(self, step: int) -> bool:
        """Does what is due at the last step of any run; False if the run is asked to stop before."""
        if not self.session.records.has(step, 'train'):
            self.state = self.session.log(step, self.state)
        with self.clock.spent('evaluate'):
            evaluations = self.due.last_evaluations(step)
            return all(self.evaluator.keep_predictions(step, self.state, *which) for which in evaluations)

    def _follow_plateau(self) -> None:
        """Sets the learning rate that the evaluations so far ask for, a function of the records."""
        if rule := self.experiment.plateau:
            self.state = self.experiment.with_plateau(self.state, self.session.records.of(rule.split))
