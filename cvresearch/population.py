"""Many small runs as one program: members that differ only in numbers train together.

The members' states are stacked along a leading axis, and one compiled step, a `vmap` of the ordinary
one over states, batches and numbers, updates them all. Everything else is the ordinary loop of
`train.py`, once for each member: evaluations, records, checkpoints, resuming. So each leaves an ordinary
workdir. Its result equals the run made alone, but for rounding: numbers are float32 arguments here and
constants there, and one product over all members adds up in another order.
"""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import settings
from cvresearch.base.errors import PREEMPTED, UserError, nearest
from cvresearch.base.preemption import Preemption
from cvresearch.base.records import read_card
from cvresearch.base.traced import Traced
from cvresearch.base.workdir import claim
from cvresearch.engine import teacher
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.session import Session
from cvresearch.engine.warm_start import WarmStart
from cvresearch.nn import devices
from cvresearch.optim import compression, updates
from cvresearch.train import Training

# What members may differ in, beside the seed: tested to reach the compiled step as arguments.
NUMBERS = (
    'schedule.peak',
    'optimizer.weight_decay',
    'loss.label_smoothing',
    'mixing.mixup',
    'optimizer.momentum',
    'optimizer.b1',
    'optimizer.b2',
)


def run(members: Sequence[ConfigDict], workdirs: Sequence[str | Path]) -> int:
    """Trains the members together, each in its workdir, from where earlier processes left off.

    Returns:
      The exit code: 0 all finished, 75 preempted.

    Raises:
      UserError: members that differ in more than numbers; as `train.run`.
    """
    numbers = differing(members)
    settings.check()
    starts = [WarmStart.of(config, workdir) for config, workdir in zip(members, workdirs, strict=True)]
    members = [start.config for start in starts]
    first = Experiment.from_config(members[0])
    experiments = [first, *(Experiment.from_config(config, first.source) for config in members[1:])]
    for experiment in experiments:
        experiment.check_training()
    with Preemption() as preemption, contextlib.ExitStack() as closing:
        paths = [closing.enter_context(claim(w, c)) for w, c in zip(workdirs, members, strict=True)]
        cards = [read_card(path) for path in paths]
        open_ = [i for i, card in enumerate(cards) if not card or card['status'] != 'finished']
        if not open_:
            return 0
        population = Population([members[i] for i in open_], first, numbers)
        trainings = []
        for place, i in enumerate(open_):
            session = Session(experiments[i], paths[i], preemption, closing)
            trainings.append(Member(population, place, session, starts[i]))
        with contextlib.ExitStack() as ending:
            for training in trainings:
                ending.enter_context(training.session.ending(training))
            ended = population.train(trainings)
            for training, how in zip(trainings, ended, strict=True):
                training.session.end(how, training.state, training.step)
    return 0 if set(ended) == {'finished'} else PREEMPTED


def differing(members: Sequence[ConfigDict]) -> list[str]:
    """Returns the keys in which members differ, but for the seed.

    Raises:
      UserError: a key that is no number of `NUMBERS`, or one that is 0 for some and not for others, where 0
        is another program.
    """
    if any(epoch for _, epoch in updates.make(members[0].updates).thaws):
        raise UserError('members of a population unfreeze nothing on the way: train these --on local')
    if members[0].resize.name != 'none':
        raise UserError('members of a population are not resized on the way: set config.resize.name to none')
    if members[0].method.name != 'supervised' or members[0].unlabelled.name != 'none':
        raise UserError(
            f'members of a population learn from labels alone, and config.method.name is {members[0].method.name!r} '
            f'with config.unlabelled.name {members[0].unlabelled.name!r}; run them --on local'
        )
    if compression.is_on(members[0]):
        raise UserError('members of a population are not compressed on the way: run them --on local')
    flat = [configs.flatten(config) for config in members]
    keys = [key for key in dict.fromkeys(k for f in flat for k in f) if len({repr(f.get(key)) for f in flat}) > 1]
    for key in keys:
        values = [f.get(key) for f in flat]
        if key == 'seed':
            continue
        if key not in NUMBERS or not all(isinstance(value, int | float) for value in values):
            raise UserError(
                f'members of a population differ in {key} ({values[0]!r}, {values[-1]!r}); {nearest(key, NUMBERS)}, '
                'and seed; run the others --on local'
            )
        if 0 in values:
            raise UserError(
                f'members of a population have {key} = 0 and {max(cast(list[float], values))}: at 0 that part of the '
                'program is left out; put those runs into a population of their own'
            )
    return [key for key in keys if key != 'seed']


