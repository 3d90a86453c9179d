"""The phases of a training, in which images have one size and the same parts rest: a compiled update for each."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError
from cvresearch.data import resizing, sources, transforms
from cvresearch.data.stream import Paired, Stream, prefetch
from cvresearch.engine.compiling import Compiler
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.state import State
from cvresearch.nn import devices

WORKERS = 2  # batches of encoded images made at once, so that no thread waits at the end of one


class Phases:
    """What a training takes its batches and its updates from; both are functions of the step.

    A run without progressive resizing, in which nothing is unfrozen, has one phase; otherwise the next one is compiled
    ahead.
    """

    def __init__(self, experiment: Experiment, teacher: Callable | None = None):
        self._experiment, self._config, self._teacher = experiment, experiment.config, teacher
        self.compiler = Compiler()
        plan, config = experiment.plan, experiment.config
        sizes = resizing.make(config.resize, plan.all_steps, plan.steps_per_epoch)
        self.phases = _divided(sizes, self._thaws())
        # One experiment for each size, not for each phase: an unfreezing in between changes no image.
        of_size = [self._experiment_of(phase) for phase in sizes]
        self._experiments = [of_size[resizing.phase_at(sizes, phase.first)] for phase in self.phases]
        self.streams = [stream_of(part) for part in self._experiments]
        self.workers = WORKERS if experiment.source.encoded else 1

    def _thaws(self) -> list[int]:
        """Returns the steps at which modules leave inference mode; each begins a phase with an update of its own."""
        freezing = self._experiment.freezing
        starts = freezing.starts(self._experiment.abstract_state().params) if freezing.inference else []
        return [start for start in starts if start < self._experiment.plan.steps]

    def experiment(self, step: int) -> Experiment:
        """Returns the experiment of a step's phase."""
        return self._experiments[resizing.phase_at(self.phases, step)]

    def batch(self, step: int) -> dict:
        """Returns a batch, on the mesh."""
        return meshes.place(self.own_batch(step), self._experiment.mesh)

    def batches(self, start: int) -> Iterator[dict]:
        """Returns the batches from a step to the end of the run, the next ones made in threads while one is used."""
        return prefetch(self.batch, start, self._experiment.plan.steps, workers=self.workers)

    def own_batch(self, step: int) -> dict:
        """Returns this host's part of a batch, in its memory."""
        return self.streams[resizing.phase_at(self.phases, step)].batch(step)

    def update(self, step: int, state: State, batch: dict) -> State:
        """Makes one update. On the first of a phase, the next phase's begins to be compiled."""
        return self.compiled(step)(state, batch)

    def compiled(self, step: int):
        """Returns the compiled update of a step, after waiting for it if need be."""
        return self.compiler.result(self.begin(step))

    def with_precise_statistics(self, state: State) -> State:
        """Returns the state with statistics of norms over the last batches. To do so again changes nothing."""
        steps = self._experiment.plan.steps
        # The last ones, not new ones: a run that is continued after its end finds the same statistics.
        last = range(steps - self._config.precise_batches, steps)
        batches = (self.batch(max(step, 0)) for step in last)
        return self.experiment(steps - 1).with_precise_statistics(state, batches)

    def begin(self, step: int) -> tuple[str, int]:
        """Begins to compile the updates of a step's phase and of the next; returns the name of the first."""
        number = resizing.phase_at(self.phases, step)
        # The next phase too, in the background: a run would stand still for minutes where a size changes.
        for wanted in range(number, min(number + 2, len(self.phases))):
            self.compiler.begin(('update', wanted), functools.partial(self._compile, wanted))
        return 'update', number

    def close(self) -> None:
        """Gives up what has not begun to be compiled."""
        self.compiler.close()

    def _compile(self, number: int):
        experiment, stream = self._experiments[number], self.streams[number]
        batch = meshes.shapes_of(stream.batch(self.phases[number].first), self._config.batch_size, experiment.mesh)
        update = experiment.train_step(self._teacher, self.phases[number].first)
        options = devices.compiler_options(meshes.devices(experiment.mesh)[0].platform)
        return update.lower(experiment.abstract_state(), batch).compile(options)

    def _experiment_of(self, phase: resizing.Phase) -> Experiment:
        """Returns the run's experiment with the size and the strengths of a phase."""
        if phase.size is None and not phase.values:
            return self._experiment
        source = self._experiment.source
        config = config_of(self._config, phase, source.encoded)
        if source.encoded:
            train, other = source.splits['train'], source.unlabelled
            transform = transforms.make(config.transform.train, 'transform.train')
            facts = dataclasses.replace(source.facts, image_shape=(phase.size, phase.size, 3))
            splits = source.splits | {'train': train.with_transform(transform)}
            other = other and other.with_transform(transform)
            source = dataclasses.replace(source, facts=facts, splits=splits, unlabelled=other)
        return Experiment.from_config(config, source)


def config_of(config: ConfigDict, phase: resizing.Phase, encoded: bool) -> ConfigDict:
    """Returns the configuration of a run that were all of one phase.

    Args:
      config: of the run.
      phase: with a size, or with values that change.
      encoded: whether images are cut to their size on the host, or resized on the device.

    Raises:
      UserError: the phase sets a key that the configuration does not have.
    """
    config = config.copy_and_resolve_references()
    config.resize = ConfigDict({'name': 'none'})
    size = 'transform.train.crop.size' if encoded else 'augment.resize'
    for key, value in {size: phase.size, **phase.values}.items():
        _check(config, key)
        configs.override(config, key, repr(value))
    return config


def _divided(phases: tuple[resizing.Phase, ...], steps: list[int]) -> tuple[resizing.Phase, ...]:
    """Returns the phases, divided at some steps too."""
    firsts = sorted({*steps, *(phase.first for phase in phases)})
    return tuple(dataclasses.replace(phases[resizing.phase_at(phases, first)], first=first) for first in firsts)


def stream_of(experiment: Experiment) -> Stream | Paired:
    """Returns this host's stream of an experiment's training images, and of images without labels if there are any."""
    source, config = experiment.source, experiment.config
    # A host makes only its part of a batch; which examples that is depends on the batch alone, so hosts never talk.
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
