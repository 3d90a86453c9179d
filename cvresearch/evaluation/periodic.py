"""The evaluations of a run while it trains: compiled beside the updates, one program for each shape of images."""

import functools

import numpy as np

from cvresearch.base import mesh as meshes
from cvresearch.data.sources import Examples
from cvresearch.engine.compiling import Compiler
from cvresearch.engine.experiment import Experiment
from cvresearch.evaluation import predictions
from cvresearch.evaluation.protocols import Protocol


def begin_evaluation(compiler: Compiler, experiment: Experiment, examples: Examples) -> tuple:
    """Begins to compile the evaluation of a split; returns its name."""
    images, labels = examples.take(np.zeros(1, np.int64))
    name = 'evaluation', images.shape, labels.shape

    def make():
        batch = {'image': images, 'label': labels, 'mask': np.ones(1, np.float32)}
        batch = meshes.shapes_of(batch, experiment.eval_batch_size, experiment.mesh)
        return experiment.eval_step().lower(experiment.abstract_state(), batch).compile()

    compiler.begin(name, make)
    return name


def begin_predictions(
    compiler: Compiler, experiment: Experiment, examples: Examples, protocol: Protocol,
    variables: dict,
) -> tuple:  # fmt: skip
    """Begins to compile the logits of a split; returns their name."""
    images, _ = examples.take(np.zeros(1, np.int64))
    net = predictions.forward(experiment.model, experiment.mean, experiment.std, protocol, experiment.mesh)
    shape = experiment.eval_batch_size, *images.shape[1:]
    name = 'predictions', images.shape
    compiler.begin(name, functools.partial(net.compiled, variables, shape))
    return name
