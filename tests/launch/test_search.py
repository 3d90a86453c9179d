"""Searches: pruned as metrics come, resumed where they were. The trials are a stand-in that trains nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from cvresearch.base import sweeps
from cvresearch.base.errors import UserError
from launch import plan, search
from launch.sweep import main

SPEC = 'tests/launch/tiny_search.py'
# Writes the rows and the card of a run whose accuracy is best at a learning rate of 1e-3.
TRIAL = """
import json, math, pathlib, signal, sys, time
workdir, peak, pause = pathlib.Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
workdir.mkdir(exist_ok=True)
card = workdir / 'run.json'
sessions = json.loads(card.read_text())['sessions'] if card.exists() else []
def end(how, code):
    card.write_text(json.dumps({'status': how, 'sessions': [*sessions, how]}))
    sys.exit(code)
signal.signal(signal.SIGTERM, lambda *_: end('preempted', 75))
card.write_text(json.dumps({'status': 'running', 'sessions': sessions}))
(workdir / 'config.json').touch()
done = len(rows.read_text().splitlines()) if (rows := workdir / 'metrics.jsonl').exists() else 0
for i in range(done, 5):
    with (workdir / 'metrics.jsonl').open('a') as file:
        top1 = (i + 1) * (20 - abs(math.log10(peak) + 3))
        file.write(json.dumps({'step': i, 'split': 'minival', 'top1': top1}) + '\\\\n')
    time.sleep(pause)
end('finished', 0)
""".replace('\\\\n', '\\n')
SPACE = {'schedule.peak': sweeps.log_uniform(1e-6, 1e-2)}


def stand_in(self, python=sys.executable, root=None):
    return [python, '-S', '-c', TRIAL, str(self.workdir), str(self.setting['schedule.peak']), PAUSE]


PAUSE = '0.03'


@pytest.fixture(autouse=True)
def trials(monkeypatch):
    monkeypatch.setattr(plan.SweepRun, 'command', stand_in)
    monkeypatch.setattr(search.local, 'POLL_SECONDS', 0.01)


def trials_of(study):
    return study.study.get_trials(deepcopy=False)


@pytest.mark.parametrize(('sampler', 'pruner'), [('tpe', 'asha'), ('random', 'median'), ('cmaes', 'none')])
def test_a_search_finds_the_best_and_prunes_what_falls_behind(sampler, pruner, tmp_path):
    wanted = sweeps.Search(SPACE, trials=12, sampler=sampler, pruner=pruner)
    study = search.Study(wanted, SPEC, {}, tmp_path, jobs=1)
    assert study.go() == 0
    trials = trials_of(study)
    assert len(trials) == 12 and {t.state.name for t in trials} <= {'COMPLETE', 'PRUNED'}
    assert (pruner != 'none') == any(t.state.name == 'PRUNED' for t in trials)
    for trial in trials:
        rows = study.run_of(trial.number, trial.params).rows()
        reported = list(trial.intermediate_values.values())
        assert reported == [row['top1'] for row in rows][: len(reported)]
    best = study.study.best_trial
    assert best.value == max(t.value for t in trials if t.state.name == 'COMPLETE')
    assert f'best: trial-{best.number:04}' in study.summary()


def test_a_stopped_study_goes_on_where_it_was(tmp_path):
    """The launcher is killed in the middle; what it asked for and what it drew are as if it had not been."""
    wanted = sweeps.Search(SPACE, trials=5, sampler='random')
    study = search.Study(wanted, SPEC, {}, tmp_path / 'a', jobs=1)
    assert study.go() == 0

    code = (
        'import sys; sys.path.insert(0, "."); from tests.launch import test_search as t; t.PAUSE = "0.3";'
        't.plan.SweepRun.command = t.stand_in; wanted = t.sweeps.Search(t.SPACE, trials=5, sampler="random");'
        f't.search.Study(wanted, t.SPEC, {{}}, t.Path({str(tmp_path / "b")!r}), 1).go()'
    )
    launcher = subprocess.Popen([sys.executable, '-c', code])
    end = time.monotonic() + 60
    while not (tmp_path / 'b' / 'trial-0001' / 'metrics.jsonl').exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    again = search.Study(wanted, SPEC, {}, tmp_path / 'b', jobs=1)
    assert [t.state.name for t in trials_of(again)] == ['COMPLETE', 'RUNNING']
    assert again.go() == 0
    assert [(t.params, t.value) for t in trials_of(again)] == [(t.params, t.value) for t in trials_of(study)]
    sessions = [again.run_of(t.number, t.params).card()['sessions'] for t in trials_of(again)]
    assert sessions == [['finished']] * 5


def test_a_trial_that_was_killed_is_continued(tmp_path, monkeypatch):
    study = search.Study(sweeps.Search(SPACE, trials=1), SPEC, {}, tmp_path, jobs=1)
    study._start()
    going = study.going[0]
    while not study._values(going.child.run):
        time.sleep(0.01)
    going.child.process.kill()
    going.child.process.wait()
    assert study.go() == 0
    assert trials_of(study)[0].state.name == 'COMPLETE' and len(going.child.run.rows()) == 5


@pytest.mark.parametrize(
    ('changes', 'overrides', 'message'),
    [
        (dict(sampler='tpee'), {}, 'did you mean tpe'),
        (dict(pruner='hyperband'), {}, 'unknown pruner'),
        (dict(space={'sed': sweeps.integers(0, 1)}), {}, "unknown config key 'sed'"),
        ({}, {'minival': '0'}, 'config.minival is 0'),
    ],
)
def test_bad_searches_are_one_line(changes, overrides, message, tmp_path):
    with pytest.raises(UserError, match=message):
        search.Study(sweeps.Search(**{'space': SPACE, 'trials': 1} | changes), SPEC, overrides, tmp_path, jobs=1)


def test_a_study_of_another_space_is_refused(tmp_path):
    search.Study(sweeps.Search(SPACE, trials=1), SPEC, {}, tmp_path, jobs=1)
    search.Study(sweeps.Search(SPACE, trials=9), SPEC, {}, tmp_path, jobs=1)  # more trials are welcome
    with pytest.raises(UserError, match='a study of another search'):
        search.Study(sweeps.Search(SPACE, trials=1, sampler='random'), SPEC, {}, tmp_path, jobs=1)


def test_distributions_are_those_of_the_space():
    space = {'a': sweeps.log_uniform(1, 2), 'b': sweeps.integers(1, 3), 'c': sweeps.choice('x', 'y')}
    assert search.distributions(space) == {
        'a': optuna.distributions.FloatDistribution(1, 2, log=True),
        'b': optuna.distributions.IntDistribution(1, 3),
        'c': optuna.distributions.CategoricalDistribution(['x', 'y']),
    }


def test_a_dry_run_says_what_would_be_searched(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    assert main(['--config', SPEC, '--workdir', str(tmp_path / 'x'), '--dry-run']) == 0
    out = capsys.readouterr().out
    assert '5 trials by tpe, pruned by median' in out and '--config.schedule.peak=' in out
    assert not Path(tmp_path / 'x').exists()
