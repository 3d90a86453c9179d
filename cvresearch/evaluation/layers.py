"""The layers of a run while it trains: distributions of activations and gradients, and how far an update goes."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import hosts
from cvresearch.data import resizing
from cvresearch.engine import steps
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.phases import Phases
from cvresearch.engine.session import Session
from cvresearch.engine.state import State
from cvresearch.engine.trained import variables_of
from cvresearch.engine.watching import SPLIT
from cvresearch.inspect import cost, program, training
from cvresearch.inspect.training import Distribution
from cvresearch.nn.overrides import unrolled
from cvresearch.nn.stacked import unstack

_SEEN = ('image', 'label', 'epoch', 'index')  # of a batch


class Watcher:
    """Looks at the layers of a run, and records what it finds; the state stays as it is."""

    def __init__(self, session: Session, phases: Phases):
        self._session, self._phases = session, phases

    def record(self, step: int, state: State) -> bool:
        """Writes a row on the net at a step; False if the run is asked to stop before it is compiled."""
        session, phases = self._session, self._phases
        experiment = phases.experiment(step)
        shown = _first(phases.own_batch(step), experiment)
        variables = unstack(hosts.to_host(variables_of(state)))
        name = SPLIT, resizing.phase_at(phases.phases, step)
        phases.compiler.begin(name, functools.partial(_compiled, experiment, step, variables, shown))
        if not session.waits_for(phases.compiler, name):
            return False
        layers, look = phases.compiler.result(name)
        loss, *measured = look(variables, shown, hosts.to_host(state.seed))
        activations, gradients = (
            {layer: Distribution.of(np.asarray(x)).record for layer, x in zip(layers, arrays, strict=True)}
            for arrays in measured
        )
        row = {
            'n_seen': len(shown['image']),
            'loss': float(loss),
            'activations': activations,
            'gradients': gradients,
            **self._update(step, state, variables['params']),
        }
        session.records.write(step, experiment.plan.epoch(step), SPLIT, row)
        return True

    def _update(self, step: int, state: State, before: dict) -> dict:
        """Returns the ratios of the update from this step, which is made on a copy; nothing at the end of a run."""
        if step == self._phases.experiment(step).plan.steps:
            return {}
        copy = jax.tree.map(jnp.copy, state)  # an update reuses the memory of the state
        after = self._phases.update(step, copy, self._phases.batch(step))
        return {'update_ratio': training.update_ratios(before, unstack(hosts.to_host(after.params)))}


def check(experiment: Experiment) -> None:
    """Finds the layers that are to be watched.

    Raises:
      UserError: the net has no such layer.
    """
    if experiment.watch is None or not experiment.watch.names:
        return
    module, shape = unrolled(experiment.model), experiment.source.facts.image_shape
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    traced = program.trace(module, cost.shapes(module, shape), images)
    for name in experiment.watch.names:
        traced.place(name)


def _first(batch: dict, experiment: Experiment) -> dict:
    """Returns the first examples of this host's batch, whole groups of batch norm."""
    group = experiment.config.batch_norm.get('group_size', 0) or 1
    assert experiment.watch is not None  # or nothing is watched
    number = -(-experiment.watch.examples // group) * group
    return {key: batch[key][:number] for key in _SEEN}


def _compiled(experiment: Experiment, step: int, variables: dict, batch: dict) -> tuple[tuple[str, ...], Callable]:
    """Returns the names of the layers, and the compiled (variables, batch, seed) -> (loss, values, gradients).

    Images are augmented as in the update, not mixed; the net is in training mode.
    """
    assert experiment.watch is not None  # or nothing is watched
    net, _ = experiment.training_at(step)
    module = unrolled(net)
    classes = experiment.model.num_classes

    def seen(batch, seed):
        images = steps.shown(batch, experiment.augment, experiment.mean, experiment.std, seed)
        return images, experiment.task.target(batch['label'], classes)

    seed = np.zeros((), np.uint32)
    images, _ = jax.eval_shape(seen, batch, seed)
    loss = lambda logits, target: jnp.mean(experiment.loss(logits, target))  # noqa: E731
    probe = training.probe(module, variables, images, loss, experiment.watch.names, train=True)
    look = jax.jit(lambda variables, batch, seed: probe.measure(variables, *seen(batch, seed)))
    return probe.layers, look.lower(variables, batch, seed).compile()
