"""The whole of training on one page: data, model, optimizer, state, restore, then the loop."""

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cvresearch.base import compile_cache, hosts, trees
from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.base.clock import Clock
from cvresearch.base.errors import PREEMPTED, RunError
from cvresearch.base.hosts import Agreement
from cvresearch.base.paths import local
from cvresearch.base.preemption import Preemption
from cvresearch.base.progress import Progress
from cvresearch.base.records import Metrics, RunCard, in_words, named
from cvresearch.base.speed import Observation, Profile, Speed
from cvresearch.base.workdir import claim
from cvresearch.data import identity, sources
from cvresearch.data.stream import prefetch
from cvresearch.engine import continuing, datasets, memory_plan, recipes, teacher
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.early_stopping import SPLIT, best_step
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.phases import Phases
from cvresearch.engine.trained import SNAPSHOTS, variables_of, without_optimizer
from cvresearch.evaluation import periodic, predictions, protocols
from cvresearch.evaluation.predictions import KEPT, Predictions
from cvresearch.evaluation.totals import evaluate
from cvresearch.nn.stacked import unstack
from cvresearch.objectives import metrics


def run(config: ConfigDict, workdir: str | Path, observation: Observation = Observation(), extend: bool = False) -> int:
    """Trains a configuration in `workdir`, from where an earlier process left off.

    Args:
      config: of the run.
      workdir: its folder.
      observation: what is watched beside; no result depends on it.
      extend: the run is there, perhaps finished, and is trained on to more epochs.

    Returns:
      The exit code: 0 finished, 75 preempted (the state is saved; the same command goes on).

    Raises:
      UserError: bad input, before anything is written.
      RunError: the run cannot go on: a loss that is not finite, a disk that is full.
    """
    workdir = local(workdir, 'workdir')
    experiment = Experiment.from_config(config)  # mesh, data, model, optimizer: made and checked
    experiment.plan.check_batch()
    # Of several hosts the first alone has to do with the folder.
    claimed = claim(workdir, config, extend) if hosts.is_primary() else contextlib.nullcontext(workdir.absolute())
    with claimed as path, Preemption() as preemption, contextlib.ExitStack() as closing:
        card, longer = hosts.broadcast(continuing.found(path, config) if hosts.is_primary() else None)
        if card and card['status'] == 'finished' and not longer:
            if hosts.is_primary():
                print(f'{path} is finished at step {card["step"]:,}: {in_words(card["final"])}')
                datasets.warn_of_changes(path, card, experiment.source)
            return 0
        if (too_large := memory_plan.check(experiment)) and hosts.is_primary():
            print(f'warning: {too_large}', file=sys.stderr)
        training = Training(experiment, config, path, preemption, closing, observation)
        training.adopt_config()
        try:
            ended = training.loop()
        except BaseException:
            with contextlib.suppress(RunError):  # a full disk must not hide what went wrong
                training.end('failed')
            raise
        training.end(ended)
    return 0 if ended == 'finished' else PREEMPTED


