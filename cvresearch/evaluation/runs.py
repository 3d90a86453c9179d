"""Runs that are evaluated: what the nets of their checkpoints and snapshots say, with the records of how."""

import dataclasses
from collections.abc import Sequence

from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError, lookup
from cvresearch.data import identity
from cvresearch.engine.state import State
from cvresearch.engine.trained import TrainedRun, variables_of
from cvresearch.evaluation import ensemble, predictions, protocols
from cvresearch.evaluation.predictions import Placed, Predictions, classes_of
from cvresearch.evaluation.protocols import Protocol


class Run(TrainedRun):
    """A run whose nets are evaluated."""

    def protocol(self, split: str, name: str = 'as_given', resolution: int | None = None, **knobs) -> Protocol:
        """Returns an evaluation protocol for this run's net; see `protocols.make`."""
        shape = self.experiment.source.facts.image_shape
        as_given = protocols.as_given(self.examples(split), shape)
        if name == 'as_given':
            if resolution or any(knobs.values()):
                raise UserError('resolution, scales, interpolation and average belong to a --protocol; give one')
            return as_given
        knobs = {key: value for key, value in knobs.items() if value}
        chosen = protocols.make(name, resolution or as_given.resolution, channels=as_given.channels, **knobs)
        if self.experiment.task.several and chosen.average == 'probabilities':
            raise UserError(
                f'protocol {name!r} averages the probabilities of one class an image; these have any number of labels: '
                'set --average=logits'
            )
        return chosen

    def predictions(
        self,
        states: Sequence[State],
        split: str,
        protocol: Protocol,
        batch_size: int | None = None,
        stacked: bool | None = None,
        weights: str | None = None,
    ) -> list[Predictions]:
        """Returns what the nets of some states say of a split, with the records of how; see `ensemble.members_of`.

        `weights` are 'raw' or the average that the run keeps, by its name; that, if any, by default.

        Raises:
          UserError: an average that the run does not keep.
        """
        experiment = self.experiment
        batch_size = meshes.fitting(batch_size or experiment.eval_batch_size, experiment.mesh)
        # An average is kept in order to be evaluated; raw weights are asked for by name.
        weights = weights or experiment.weights[-1]
        lookup('weights', dict.fromkeys(experiment.weights), weights)
        images = {'images_sha256': identity.images_sha256(self.examples(split))}
        records = [self.record(int(state.position), split, weights, protocol) | images for state in states]
        variables = [variables_of(state, weights) for state in states]
        members = ensemble.members_of(
            self._placed, variables, self.examples(split), protocol, batch_size, records, stacked
        )
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
        (answers,) = ensemble.members_of(
            self._placed,
            [variables],
            self.examples(split),
            protocol,
            meshes.fitting(batch_size or experiment.eval_batch_size, experiment.mesh),
            [record],
        )
        return self._named(answers)

    @property
    def _placed(self) -> Placed:
        """The net on the run's devices."""
        experiment = self.experiment
        return Placed(experiment.model, experiment.mean, experiment.std, experiment.mesh)

    def _named(self, answers: Predictions) -> Predictions:
        facts = self.experiment.source.facts
        return dataclasses.replace(classes_of(facts, answers), class_names=facts.class_names)

    def record(self, step: int, split: str, weights: str, protocol: Protocol) -> dict:
        """Returns what every record of an evaluation says, but for its metrics and `n_seen`."""
        return {
            'run': self.path.name,
            'model': self.config.model.name,
            'seed': self.config.seed,
            'step': step,
            'data': self.experiment.source.facts.name,
            'split': split,
            **self._subset,
            'weights': weights,
            **protocol.record,
            **predictions.task_of(self.experiment.task),
        }

    @property
    def _subset(self) -> dict[str, dict]:
        """What the records say where a part of a split is evaluated."""
        return {'subset': self.experiment.source.subset} if self.experiment.source.subset else {}

    def metrics(self, answers: Predictions) -> dict:
        """Returns the record of an evaluation and its metrics; `loss` is the run's own, where one view is shown."""
        values = predictions.summary(answers)
        if (answers.labels.ndim == 1 or answers.multi_label) and answers.record.get('crops') == 1:
            values = {'loss': self.experiment.loss_of(answers.logits, answers.labels), **values}
        return {**answers.record, **values}
