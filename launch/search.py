"""Searches by Optuna: `sweep()` returns a `sweeps.Search` in place of settings.

The study is a journal in the sweep's folder: it is resumed where it was, and launchers on many
machines may work at it together. Each trial is a run of its own, trial-0007; its evaluations are
reported as metrics.jsonl grows, and a trial that falls behind is asked to stop.
"""

import collections
import dataclasses
import fcntl
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.trial import TrialState

from cvresearch.base import sweeps
from cvresearch.base.errors import BAD_INPUT, PREEMPTED, UserError, lookup
from cvresearch.base.preemption import Preemption
from launch import devices, local, plan
from launch.progress import why

SAMPLERS = {
    'tpe': lambda seed: optuna.samplers.TPESampler(seed=seed),
    'random': lambda seed: optuna.samplers.RandomSampler(seed=seed),
    'cmaes': lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
}
PRUNERS = {
    # A resource is one evaluation.
    'asha': lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    'median': lambda: optuna.pruners.MedianPruner(n_startup_trials=3),
    'none': optuna.pruners.NopPruner,
}


def distributions(space: sweeps.Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """Returns a space in Optuna's terms."""
    spans: dict = {}
    for key, span in space.items():
        if isinstance(span, sweeps.Choice):
            spans[key] = optuna.distributions.CategoricalDistribution(span.values)
        elif span.whole:
            spans[key] = optuna.distributions.IntDistribution(int(span.low), int(span.high), log=span.log)
        else:
            spans[key] = optuna.distributions.FloatDistribution(span.low, span.high, log=span.log)
    return spans


@dataclasses.dataclass
class Going:
    """A trial that trains."""

    trial: optuna.Trial
    child: local.Child
    reported: int


class Study:
    """Brings a search to its end, `jobs` trials at a time."""

    def __init__(self, search: sweeps.Search, spec: str, overrides: Mapping[str, str], folder: Path, jobs: int):
        """Opens the study of a folder, or begins it.

        Raises:
          UserError: an unknown sampler, pruner or key; a study of another space; nothing to maximise.
        """
        self.search, self.spec, self.overrides, self.folder = search, spec, overrides, folder
        self.sampler = lookup('sampler', SAMPLERS, search.sampler)
        self.shares = devices.shares(jobs)
        self.space = distributions(search.space)
        self._check()
        (folder / plan.OWN).mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / plan.OWN / 'study.journal'))
        self.study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name='search',
            direction='maximize',
            load_if_exists=True,
            pruner=lookup('pruner', PRUNERS, search.pruner)(),
        )
        self._claim()
        self.going: list[Going] = []
        self.attempts: collections.Counter = collections.Counter()

    def go(self) -> int:
        """Returns the exit code: 0 done, 75 stopped by a signal.

        Raises:
          UserError: a trial whose input is bad, as those after it would be.
        """
        with Preemption() as preemption:
            while not preemption.requested:
                self._start()
                if not self.going and self._asked() >= self.search.trials:
                    print(self.summary())
                    return 0
                time.sleep(local.POLL_SECONDS)
                for going in list(self.going):
                    self._follow(going)
            for going in self.going:
                if going.child.process:
                    going.child.process.send_signal(signal.SIGTERM)
                    going.child.process.wait()
        return PREEMPTED

    def run_of(self, number: int, params: Mapping) -> plan.SweepRun:
        """Returns the run of a trial."""
        return plan.make(self.spec, self.overrides, dict(params), f'trial-{number:04}', self.folder)

    def summary(self) -> str:
        """Returns the counts and the best trial."""
        trials = self.study.get_trials(deepcopy=False)
        counts = {state: sum(t.state == state for t in trials) for state in TrialState}
        sentence = (
            f'{len(trials)} trials: {counts[TrialState.COMPLETE]} complete, {counts[TrialState.PRUNED]} pruned, '
            f'{counts[TrialState.FAIL]} failed'
        )
        if not counts[TrialState.COMPLETE]:
            return sentence
        best = self.study.best_trial
        score = f'{self.search.split} {self.search.metric} {best.value:.4g}'
        return f'{sentence}; best: trial-{best.number:04}, {score}, {best.params}'

    def _check(self) -> None:
        first = {key: span.at(0.0) for key, span in self.search.space.items()}
        config = self.run_of(0, first).config
        if self.search.split == 'minival' and not config.minival:
            raise UserError(
                'the search maximises a metric of the split minival, but config.minival is 0: hold training images '
                "out with --config.minival=N (or give the Search split='test' where nothing is selected by it)"
            )

    def _claim(self) -> None:
        ours = json.dumps(dataclasses.asdict(dataclasses.replace(self.search, trials=0)), sort_keys=True, default=str)
        theirs = self.study.user_attrs.get('search')
        if theirs is None:
            self.study.set_user_attr('search', ours)
        elif theirs != ours:
            raise UserError(f'{self.folder} holds a study of another search ({theirs}); choose another --workdir')

    def _asked(self) -> int:
        return len(self.study.get_trials(deepcopy=False))

    def _start(self) -> None:
        """Fills the free places: first with trials that were left behind, then with new ones."""
        mine = {going.trial.number for going in self.going}
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._free():
                return
            if frozen.number not in mine:
                self._begin(optuna.Trial(self.study, frozen._trial_id), frozen.params)
        # Launchers that share the study ask one at a time, so that together they ask for no trial too many.
        with open(self.folder / plan.OWN / 'ask.lock', 'a', encoding='utf-8') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            while self._free() and (next_trial := self._asked()) < self.search.trials:
                # Of the number alone: a study that was stopped goes on with the same draws.
                self.study.sampler = self.sampler(self.search.seed + next_trial)
                trial = self.study.ask(self.space)
                self._begin(trial, trial.params)

    def _free(self) -> list[int]:
        taken = {going.child.slot for going in self.going}
        return [slot for slot in range(len(self.shares)) if slot not in taken]

    def _begin(self, trial: optuna.Trial, params: Mapping) -> None:
        run, slot = self.run_of(trial.number, params), self._free()[0]
        child = local.orphan(run) or local.spawn(run, slot, self.shares[slot])
        self.attempts[run.name] += 1
        if child:  # else another launcher has it
            self.going.append(Going(trial, child, len(self._frozen(trial).intermediate_values)))

    def _frozen(self, trial: optuna.Trial):
        return self.study.get_trials(deepcopy=False)[trial.number]

    def _values(self, run: plan.SweepRun) -> list[float]:
        return [row[self.search.metric] for row in run.rows() if row['split'] == self.search.split]

    def _follow(self, going: Going) -> None:
        run, process = going.child.run, going.child.process
        code = process.poll() if process else None
        ended = code is not None if process else run.state() != 'running'
        values = self._values(run)
        for number in range(going.reported, len(values)):
            going.trial.report(values[number], number + 1)
            going.reported = number + 1
            if not ended and going.trial.should_prune():
                self._prune(going)
                return
        if not ended:
            return
        self.going.remove(going)
        state = run.state()
        if state == 'finished' and values:
            self.study.tell(going.trial.number, values[-1])
            print(f'trial-{going.trial.number:04}: {self.search.split} {self.search.metric} {values[-1]:.4g}')
        elif code == BAD_INPUT:
            self.study.tell(going.trial.number, state=TrialState.FAIL)
            raise UserError(f'trial-{going.trial.number:04}: {why(run)}')
        elif state in ('failed', 'finished') or self.attempts[run.name] >= local.ATTEMPTS:
            self.study.tell(going.trial.number, state=TrialState.FAIL)
            print(f'trial-{going.trial.number:04} failed: {why(run)}')
        # Else it was killed: it is RUNNING in the study, and _start continues it.

    def _prune(self, going: Going) -> None:
        if not going.child.process:
            return  # left by a launcher that died: it ends by itself
        going.child.process.send_signal(signal.SIGTERM)
        going.child.process.wait()
        self.going.remove(going)
        self.study.tell(going.trial.number, state=TrialState.PRUNED)
        print(f'trial-{going.trial.number:04} pruned after {going.reported} evaluations')