class Training:
    """One process' share of a run: what is open while the loop turns."""

    def __init__(
        self, experiment: Experiment, config: ConfigDict, path: Path, preemption: Preemption,
        closing: contextlib.ExitStack, observation: Observation = Observation(),
    ):  # fmt: skip
        self.experiment, self.config, self.path, self.preemption = experiment, config, path, preemption
        self.plan, self.mesh, self.splits = experiment.plan, experiment.mesh, experiment.source.splits
        self.clock, self.started = Clock(), False
        self.cache = closing.enter_context(compile_cache.counted())
        dataset = datasets.compared(path, experiment.source)
        self.checkpoints = closing.enter_context(contextlib.closing(
            Checkpoints(path / 'checkpoints', config.keep, failures=config.save_failures)
        ))  # fmt: skip
        self.snapshots = None
        if experiment.snapshots:
            self.snapshots = closing.enter_context(contextlib.closing(Checkpoints(path / SNAPSHOTS, keep=None)))
        self.taken = set(hosts.broadcast(self.snapshots.steps() if self.snapshots else []))
        with self.clock.spent('initialise'):
            self.state = self.checkpoints.restore(experiment.abstract_state()) or experiment.initial_state()
        self.step = int(self.state.position)  # of the stream: the same number on the host, known without waiting
        self.card = RunCard(
            path, model=config.model.name, seed=experiment.seed, data=experiment.source.facts.name,
            mesh=dict(experiment.mesh.shape), hyperparameters=configs.flatten(config), dataset=dataset,
        )  # fmt: skip
        self.records = closing.enter_context(contextlib.closing(Metrics(path, self.step)))
        self.names = {(name, w): named(name, w) for name in self.splits for w in experiment.weights}
        evaluated = [f'{name}/top1' for (split, _), name in self.names.items() if split != 'train']
        self.records.describe(configs.flatten(config), evaluated)
        self._follow_plateau()

        self.stages = closing.enter_context(contextlib.closing(Phases(experiment, config, teacher.of(experiment))))
        self.damage = getattr(self.splits['train'], 'damage', None)  # of encoded images only
        if self.damage:
            path.mkdir(parents=True, exist_ok=True)  # of each host
            self.damage.keep_in(path / f'damaged{jax.process_index() or ""}.jsonl')
        self.agreement, self.stopping, self.waited_for = Agreement(), False, set()
        with self.clock.spent('compile'):
            if self.step < self.plan.steps:
                self._compiled()
        self.batches = closing.enter_context(contextlib.closing(
            prefetch(self.stages.batch, self.step, self.plan.steps, workers=self.stages.workers)
        ))  # fmt: skip
        self._observe(observation, closing)
        for line in [*sources.told(experiment.source), experiment.greeting(config.model.name, self.step)]:
            self.progress.say(line)

    def adopt_config(self) -> None:
        """Goes on with the run's configuration as it is now: says what has changed, and records it."""
        if not hosts.is_primary():
            return
        lines, extended_from = continuing.adopted(self.path, self.experiment, self.config, self.state)
        for line in lines:
            self.progress.say(line)
        self.card.continued(self.step, lines, extended_from)

    def loop(self) -> str:
        """Trains to the end, or to a request to stop; returns 'finished' or 'preempted'."""
        turns = self.turns()
        while True:
            try:
                next(turns)
            except StopIteration as ended:
                return ended.value
            self.update()

    def update(self) -> None:
        """Makes the update of this step."""
        with self.clock.waiting():
            batch = next(self.batches)
        with self.profile.update(self.step, self.state):
            self.state = self.stages.update(self.step, self.state, batch)
        if not self.started:
            self._note_start()

    def _note_start(self) -> None:
        """Records what the first step of this process took to get to, and whether the cache spared it compiling."""
        jax.block_until_ready(self.state)
        self.started = True
        self.card.update(self.clock.wall, first_step={'seconds': round(self.clock.wall, 3), **self.cache})

    def turns(self) -> Iterator[None]:
        """Does what is due at each step, and yields where the state is to make the next one; returns as `loop`."""
        plan, config = self.plan, self.config
        while True:
            # Arrived at `step`. What an earlier process recorded here before it was killed is not
            # done again; the rest is, and comes out the same.
            log = plan.due(self.step, every_steps=config.log_every_steps) and not self.records.has(self.step, 'train')
            evaluation = [which for which in self._evaluations() if not self.records.has(self.step, *which)]
            # A run that has ended has its last checkpoint, however seldom it saves.
            save = self.step == plan.steps or plan.due(self.step, every_epochs=config.save_every_epochs)
            snapshot = self.step in self.experiment.snapshots and self.step not in self.taken
            if log or evaluation or save or snapshot:
                jax.block_until_ready(self.state)  # steps under way count as training
                self._check_finite()

            if log:
                with self.clock.spent('log'):
                    self._log()

            if self.plan.due(self.step, every_epochs=1) and not self.records.has(self.step, 'data'):
                with self.clock.spent('log'):
                    self._record_data()

            if self.step == plan.steps and config.batch_norm.get('precise_batches', 0):
                with self.clock.spent('evaluate'):
                    self._make_statistics_precise()

            for split, weights in evaluation:
                with self.clock.spent('evaluate'):
                    self._evaluate(split, weights)

            if snapshot:
                with self.clock.spent('save'):
                    self._snapshot()

            stopped = not self.stopping and self._stops_early()
            if stopped:
                with self.clock.spent('evaluate'):
                    stopped = self._finish_early()

            if self.step < plan.steps and not stopped:
                with self.clock.spent('compile'):
                    self._compiled()

            # Asked once for the rest of this turn: a signal that came between saving and returning
            # would otherwise end the run without its last step.
            stop = self.stop()
            last = self.step == plan.steps or stopped
            best = self._best_step() if save or evaluation or stop or last else None
            if save or best == self.step or stop or last:
                self._check_finite()
                with self.clock.spent('save'):
                    self.records.sync()
                    self.checkpoints.save(self.state, self.step, best, must=stop or last)

            if last or stop:
                with self.clock.spent('save'):
                    self.checkpoints.wait()
                return 'finished' if last and self._evaluated() else 'preempted'

            yield
            self.step += 1
            self.progress.step(self.step)

    def _observe(self, observation: Observation, closing: contextlib.ExitStack) -> None:
        """Begins to watch: speed, progress, and what was asked for."""
        devices, batch_size = list(self.mesh.devices.flat), self.config.batch_size
        peak = observation.peak_flops(jax.local_devices()[0], self.config.dtype)
        experiments = {stage.first: self.stages.experiment(stage.first) for stage in self.stages.stages} if peak else {}
        flops = {id(experiment): experiment.training_flops() for experiment in experiments.values()}
        self.speed = Speed(
            self.clock, self.step, batch_size, devices, peak, lambda step: flops[id(self.stages.experiment(step))]
        )
        self.progress = closing.enter_context(contextlib.closing(
            Progress(self.speed, self.step, self.plan.steps, quiet=not hosts.is_primary())
        ))  # fmt: skip
        first = observation.first(self.step, self.plan.steps)
        profile = Profile(self.clock, self.path / 'profile', first, observation.profile if hosts.is_primary() else 0)
        self.profile = closing.enter_context(contextlib.closing(profile))

    def end(self, how: str) -> None:
        """Writes the run card."""
        good, final = {}, self._final()
        if how != 'failed':
            params = unstack(hosts.to_host(self.state.params))
            good = dict(params=trees.count(params), params_sha256=trees.sha256(params), **self._skipped())
        damaged = dict(damaged=sorted(self.damage.found)) if self.damage else {}
        self.card.end(
            how, self.clock.wall, step=self.step, images_seen=self.step * self.config.batch_size, **good, **damaged,
            **self._stopped_early(how), final=final, **self.speed.values(),
            seconds_by_purpose={
                name: round(value, 3) for name, value in {'train': self.clock.training, **self.clock.seconds}.items()
            },
        )  # fmt: skip
        if how == 'finished':
            self.records.finish()
        early = f' of {self.plan.steps:,} ({self.experiment.stopping})' if self._stopped_early(how) else ''
        self.progress.say(f'{how} at step {self.step:,}{early}: {in_words(final)}; {self.path}')

    def stop(self) -> bool:
        """Whether the run is asked to stop, here or on another host. All hosts ask at the same places."""
        self.stopping = self.stopping or self.agreement.soon(self.preemption.requested)
        return self.stopping

    def _compiled(self) -> bool:
        """Waits until the update of this step is compiled; False where the run is asked to stop before."""
        return self._wait_for(self.stages.begin(self.step))

    def _wait_for(self, name: tuple) -> bool:
        if name not in self.waited_for and not self.stopping:
            done = functools.partial(self.stages.compiler.done, name)
            if self.agreement.wait(done, lambda: self.preemption.requested):
                self.waited_for.add(name)
            else:
                self.stopping = True
        return not self.stopping

    def _eval_step(self, split: str):
        """Returns the compiled evaluation of a split's batches, None where the run is asked to stop before."""
        name = periodic.begin_evaluation(self.stages.compiler, self.experiment, self.splits[split])
        return self.stages.compiler.result(name) if self._wait_for(name) else None

    def _log(self) -> None:
        # Of the last update: a batch that was skipped has none.
        learning_rate = float(self.experiment.schedule(max(int(self.state.step) - 1, 0)))
        if self.state.plateau:
            learning_rate *= float(self.state.plateau['scale'])
        values = metrics.means(metrics.total(None, self.state.sums))
        values |= {'learning_rate': learning_rate, **self.speed.values(), **self._skipped()}
        self.records.write(self.step, self.plan.epoch(self.step), 'train', values)
        self.state = self.state.replace(sums=hosts.to_devices(metrics.zeros(), meshes.replicated(self.mesh)))

    def _skipped(self) -> dict[str, int]:
        """Returns how many batches were skipped, where they may be."""
        return {'skipped': int(self.state.skipped['total'])} if self.state.skipped else {}

    def _record_data(self) -> None:
        """Writes the digest of the epochs that ended with this step, and how many images had to be replaced."""
        # An epoch ends with the batch that holds its last image.
        before, after = (step * self.config.batch_size // self.plan.examples for step in (self.step - 1, self.step))
        if digests := [self.stages.streams[0].digest(epoch) for epoch in range(before, after)]:
            values = {'n_seen': len(digests) * self.plan.examples, 'sha256': ' '.join(digests)}
            damaged = {'damaged': hosts.total(len(self.damage.found))} if self.damage else {}
            self.records.write(self.step, self.plan.epoch(self.step), 'data', values | damaged)

    def _final(self) -> dict[str, dict]:
        """Returns the last row of each split, 'test_ema' for those of averaged weights."""
        return {name: rows[-1] for which, name in self.names.items() if (rows := self.records.of(*which))}

    def _evaluations(self) -> list[tuple[str, str]]:
        """Returns the (split, weights) to evaluate at this step."""
        due = self.plan.due(self.step, every_epochs=self.config.evaluate_every_epochs)
        return [which for which in self.names if which[0] != 'train'] if due else []

    def _evaluated(self) -> bool:
        """Whether all that is due at this step is evaluated."""
        return all(self.records.has(self.step, *which) for which in self._evaluations())

    def _stops_early(self) -> bool:
        """Whether the run ends here, before its last step: a function of the records, on all hosts the same."""
        rule = self.experiment.stopping
        if rule is None or self.step == self.plan.steps or not self._evaluated():
            return False
        return rule.stops_at(self.records.of(SPLIT, self.experiment.weights[-1])) == self.step

    def _finish_early(self) -> bool:
        """Does what is due at the last step of any run; False where it was given up."""
        if not self.records.has(self.step, 'train'):
            self._log()
        return all(self._keep_predictions(*which) for which in self._evaluations())

    def _stopped_early(self, how: str) -> dict[str, dict]:
        if how != 'finished' or self.step == self.plan.steps:
            return {}
        return {'stopped_early': self.experiment.stopping.card(self.step, self.plan, self._best_step())}

    def _follow_plateau(self) -> None:
        """Sets the learning rate that the evaluations so far ask for, a function of the records."""
        if rule := self.experiment.plateau:
            self.state = self.experiment.with_plateau(self.state, self.records.of(rule.split))

    def _make_statistics_precise(self) -> None:
        """Computes the statistics of norms anew over the last batches. To do so again changes nothing."""
        last = range(self.plan.steps - self.config.batch_norm.precise_batches, self.plan.steps)
        batches = (self.stages.batch(max(step, 0)) for step in last)
        self.state = self.stages.experiment(self.plan.steps - 1).with_precise_statistics(self.state, batches)

    def _evaluate(self, split: str, weights: str = 'raw') -> None:
        state = self.state if weights == 'raw' else self.state.averaged()
        eval_step = self._eval_step(split)
        values = eval_step and evaluate(
            eval_step, state, self.splits[split], self.experiment.eval_batch_size, self.mesh, stop=self.stop
        )
        if values is None:  # the next process does it
            return
        if self.step == self.plan.steps and not self._keep_predictions(split, weights):
            return
        how = {**self._protocol(split).record, 'weights': weights}
        self.records.write(self.step, self.plan.epoch(self.step), split, values | how)
        if weights == 'raw':
            self._follow_plateau()
        of = split if weights == 'raw' else f'{split} ({weights})'
        self.progress.say(
            f'epoch {self.plan.epoch(self.step):.4g}: {of} loss {values["loss"]:.4f}, top-1 {values["top1"]:.2f} %, '
            f'{values["n_seen"]:,} images'
        )

    def _snapshot(self) -> None:
        """Saves the end of a cycle, for ensembles, and waits: no checkpoint may be newer than a missing snapshot."""
        self.snapshots.save(without_optimizer(self.state), self.step, must=True)
        self.snapshots.wait()
        self.taken.add(self.step)

    def _protocol(self, split: str) -> protocols.Protocol:
        return protocols.as_given(self.splits[split], self.experiment.source.facts.image_shape)

    def _keep_predictions(self, split: str, weights: str) -> bool:
        """Writes the logits of the last evaluation, from which later metrics are; False where it was given up."""
        if not self.config.keep_predictions:
            return True
        experiment, protocol = self.experiment, self._protocol(split)
        variables = variables_of(self.state, weights)
        name = periodic.begin_predictions(
            self.stages.compiler, experiment, self.splits[split], protocol, variables
        )  # fmt: skip
        if not self._wait_for(name):
            return False
        logits_of = self.stages.compiler.result(name)(variables)
        found = predictions.predict(
            logits_of, self.splits[split], protocol, self.experiment.eval_batch_size, self.mesh, stop=self.stop
        )
        if found is not None and hosts.is_primary():
            record = {'run': self.path.name, 'model': self.config.model.name, 'seed': experiment.seed, 'split': split}
            record |= {'data': experiment.source.facts.name}
            record |= {'images_sha256': identity.images_sha256(self.splits[split])}
            record |= {'step': self.step, **protocol.record, 'weights': weights}
            kept = Predictions(*found, record, experiment.source.facts.class_names)
            kept.save(self.path / KEPT / f'{self.names[split, weights]}.npz')
        return found is not None

    def _best_step(self) -> int | None:
        """Returns the earliest step of the best evaluation on minival, None where nothing is held out.

        Where the run averages its weights, of the average: that is what it is for.
        """
        return best_step(self.records.of(SPLIT, self.experiment.weights[-1]), self.experiment.selection)

    def _check_finite(self) -> None:
        bad = int(self.state.bad_step)
        if bad < 0:
            return
        self.checkpoints.wait()
        raise recipes.not_finite(bad, self.checkpoints.steps(), self.experiment.recipe.skip)