def groups(members: Sequence[ConfigDict]) -> list[list[int]]:
    """Returns which members can be a population: those alike but for the seed and numbers that are not 0."""
    places_of: dict[str, list[int]] = {}
    for place, member in enumerate(members):
        flat = configs.flatten(member)
        rest = {key: bool(value) if key in NUMBERS and value is not None else value for key, value in flat.items()}
        places_of.setdefault(repr(sorted({**rest, 'seed': 0}.items(), key=lambda item: item[0])), []).append(place)
    return list(places_of.values())


class Population:
    """The stacked states of members that are at one step, and the step that makes the next ones."""

    def __init__(self, members: Sequence[ConfigDict], experiment: Experiment, numbers: Sequence[str]):
        self.config, self.experiment, self.teacher = members[0], experiment, teacher.of(experiment)
        self.numbers = {
            key: jnp.array([configs.flatten(member)[key] for member in members], jnp.float32) for key in numbers
        }
        self.states: list = [None] * len(members)  # of members whose state is not in the stack
        self.stack, self.places = None, []
        self.evaluation = None
        options = devices.compiler_options(jax.default_backend())
        self.step = jax.jit(jax.vmap(self._one), donate_argnums=1, compiler_options=options)

    def _one(self, numbers: dict[str, jax.Array], state, batch: dict):
        plain = self.config.to_dict()
        for key, array in numbers.items():
            *parents, last = key.split('.')
            node = functools.reduce(dict.__getitem__, parents, plain)
            node[last] = Traced(node[last], array)
        experiment = Experiment.from_config(ConfigDict(plain, convert_dict=True), self.experiment.source)
        return experiment.train_step(self.teacher)(state, batch)

    def train(self, trainings: Sequence['Member']) -> list[str]:
        """Trains all to their ends; returns how each ended."""
        ended = [''] * len(trainings)
        while going := [i for i, how in enumerate(ended) if not how]:
            # After a kill members may be at different steps: the ones behind catch up first.
            lowest = min(trainings[i].step for i in going)
            group = [i for i in going if trainings[i].step == lowest]
            for i in group:
                if not trainings[i].arrived:
                    ended[i] = trainings[i].arrive(lowest)
                    trainings[i].arrived = True
            if not any(ended[i] for i in group):
                self._advance([trainings[i] for i in group])
        return [how for how in ended if how is not None]

    def _advance(self, group: Sequence['Member']) -> None:
        places = [training.place for training in group]
        if places != self.places or any(self.states[place] is not None for place in places):
            states = [self.state_of(place) for place in places]
            self._unstack()
            self.stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            self.places = places
            self.states = [None if i in places else state for i, state in enumerate(self.states)]
        batches = [next(training.batches) for training in group]
        batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
        numbers = {key: values[jnp.array(places)] for key, values in self.numbers.items()}
        self.stack = self.step(numbers, self.stack, batch)
        for training in group:
            training.step += 1
            training.arrived = False
            training.session.arrived(training.step, self.stack)

    def eval_step_of(self, experiment: Experiment):
        """Returns the compiled evaluation, one for all members whose losses are the same function."""
        smoothing = 'loss.label_smoothing' in self.numbers
        if smoothing or self.evaluation is None:
            self.evaluation = experiment.eval_step()
        return self.evaluation

    def _unstack(self) -> None:
        for place in self.places:
            self.states[place] = self.state_of(place)
        self.places = []

    def state_of(self, place: int):
        """Returns the state of one member."""
        if self.states[place] is not None:
            return self.states[place]
        row = self.places.index(place)
        return jax.tree.map(lambda leaf: leaf[row], self.stack)


class Member(Training):
    """A run whose state is a row of the population's."""

    def __init__(self, population: Population, place: int, session: Session, start: WarmStart):
        self.population, self.place = population, place
        self.arrived = False  # at its step: what is due there is done
        super().__init__(session, start)
        self.evaluator.eval_step = lambda split: population.eval_step_of(self.experiment)

    @property
    def state(self):
        """The member's state, taken out of the stack."""
        return self.population.state_of(self.place)

    @state.setter
    def state(self, value) -> None:
        self.population.states[self.place] = value

    def _compiled(self, step: int) -> None:
        """Nothing: the population compiles the updates of all."""
