"""The evaluations of a run while it trains: compiled beside the updates, one program for each shape of images."""

import functools
from collections.abc import Callable

import numpy as np

from cvresearch.base import hosts
from cvresearch.base import mesh as meshes
from cvresearch.base.records import judged
from cvresearch.data import identity
from cvresearch.engine.compiling import Compiler
from cvresearch.engine.session import Session
from cvresearch.engine.state import State
from cvresearch.engine.trained import variables_of
from cvresearch.evaluation import predictions, protocols
from cvresearch.evaluation.predictions import KEPT, Placed, Predictions
from cvresearch.evaluation.protocols import Protocol
from cvresearch.evaluation.totals import evaluate


class Evaluator:
    """Evaluates the splits of a run, records the metrics, and keeps the logits of the last time."""

    def __init__(self, session: Session, compiler: Compiler):
        self._session, self._compiler, self._experiment = session, compiler, session.experiment
        self._splits = session.experiment.source.splits

    def evaluate(self, step: int, state: State, split: str, weights: str) -> None:
        """Evaluates a split and records it; if the run is asked to stop before, the next process does it."""
        session, experiment = self._session, self._experiment
        values = (self._from_predictions if experiment.task.several else self._sums)(step, state, split, weights)
        if values is None:
            return
        # The predictions first: a row in the records says that nothing of this evaluation is left to do.
        if step == experiment.plan.steps and not self.keep_predictions(step, state, split, weights):
            return
        epoch = experiment.plan.epoch(step)
        session.records.write(step, epoch, split, values | {**self._protocol(split).record, 'weights': weights})
        of = split if weights == 'raw' else f'{split} ({weights})'
        name, value = judged(values) or ('', 0.0)
        session.progress.say(
            f'epoch {epoch:.4g}: {of} loss {values["loss"]:.4f}, {name} {value:.2f} %, {values["n_seen"]:,} images'
        )

    def _sums(self, step: int, state: State, split: str, weights: str) -> dict | None:
        """Returns the metrics that are sums over images; None if the run is asked to stop before."""
        experiment, chosen = self._experiment, state if weights == 'raw' else state.averaged()
        eval_step = self.eval_step(split)
        return eval_step and evaluate(
            eval_step,
            chosen,
            self._splits[split],
            experiment.eval_batch_size,
            experiment.mesh,
            stop=self._session.stop_requested,
        )

    def _from_predictions(self, step: int, state: State, split: str, weights: str) -> dict | None:
        """Returns the metrics of any number of labels an image: average precision is no sum over images."""
        answers = self._predictions(step, state, split, weights)
        loss_of = self._experiment.loss_of
        return answers and {'loss': loss_of(answers.logits, answers.labels), **predictions.summary(answers)}

    def keep_predictions(self, step: int, state: State, split: str, weights: str) -> bool:
        """Writes the logits of the last evaluation, for later metrics; False if the run is asked to stop before."""
        if not self._session.config.keep_predictions:
            return True
        answers = self._predictions(step, state, split, weights)
        if answers is not None and hosts.is_primary():
            answers.save(self._session.path / KEPT / f'{self._session.names[split, weights]}.npz')
        return answers is not None

    def _predictions(self, step: int, state: State, split: str, weights: str) -> Predictions | None:
        """Returns what the net says of a split; None if the run is asked to stop before."""
        session, experiment = self._session, self._experiment
        examples, protocol, variables = self._splits[split], self._protocol(split), variables_of(state, weights)
        name = self._begin_predictions(split, protocol, variables)
        if not session.waits_for(self._compiler, name):
            return None
        logits_of = self._compiler.result(name)(variables)
        answers = predictions.predict(
            logits_of, examples, protocol, experiment.eval_batch_size, experiment.mesh, stop=session.stop_requested
        )
        if answers is None:
            return None
        facts = experiment.source.facts
        record = {
            'run': session.path.name,
            'model': session.config.model.name,
            'seed': experiment.seed,
            'split': split,
            'data': facts.name,
            'images_sha256': identity.images_sha256(examples),
            'step': step,
            **protocol.record,
            'weights': weights,
            **predictions.task_of(experiment.task),
        }
        return Predictions(*answers, record, facts.class_names)

    def eval_step(self, split: str) -> Callable | None:
        """Returns the compiled evaluation of a split's batches, None if the run is asked to stop before."""
        experiment, (images, labels) = self._experiment, self._splits[split].take(np.zeros(1, np.int64))
        name = 'evaluation', images.shape, labels.shape

        def compiled():
            batch = {'image': images, 'label': labels, 'mask': np.ones(1, np.float32)}
            batch = meshes.shapes_of(batch, experiment.eval_batch_size, experiment.mesh)
            return experiment.eval_step().lower(experiment.abstract_state(), batch).compile()

        self._compiler.begin(name, compiled)
        return self._compiler.result(name) if self._session.waits_for(self._compiler, name) else None

    def _begin_predictions(self, split: str, protocol: Protocol, variables: dict) -> tuple:
        """Begins to compile the logits of a split; returns their name."""
        experiment, (images, _) = self._experiment, self._splits[split].take(np.zeros(1, np.int64))
        placed = Placed(experiment.model, experiment.mean, experiment.std, experiment.mesh)
        net = predictions.forward(placed, protocol)
        # Named by the shape alone: all splits with images of one shape share a program.
        name, shape = ('predictions', images.shape), (experiment.eval_batch_size, *images.shape[1:])
        self._compiler.begin(name, functools.partial(net.compiled, variables, shape))
        return name

    def _protocol(self, split: str) -> Protocol:
        return protocols.as_given(self._splits[split], self._experiment.source.facts.image_shape)
