"""One process' share of a run: its folder and lock, signals, checkpoints, records, clock, progress, profile."""

import contextlib
import functools
import sys
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import cast

import jax

from cvresearch.base import compile_cache, hosts, plugins
from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.clock import Clock
from cvresearch.base.errors import RunError
from cvresearch.base.hosts import Agreement
from cvresearch.base.paths import local
from cvresearch.base.preemption import Preemption
from cvresearch.base.progress import Progress
from cvresearch.base.records import Metrics, RunCard, in_words, named, read_card
from cvresearch.base.speed import Observation, Profile, Speed
from cvresearch.base.tracking import Tracking
from cvresearch.base.workdir import claim
from cvresearch.data import sources
from cvresearch.data.decoded import Pictures
from cvresearch.engine import continuing, datasets, early_stopping, memory_plan, recipes
from cvresearch.engine.checkpoint import Checkpoints, count_and_digest
from cvresearch.engine.compiling import Compiler
from cvresearch.engine.due import Due
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.phases import Phases
from cvresearch.engine.state import State
from cvresearch.engine.trained import SNAPSHOTS, without_optimizer
from cvresearch.objectives import metrics


class Session:
    """What is open while a process trains a run."""

    def __init__(
        self,
        experiment: Experiment,
        path: Path,
        preemption: Preemption,
        closing: contextlib.ExitStack,
        observation: Observation = Observation(),
    ):
        self.experiment, self.config, self.path = experiment, experiment.config, path
        self.preemption, self.closing, self.observation = preemption, closing, observation
        self.clock = Clock()
        self.cache = closing.enter_context(compile_cache.counted())
        self._dataset = datasets.compared(path, experiment.source)
        keep, failures = self.config.keep, self.config.save_failures
        self.checkpoints = self.closes(Checkpoints(path / 'checkpoints', keep, failures=failures))
        self._snapshots = self.closes(Checkpoints(path / SNAPSHOTS, keep=None)) if experiment.snapshots else None
        self.names = {(name, w): named(name, w) for name in experiment.source.splits for w in experiment.weights}
        self._agreement, self.stopping, self._compiled, self._started = Agreement(), False, set(), False

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, experiment: Experiment, workdir: str | Path, observation: Observation = Observation(), extend: bool = False
    ) -> Iterator['Session | None']:
        """Claims a workdir for the length of the block; gives None for a run that is finished, and says so.

        Raises:
          UserError: a folder that holds something else or another configuration, or that another process has.
        """
        workdir, config = local(workdir, 'workdir'), experiment.config
        # Of several hosts the first alone has to do with the folder.
        claimed = claim(workdir, config, extend) if hosts.is_primary() else contextlib.nullcontext(workdir.absolute())
        with claimed as path, Preemption() as preemption, contextlib.ExitStack() as closing:
            card, longer = cast(tuple, hosts.broadcast(continuing.found(path, config) if hosts.is_primary() else None))
            if card and card['status'] == 'finished' and not longer:
                if hosts.is_primary():
                    print(f'{path} is finished at step {card["step"]:,}: {in_words(card["final"])}')
                    datasets.warn_of_changes(path, card, experiment.source)
                yield None
                return
            if (too_large := memory_plan.check(experiment)) and hosts.is_primary():
                print(f'warning: {too_large}', file=sys.stderr)
            yield cls(experiment, path, preemption, closing, observation)

    def closes(self, opened):
        """Returns what is given, which is closed with the session, the last first."""
        return self.closing.enter_context(contextlib.closing(opened))

    def restore(self) -> State | None:
        """Returns the newest whole checkpoint, None for a run that has none."""
        with self.clock.spent('initialise'):
            return self.checkpoints.restore(self.experiment.abstract_state())

    def begin(self, state: State, phases: Phases, origin: dict | None = None) -> Due:
        """Opens the records and the progress bar at the step of a state; returns what is due from there on.

        Args:
          state: from which the run goes on.
          phases: of the run.
          origin: what the state was made of, if it is the first one (`WarmStart.started`).
        """
        step, experiment = int(state.position), self.experiment
        flat = configs.flatten(self.config)
        known = plugins.records(self.config.get('plugins', ()))
        self._notes = plugins.changes((read_card(self.path) or {}).get('plugins', []), known)
        self.card = RunCard(
            self.path,
            model=self.config.model.name,
            seed=experiment.seed,
            data=experiment.source.facts.name,
            mesh=dict(experiment.mesh.shape),
            hyperparameters=flat,
            dataset=self._dataset,
            **({'plugins': known} if known else {}),
            **({'init': origin} if origin else {}),
        )
        self.records = self.closes(Metrics(self.path, step))
        metric = experiment.task.metric
        self.records.describe(flat, [f'{name}/{metric}' for (split, _), name in self.names.items() if split != 'train'])
        train = experiment.source.splits['train']
        self.damage = train.damage if isinstance(train, Pictures) else None
        if self.damage:
            self.path.mkdir(parents=True, exist_ok=True)  # of each host
            self.damage.keep_in(self.path / f'damaged{jax.process_index() or ""}.jsonl')
        taken = set(hosts.broadcast(self._snapshots.steps() if self._snapshots else []))
        self.due = Due(experiment, self.records, self.names, taken)
        self._observe(step, phases)
        began = (origin or {}).get('lines', ())
        for line in [*sources.told(experiment.source), *began, experiment.greeting(self.config.model.name, step)]:
            self.progress.say(line)
        # Only now: until the run is known to go on, its folder keeps the configuration that it had.
        self._adopt_config(state)
        if hosts.is_primary():
            self.closes(Tracking(self.path, self.observation.track))
        return self.due

    def _adopt_config(self, state: State) -> None:
        """Goes on with the run's configuration as it is now: says what has changed, and records it."""
        if not hosts.is_primary():
            return
        lines, extended_from = continuing.adopted(self.path, self.experiment, state)
        lines = [*self._notes, *lines]
        for line in lines:
            self.progress.say(line)
        self.card.continued(int(state.position), lines, extended_from)

    def _observe(self, step: int, phases: Phases) -> None:
        """Begins to watch: speed, progress, and what was asked for."""
        experiment, observation = self.experiment, self.observation
        devices, plan = meshes.devices(experiment.mesh), experiment.plan
        peak = observation.peak_flops(jax.local_devices()[0], self.config.dtype)
        parts = [phases.experiment(phase.first) for phase in phases.phases] if peak else []
        flops = {id(part): part.training_flops() for part in parts}
        self.speed = Speed(
            self.clock, step, self.config.batch_size, devices, peak, lambda at: flops[id(phases.experiment(at))]
        )
        self.progress = self.closes(Progress(self.speed, step, plan.steps, quiet=not hosts.is_primary()))
        first, steps = observation.first(step, plan.steps), observation.profile if hosts.is_primary() else 0
        self.profile = self.closes(Profile(self.clock, self.path / 'profile', first, steps))

    def arrived(self, step: int, state: State) -> None:
        """Notes that the update to `step` was dispatched; the first time it is waited for, and recorded."""
        if not self._started:
            # What the first step of this process took to get to, and whether the cache spared it compiling.
            jax.block_until_ready(state)
            self._started = True
            self.card.update(self.clock.wall, first_step={'seconds': round(self.clock.wall, 3), **self.cache})
        self.progress.step(step)

    def stop_requested(self) -> bool:
        """Whether the run is asked to stop, here or on another host. All hosts ask at the same places."""
        self.stopping = self.stopping or self._agreement.soon(self.preemption.requested)
        return self.stopping

    def waits_for(self, compiler: Compiler, name: Hashable) -> bool:
        """Waits until something is compiled; False if the run is asked to stop before."""
        # Asked until it is compiled, and not at every step: of several hosts the answer takes a collective.
        if name not in self._compiled and not self.stopping:
            done: Callable = functools.partial(compiler.done, name)
            if self._agreement.wait(done, lambda: self.preemption.requested):
                self._compiled.add(name)
            else:
                self.stopping = True
        return not self.stopping

    def check_finite(self, state: State) -> None:
        """Raises RunError if an update so far was not finite, once the last good checkpoint is whole."""
        # Looked at only where the loop waits for the device anyhow: to ask at each step would make it wait each time.
        if (bad := int(state.bad_step)) >= 0:
            self.checkpoints.wait()
            raise recipes.not_finite(bad, self.checkpoints.steps(), self.experiment.recipe.skip)

    def log(self, step: int, state: State) -> State:
        """Records the metrics of training since the last time; returns the state with its sums at zero."""
        with self.clock.spent('log'):
            # The rate of the last update: a batch that was skipped has none.
            learning_rate = float(self.experiment.schedule(max(int(state.step) - 1, 0)))
            if state.plateau:
                learning_rate *= float(state.plateau['scale'])
            values = self.experiment.task.means(metrics.total(None, state.sums))
            values |= {'learning_rate': learning_rate, **self.speed.values(), **_skipped(state)}
            self.records.write(step, self.experiment.plan.epoch(step), 'train', values)
            zeros = metrics.zeros(self.experiment.task.sums)
            return state.replace(sums=hosts.to_devices(zeros, meshes.replicated(self.experiment.mesh)))

    def record_data(self, step: int, digest: Callable[[int], str]) -> None:
        """Writes the digests of the epochs that ended with this step, and how many images had to be replaced."""
        plan, size = self.experiment.plan, self.config.batch_size
        # An epoch ends with the batch that holds its last image.
        before, after = (at * size // plan.examples for at in (step - 1, step))
        with self.clock.spent('log'):
            if digests := [digest(epoch) for epoch in range(before, after)]:
                values = {'n_seen': len(digests) * plan.examples, 'sha256': ' '.join(digests)}
                damaged = {'damaged': hosts.total(len(self.damage.found))} if self.damage else {}
                self.records.write(step, plan.epoch(step), 'data', values | damaged)

    def snapshot(self, state: State, step: int) -> None:
        """Saves the end of a cycle, for ensembles, and waits: no checkpoint may be newer than a missing snapshot."""
        assert self._snapshots is not None  # due at no step of an experiment without any
        with self.clock.spent('save'):
            self._snapshots.save(without_optimizer(state), step, must=True)
            self._snapshots.wait()
        self.due.snapshots.add(step)

    def save(self, state: State, step: int, best: int | None, must: bool) -> None:
        """Saves a checkpoint; with `must` it is on the disk when this returns."""
        with self.clock.spent('save'):
            # The records first: no checkpoint may be newer than its rows.
            self.records.sync()
            self.checkpoints.save(state, step, best, must=must)
            if must:
                self.checkpoints.wait()

    @contextlib.contextmanager
    def ending(self, training) -> Iterator[None]:
        """Writes the run card of a training that fails in the block; `training` has its `state` and `step`."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(RunError):  # a full disk must not hide what went wrong
                self.end('failed', training.state, training.step)
            raise

    def end(self, how: str, state: State, step: int) -> None:
        """Writes the run card: `how` is 'finished', 'preempted' or 'failed'."""
        plan, stopping = self.experiment.plan, self.experiment.stopping
        good, final = {}, self._final()
        early = early_stopping.card(stopping, step, plan, self.due.best_step()) if how == 'finished' else None
        # A run that failed has no digest: its parameters may not be finite, or their memory may be reused already.
        if how != 'failed':
            params, digest = count_and_digest(state.params)
            good = dict(params=params, params_sha256=digest, **_skipped(state))
        if how != 'failed' and (small := self.experiment.recipe.compression):
            good |= dict(compression=small.report(hosts.to_host(state.params)))
        damaged = dict(damaged=sorted(self.damage.found)) if self.damage else {}
        ended = {'stopped_early': early} if early else {}
        self.card.end(
            how,
            self.clock.wall,
            step=step,
            images_seen=step * self.config.batch_size,
            **good,
            **damaged,
            **ended,
            final=final,
            **self.speed.values(),
            seconds_by_purpose={
                name: round(value, 3) for name, value in {'train': self.clock.training, **self.clock.seconds}.items()
            },
        )
        if how == 'finished':
            self.records.finish()
        of = f' of {early["of_steps"]:,} ({early["why"]})' if early else ''
        self.progress.say(f'{how} at step {step:,}{of}: {in_words(final)}; {self.path}')

    def _final(self) -> dict[str, dict]:
        """Returns the last row of each split, 'test_ema' for averaged weights."""
        return {name: rows[-1] for which, name in self.names.items() if (rows := self.records.of(*which))}


def _skipped(state: State) -> dict[str, int]:
    """Returns how many batches were skipped, for a run that may skip some."""
    return {'skipped': int(state.skipped['total'])} if state.skipped else {}
