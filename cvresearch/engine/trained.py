"""A workdir that a training made, opened to be read: configuration, parts, checkpoints. Nothing is changed."""

import dataclasses
import sys
from pathlib import Path
from typing import Self

import jax
from ml_collections import ConfigDict

from cvresearch.base import at_hand
from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.records import read_metrics
from cvresearch.data import identity, sources
from cvresearch.data.examples import Examples
from cvresearch.engine import datasets, early_stopping
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.state import State

SNAPSHOTS = 'snapshots'  # folder in a workdir


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run that can be read.

    Attributes:
      path: of the workdir.
      experiment: its configuration and its parts; the labels of its data are the net's numbers, by the names of
        the classes.
      recorded: what the run knows of its data (`identity.of`); None if the experiment has other data, or the run is
        of a version that recorded nothing.
    """

    path: Path
    experiment: Experiment
    recorded: dict | None = None

    @property
    def config(self) -> ConfigDict:
        """The configuration of the run."""
        return self.experiment.config

    @classmethod
    def open(
        cls, workdir: str | Path, images: bool = True, layout: meshes.Layout | None = None, what: str = 'workdir'
    ) -> Self:
        """Reads a run's configuration and builds its parts.

        Args:
          workdir: of the run.
          images: whether the images of its own data are wanted; without, they need not be there if the run has
            recorded its data.
          layout: over devices; the run's own if None, or one device on a machine with fewer than it had.
          what: the key or flag that named the folder, for messages.

        Raises:
          UserError: no run; data with a class that the net was not trained with.
        """
        path = at_hand.read(workdir, what)
        if not (path / 'config.json').is_file():
            raise UserError(f'{path} holds no run (it has no config.json); expected the --workdir of a training')
        config = configs.from_json((path / 'config.json').read_text(encoding='utf-8'))
        if layout or config.mesh.data * config.mesh.get('shard', 1) > jax.device_count():
            config.mesh = ConfigDict(dict(data=1))  # trained on a larger machine than this
        if 'distillation' in config:
            config.distillation.teacher = ''  # what taught the run may be gone
        known = datasets.recorded(path)
        if known is None:
            print(
                f'note: {path} has {datasets.NO_RECORD}; its classes are taken from them as they are now',
                file=sys.stderr,
            )
        source = datasets.of_run(path, config, images)
        return cls(path, Experiment.from_config(config, source, layout), known)

    def on(self, data: str, **arguments) -> Self:
        """Returns the run with another data set to evaluate on, prepared and normalized as the run's own.

        The labels become the net's numbers by the names of the classes. Of ImageNet-A and -R only their 200 classes
        can be chosen; of ImageNet-ReaL any of an image's labels is right.

        Args:
          data: name of the source.
          **arguments: of that source, such as `root`.

        Raises:
          UserError: an unknown source, images that are not there, a class that the net does not know.
        """
        names = self.experiment.source.facts.class_names
        try:
            source = sources.load({'name': data, **arguments}, 0, self.config.transform, names)
        except identity.UnknownClassError as error:
            raise UserError(f'{data} cannot be evaluated with the run {self.path}: {error}') from error
        if source.facts.multi_label != self.experiment.task.several:
            one, any_number = ('the data', 'the net') if self.experiment.task.several else ('the net', 'the data')
            raise UserError(
                f'{data} cannot be evaluated with the run {self.path}: {one} has one label an image, and '
                f'{any_number} any number of them'
            )
        return dataclasses.replace(self, experiment=dataclasses.replace(self.experiment, source=source), recorded=None)

    def part(self, split: str, limit: int = 0, every: int = 1) -> Self:
        """Returns the run with a part of a split; see `sources.part_of`."""
        source = sources.part_of(self.experiment.source, split, limit, every)
        return dataclasses.replace(self, experiment=dataclasses.replace(self.experiment, source=source))

    def check_data(self, split: str, force: bool = False) -> None:
        """Compares a split of the run's own data with what it recorded; see `datasets.check_split`."""
        if self.recorded:
            datasets.check_split(self.path, self.recorded, split, self.examples(split), force)

    def examples(self, split: str) -> Examples:
        """Returns a split of the run's data.

        Raises:
          UserError: there is none of that name.
        """
        return lookup('split', self.experiment.source.splits, split)

    def checkpoint(self, step: int | None = None) -> State:
        """Returns a checkpoint, the newest if no step is given.

        Raises:
          UserError: there is no whole one.
        """
        checkpoints = Checkpoints(self.path / 'checkpoints', read_only=True)
        state = checkpoints.restore(self.experiment.abstract_state(), step)
        if state is None:
            steps = ', '.join(map(str, checkpoints.steps())) or 'none'
            suffix = f' of step {step}' if step else ''
            raise UserError(f'{self.path} has no whole checkpoint{suffix}; there are: {steps}')
        return state

    def snapshots(self) -> list[State]:
        """Returns the snapshots at the ends of the cycles, oldest first; without the optimizer's state.

        Raises:
          UserError: there are none, or one is damaged.
        """
        folder = Checkpoints(self.path / SNAPSHOTS, read_only=True)
        like = without_optimizer(self.experiment.abstract_state())
        states = [folder.restore(like, step) for step in folder.steps()]
        if not states:
            raise UserError(
                f'{self.path} has no snapshots; they are taken at the ends of the cycles of config.schedule.name=sgdr, '
                'and with config.snapshot_every_epochs'
            )
        if len(readable := [state for state in states if state is not None]) < len(states):
            raise UserError(
                f'{self.path} has a damaged snapshot; an ensemble is of all its members. Train again in another '
                '--workdir: the same configuration gives the same snapshots'
            )
        return readable

    def best_step(self, select_by: str, reported: str, force: bool = False) -> int:
        """Returns the kept checkpoint's step with the best metric on `select_by`; ties go to the earlier.

        Args:
          select_by: the split that decides, by top-1 or by the metric of config.early_stopping.
          reported: the split whose metrics will be told.
          force: choose by the reported split all the same.

        Raises:
          UserError: both are the same split, and it is not forced; no such evaluation is recorded.
        """
        if select_by == reported and not force:
            raise UserError(
                f'the checkpoint is to be chosen by {select_by!r}, which is also reported: the best of several '
                'accuracies on one split is higher than what the net does on new images. Hold out training images '
                '(config.minival) and use --select_by=minival, or take the last step; --force does it all the same and '
                'marks the record'
            )
        kept = Checkpoints(self.path / 'checkpoints', read_only=True).steps()
        weights = self.experiment.weights[-1]  # as in training: an average is there to be the better one
        rows = [row for row in read_metrics(self.path / 'metrics.jsonl') if row['split'] == select_by]
        rows = [row for row in rows if row['step'] in kept and row.get('weights', 'raw') == weights]
        best = early_stopping.best_step(rows, self.experiment.selection)
        if best is None:
            raise UserError(
                f'{self.path} has no evaluation on {select_by!r} at the step of a checkpoint that is kept (steps '
                f'{", ".join(map(str, kept)) or "none"}); train with config.minival, or give --step'
            )
        return best


def variables_of(state: State, weights: str = 'raw') -> dict:
    """Returns the net's variables of a state: the parameters themselves, or their average over the steps."""
    state = state if weights == 'raw' else state.averaged()
    return {'params': state.params, **state.model_state}


def without_optimizer(state: State) -> State:
    """Returns what a snapshot holds: an ensemble has no use for what training alone needs."""
    return state.replace(opt_state=(), method={}, compression={})
