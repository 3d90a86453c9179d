"""What a run owes at a step: functions of the step and of what is recorded, so that a killed run finds its place."""

import dataclasses
from collections.abc import Mapping

from cvresearch.base.records import Metrics
from cvresearch.engine import early_stopping, watching
from cvresearch.engine.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Due:
    """What is due on arrival at a step, and not yet in the records.

    What an earlier process recorded before it was killed is not done again; the rest is, and comes out the same.

    Attributes:
      experiment: of the run.
      records: its rows.
      names: the name in the records of each (split, weights), 'test_ema'.
      snapshots: the steps of the snapshots that are taken already.
    """

    experiment: Experiment
    records: Metrics
    names: Mapping[tuple[str, str], str]
    snapshots: set[int]

    def log(self, step: int) -> bool:
        """Whether the metrics of training are due."""
        every = self.experiment.config.log_every_steps
        return self.experiment.plan.due(step, every_steps=every) and not self.records.has(step, 'train')

    def layers(self, step: int) -> bool:
        """Whether layers are to be looked at: before the first update, every so often, and at the end."""
        watch = self.experiment.watch
        if watch is None or self.records.has(step, watching.SPLIT):
            return False
        return step == 0 or self.experiment.plan.due(step, every_steps=watch.every_steps)

    def data(self, step: int) -> bool:
        """Whether the digests of the epochs that ended here are due."""
        return self.experiment.plan.due(step, every_epochs=1) and not self.records.has(step, 'data')

    def evaluations(self, step: int) -> list[tuple[str, str]]:
        """Returns the (split, weights) that are to be evaluated."""
        return [which for which in self._evaluations(step) if not self.records.has(step, *which)]

    def checkpoint(self, step: int) -> bool:
        """Whether the state is to be saved; a run that has ended has its last one, however seldom it saves."""
        plan = self.experiment.plan
        return step == plan.steps or plan.due(step, every_epochs=self.experiment.config.save_every_epochs)

    def snapshot(self, step: int) -> bool:
        """Whether a cycle ends here, whose net is kept for an ensemble."""
        return step in self.experiment.snapshots and step not in self.snapshots

    def precise_statistics(self, step: int) -> bool:
        """Whether the statistics of norms are to be computed anew, at the end."""
        return step == self.experiment.plan.steps and bool(self.experiment.config.precise_batches)

    def early_stop(self, step: int) -> bool:
        """Whether the run ends here, before its last step: on all hosts the same."""
        rule = self.experiment.stopping
        # An evaluation that a request to stop cut short is made by the next process, which then asks again.
        if rule is None or step == self.experiment.plan.steps or not self.evaluated(step):
            return False
        return rule.stops_at(self._selecting()) == step

    def evaluated(self, step: int) -> bool:
        """Whether all that is evaluated at this step is recorded."""
        return all(self.records.has(step, *which) for which in self._evaluations(step))

    def last_evaluations(self, step: int) -> list[tuple[str, str]]:
        """Returns the (split, weights) whose predictions are kept by a run that ends here."""
        return self._evaluations(step)

    def best_step(self) -> int | None:
        """Returns the earliest step of the best evaluation on minival, None if nothing is held out.

        If the run averages its weights, it is the average's: that is what an average is for.
        """
        return early_stopping.best_step(self._selecting(), self.experiment.selection)

    def _selecting(self) -> list[dict]:
        return self.records.of(early_stopping.SPLIT, self.experiment.weights[-1])

    def _evaluations(self, step: int) -> list[tuple[str, str]]:
        if not self.experiment.plan.due(step, every_epochs=self.experiment.config.evaluate_every_epochs):
            return []
        # Training images have their metrics from the updates themselves.
        return [which for which in self.names if which[0] != 'train']
