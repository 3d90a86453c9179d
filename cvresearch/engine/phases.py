"""The phases of a training, in which images have one size: a stream and a compiled update for each."""

import dataclasses
import functools
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError
from cvresearch.data import resizing, sources, transforms
from cvresearch.data.stream import Paired, Stream
from cvresearch.engine.compiling import Compiler
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.state import State

WORKERS = 2  # batches of encoded images made at once, so that no thread waits at the end of one


class Phases:
    """What a training takes its batches and its updates from; both are functions of the step.

    A run without progressive resizing has one phase; otherwise the next one is compiled ahead.
    """

    def __init__(self, experiment: Experiment, teacher: Callable | None = None):
        self._experiment, self._config, self._teacher = experiment, experiment.config, teacher
        self.compiler = Compiler()
        plan, config = experiment.plan, experiment.config
        self.phases = resizing.make(config.resize, plan.all_steps, plan.steps_per_epoch)
        self._experiments = [self._program_of(phase) for phase in self.phases]
        self.streams = [stream_of(part) for part in self._experiments]
        self.workers = WORKERS if experiment.source.encoded else 1

    def experiment(self, step: int) -> Experiment:
        """Returns the program of a step's phase."""
        return self._experiments[resizing.stage_at(self.phases, step)]

    def batch(self, step: int) -> dict:
        """Returns a batch, on the mesh."""
        return meshes.place(self.streams[resizing.stage_at(self.phases, step)].batch(step), self._experiment.mesh)

    def update(self, step: int, state: State, batch: dict) -> State:
        """Makes one update. On the first of a phase, the next phase's begins to be compiled."""
        return self.compiled(step)(state, batch)

    def compiled(self, step: int):
        """Returns the compiled update of a step, after waiting for it if need be."""
        return self.compiler.result(self.begin(step))

    def begin(self, step: int) -> tuple[str, int]:
        """Begins to compile the update of a step's phase, and that of the next; returns the former's name."""
        number = resizing.stage_at(self.phases, step)
        for wanted in range(number, min(number + 2, len(self.phases))):
            self.compiler.begin(('update', wanted), functools.partial(self._compile, wanted))
        return 'update', number

    def close(self) -> None:
        """Gives up what has not begun to be compiled."""
        self.compiler.close()

    def _compile(self, number: int):
        experiment, stream = self._experiments[number], self.streams[number]
        batch = meshes.shapes_of(stream.batch(self.phases[number].first), self._config.batch_size, experiment.mesh)
        return experiment.train_step(self._teacher).lower(experiment.abstract_state(), batch).compile()

    def _program_of(self, phase: resizing.Stage) -> Experiment:
        """Returns the run's program with the size and the strengths of a phase."""
        if phase.size is None and not phase.values:
            return self._experiment
        config, source = self._config.copy_and_resolve_references(), self._experiment.source
        config.resize = ConfigDict({'name': 'none'})
        size = 'transform.train.crop.size' if source.encoded else 'augment.resize'
        for key, value in {size: phase.size, **phase.values}.items():
            _check(config, key)
            configs.override(config, key, repr(value))
        if source.encoded:
            train, other = source.splits['train'], source.unlabelled
            transform = transforms.make(config.transform.train, 'transform.train')
            facts = dataclasses.replace(source.facts, image_shape=(phase.size, phase.size, 3))
            splits = source.splits | {'train': train.with_transform(transform)}
            other = other and other.with_transform(transform)
            source = dataclasses.replace(source, facts=facts, splits=splits, unlabelled=other)
        return Experiment.from_config(config, source)


def stream_of(experiment: Experiment) -> Stream | Paired:
    """Returns this host's stream of an experiment's training images, and of those without labels if there are any."""
    source, config = experiment.source, experiment.config
    host, hosts = jax.process_index(), jax.process_count()
    stream = Stream(source.splits['train'], experiment.seed, config.batch_size, host, hosts, experiment.sampling)
    if source.unlabelled is None:
        return stream
    strong = sources.strong_view(source.unlabelled, config.unlabelled) if experiment.method.strong_view else None
    return Paired.of(stream, source.unlabelled, config.unlabelled.get('ratio', 1), strong)


def _check(config: ConfigDict, key: str) -> None:
    parent, _, last = key.rpartition('.')
    node = config
    for name in parent.split('.'):
        node = node.get(name) or ConfigDict()
    if last not in node and 'name' not in node:
        raise UserError(f'config.resize sets config.{key}, which this experiment does not have')
