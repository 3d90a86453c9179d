"""Finished and unfinished runs, read from their folders: configuration, checkpoints, snapshots. Nothing is changed."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.paths import local
from cvresearch.base.records import read_metrics
from cvresearch.data import identity, sources
from cvresearch.data.examples import Examples
from cvresearch.engine import datasets, early_stopping
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.state import State
from cvresearch.evaluation import ensemble, predictions, protocols
from cvresearch.evaluation.predictions import Predictions
from cvresearch.evaluation.protocols import Protocol

SNAPSHOTS = 'snapshots'  # folder in a workdir


@dataclasses.dataclass(frozen=True)
class Run:
    """A workdir that a training made.

    Attributes:
      path: of the workdir.
      config: of the run.
      program: its parts; the labels of its data are the net's numbers, by the names of the classes.
      recorded: what the run knows of its data (`identity.of`); None where the program has other data, or the run is
        of a version that recorded nothing.
    """

    path: Path
    config: ConfigDict
    experiment: Experiment
    recorded: dict | None = None

    @classmethod
    def of(cls, workdir: str | Path, images: bool = True) -> 'Run':
        """Reads a run's configuration and makes its parts.

        Args:
          workdir: of the run.
          images: whether the images of its own data are wanted; without, they need not be there if the run has
            recorded its data.

        Raises:
          UserError: no run; data with a class that the net was not trained with.
        """
        path = local(workdir, 'workdir')
        if not (path / 'config.json').is_file():
            raise UserError(f'{path} holds no run (it has no config.json); expected the --workdir of a training')
        config = configs.from_json((path / 'config.json').read_text())
        if config.mesh.data * config.mesh.get('shard', 1) > jax.device_count():
            config.mesh = ConfigDict(dict(data=1))  # trained on a larger machine than this
        known = datasets.recorded(path)
        if known is None:
            print(f'note: {path} has {datasets.NO_RECORD}; its classes are taken from them as they are now',
                  file=sys.stderr)  # fmt: skip
        return cls(path, config, Experiment.from_config(config, datasets.of_run(path, config, images)), known)

    def on(self, data: str, **arguments) -> 'Run':
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
        return dataclasses.replace(self, experiment=dataclasses.replace(self.experiment, source=source), recorded=None)

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
        """Returns a checkpoint, the newest where no step is given.

        Raises:
          UserError: there is no whole one.
        """
        checkpoints = Checkpoints(self.path / 'checkpoints', read_only=True)
        state = checkpoints.restore(self.experiment.abstract_state(), step)
        if state is None:
            there = ', '.join(map(str, checkpoints.steps())) or 'none'
            of = f' of step {step}' if step else ''
            raise UserError(f'{self.path} has no whole checkpoint{of}; there are: {there}')
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
        if None in states:
            raise UserError(
                f'{self.path} has a damaged snapshot; an ensemble is of all its members. Train again in another '
                '--workdir: the same configuration gives the same snapshots'
            )
        return states

    def best_step(self, select_by: str, reported: str, force: bool = False) -> int:
        """Returns the step of the checkpoint that is best on a split, of those that are kept; the earlier of equals.

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
        if not rows:
            raise UserError(
                f'{self.path} has no evaluation on {select_by!r} at the step of a checkpoint that is kept (steps '
                f'{", ".join(map(str, kept)) or "none"}); train with config.minival, or give --step'
            )
        return early_stopping.best_step(rows, self.experiment.selection)

    def protocol(self, split: str, name: str = 'as_given', resolution: int | None = None, **knobs) -> Protocol:
        """Returns an evaluation protocol for this run's net; see `protocols.make`."""
        shape = self.experiment.source.facts.image_shape
        given = protocols.as_given(self.examples(split), shape)
        if name == 'as_given':
            if resolution or any(knobs.values()):
                raise UserError('resolution, scales, interpolation and average belong to a --protocol; give one')
            return given
        knobs = {key: value for key, value in knobs.items() if value}
        return protocols.make(name, resolution or given.resolution, channels=given.channels, **knobs)

    def predictions(
        self, states: Sequence[State], split: str, protocol: Protocol, batch_size: int | None = None,
        stacked: bool | None = None, weights: str | None = None,
    ) -> list[Predictions]:  # fmt: skip
        """Returns what the nets of some states say of a split, with the records of how; see `ensemble.members_of`.

        `weights` are 'raw' or the average that the run keeps, by its name; that, if any, where not given.

        Raises:
          UserError: an average that the run does not keep.
        """
        experiment, batch_size = self.experiment, batch_size or self.config.eval_batch_size
        weights = weights or experiment.weights[-1]
        lookup('weights', dict.fromkeys(experiment.weights), weights)
        meshes.check_batch('eval_batch_size', batch_size, experiment.mesh)
        images = {'images_sha256': identity.images_sha256(self.examples(split))}
        records = [self.record(int(state.position), split, weights, protocol) | images for state in states]
        variables = [variables_of(state, weights) for state in states]
        members = ensemble.members_of(
            experiment.model, variables, self.examples(split), protocol, batch_size,
            experiment.mean, experiment.std, experiment.mesh, records, stacked,
        )  # fmt: skip
        return [self._named(member) for member in members]

    def averaged(
        self, states: Sequence[State], split: str, protocol: Protocol, batch_size: int | None = None
    ) -> Predictions:
        """Returns what the one net says whose weights are the mean of the states'; batch statistics are found anew."""
        experiment, config = self.experiment, self.config
        variables = ensemble.average_weights([variables_of(state) for state in states])
        variables = ensemble.reestimate(
            experiment.model, variables, self.examples('train'), config.batch_size, experiment.mean, experiment.std
        )
        steps = [int(state.position) for state in states]
        record = self.record(steps[-1], split, 'average', protocol) | {'averaged_steps': steps}
        record['images_sha256'] = identity.images_sha256(self.examples(split))
        (found,) = ensemble.members_of(
            experiment.model, [variables], self.examples(split), protocol, batch_size or config.eval_batch_size,
            experiment.mean, experiment.std, experiment.mesh, [record],
        )  # fmt: skip
        return self._named(found)

    def _named(self, found: Predictions) -> Predictions:
        facts = self.experiment.source.facts
        return dataclasses.replace(classes_of(facts, found), class_names=facts.class_names)

    def record(self, step: int, split: str, weights: str, protocol: Protocol) -> dict:
        """Returns what every record of an evaluation says, but for its metrics and `n_seen`."""
        return {
            'run': self.path.name, 'model': self.config.model.name, 'seed': self.config.seed, 'step': step,
            'data': self.experiment.source.facts.name, 'split': split, 'weights': weights, **protocol.record,
        }  # fmt: skip

    def metrics(self, found: Predictions) -> dict:
        """Returns the record of an evaluation and its metrics; `loss` is the run's own, where one view is shown."""
        values = predictions.summary(found)
        if found.labels.ndim == 1 and found.record.get('crops') == 1:
            target = jax.nn.one_hot(found.labels, found.logits.shape[-1])
            loss = np.asarray(self.experiment.loss(jnp.asarray(found.logits), target), np.float64)
            values = {'loss': float(loss.mean()), **values}
        return {**found.record, **values}


def classes_of(facts, found: Predictions) -> Predictions:
    """Returns the predictions among the classes that occur in a data set, where those are not all (ImageNet-A, -R)."""
    if getattr(facts, 'classes', None) is None:
        return found
    logits = np.full_like(found.logits, -np.inf)
    logits[:, list(facts.classes)] = found.logits[:, list(facts.classes)]
    return dataclasses.replace(found, logits=logits)


def variables_of(state: State, weights: str = 'raw') -> dict:
    """Returns the net's variables of a state: the parameters themselves, or their average over the steps."""
    state = state if weights == 'raw' else state.averaged()
    return {'params': state.params, **state.model_state}


def without_optimizer(state: State) -> State:
    """Returns what a snapshot holds: an ensemble has no use for the optimizer's state."""
    return state.replace(opt_state=())

