"""The stages of progressive resizing: a stream and a compiled step for each, the next one compiled ahead."""

import dataclasses
import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError
from cvresearch.data import resizing, transforms
from cvresearch.data.sources import Examples
from cvresearch.data.stream import Stream
from cvresearch.engine.compiling import Compiler
from cvresearch.engine.experiment import Program
from cvresearch.engine.state import State
from cvresearch.evaluation import predictions
from cvresearch.evaluation.protocols import Protocol

WORKERS = 2  # batches of encoded images made at once, so that no thread waits at the end of one


class Stages:
    """What a training takes its batches and its updates from; both are functions of the step.

    A run without progressive resizing has one stage.
    """

    def __init__(self, program: Program, config: ConfigDict):
        self._program, self._config = program, config
        self.compiler = Compiler()
        plan = program.plan
        self.stages = resizing.make(config.resize, plan.steps, plan.steps_per_epoch)
        self._programs = [self._program_of(stage) for stage in self.stages]
        host, hosts = jax.process_index(), jax.process_count()
        self.streams = [
            Stream(part.source.splits['train'], program.seed, config.batch_size, host, hosts, program.sampling)
            for part in self._programs
        ]  # fmt: skip
        self.workers = WORKERS if program.source.encoded else 1

    def program(self, step: int) -> Program:
        """Returns the program of a step's stage."""
        return self._programs[resizing.stage_at(self.stages, step)]

    def batch(self, step: int) -> dict:
        """Returns a batch, on the mesh."""
        return meshes.place(self.streams[resizing.stage_at(self.stages, step)].batch(step), self._program.mesh)

    def update(self, step: int, state: State, batch: dict) -> State:
        """Makes one update. On the first of a stage, the next stage's begins to be compiled."""
        return self.compiled(step)(state, batch)

    def compiled(self, step: int):
        """Returns the compiled update of a step, after waiting for it if need be."""
        return self.compiler.result(self.begin(step))

    def begin(self, step: int) -> tuple[str, int]:
        """Begins to compile the update of a step's stage, and that of the next; returns the former's name."""
        number = resizing.stage_at(self.stages, step)
        for wanted in range(number, min(number + 2, len(self.stages))):
            self.compiler.begin(('update', wanted), functools.partial(self._compile, wanted))
        return 'update', number

    def begin_evaluation(self, examples: Examples) -> tuple:
        """Begins to compile the evaluation of a split; returns its name."""
        images, labels = examples.take(np.zeros(1, np.int64))
        name = 'evaluation', images.shape, labels.shape

        def make():
            batch = {'image': images, 'label': labels, 'mask': np.ones(1, np.float32)}
            batch = self._shapes(batch, self._config.eval_batch_size)
            return self._program.eval_step().lower(self._program.abstract_state(), batch).compile()

        self.compiler.begin(name, make)
        return name

    def begin_predictions(self, examples: Examples, protocol: Protocol, variables: dict) -> tuple:
        """Begins to compile the logits of a split; returns their name."""
        program, (images, _) = self._program, examples.take(np.zeros(1, np.int64))
        net = predictions.forward(program.model, program.mean, program.std, protocol, program.mesh)
        shape = self._config.eval_batch_size, *images.shape[1:]
        name = 'predictions', images.shape
        self.compiler.begin(name, functools.partial(net.compiled, variables, shape))
        return name

    def close(self) -> None:
        """Gives up what has not begun to be compiled."""
        self.compiler.close()

    def _compile(self, number: int):
        program, stream = self._programs[number], self.streams[number]
        batch = self._shapes(stream.batch(self.stages[number].first), self._config.batch_size)
        return program.train_step().lower(program.abstract_state(), batch).compile()

    def _shapes(self, batch: dict, size: int) -> dict:
        """Returns what a batch of `size` examples is on the mesh."""
        placed = meshes.by_example(self._program.mesh)
        return {name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=placed) for name, x in batch.items()}

    def _program_of(self, stage: resizing.Stage) -> Program:
        """Returns the run's program with the size and the strengths of a stage."""
        if stage.size is None and not stage.values:
            return self._program
        config, source = self._config.copy_and_resolve_references(), self._program.source
        config.resize = ConfigDict({'name': 'none'})
        size = 'transform.train.crop.size' if source.encoded else 'augment.resize'
        for key, value in {size: stage.size, **stage.values}.items():
            _check(config, key)
            configs.override(config, key, repr(value))
        if source.encoded:
            train = source.splits['train']
            transform = transforms.make(config.transform.train, 'transform.train')
            facts = dataclasses.replace(source.facts, image_shape=(stage.size, stage.size, 3))
            splits = source.splits | {'train': train.with_transform(transform)}
            source = dataclasses.replace(source, facts=facts, splits=splits)
        return Program.of(config, source)


def _check(config: ConfigDict, key: str) -> None:
    parent, _, last = key.rpartition('.')
    node = config
    for name in parent.split('.'):
        node = node.get(name) or ConfigDict()
    if last not in node and 'name' not in node:
        raise UserError(f'config.resize sets config.{key}, which this experiment does not have')
