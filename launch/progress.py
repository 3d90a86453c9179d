"""How far a sweep is: what finished, what failed and why, and the best so far."""

import sys
import time
from collections.abc import Sequence

from cvresearch.base import tables
from cvresearch.base.records import metric_of
from launch.plan import SweepRun

EVERY_SECONDS = 30.0


def why(run: SweepRun) -> str:
    """Returns the last error line of a run's log, or its last line."""
    lines = run.log.read_text(encoding='utf-8', errors='replace').splitlines() if run.log.exists() else []
    errors = [line for line in lines if line.startswith('error: ')]
    return (errors or lines or ['no output'])[-1].removeprefix('error: ')


def best(runs: Sequence[SweepRun]) -> tuple[SweepRun, float, str] | None:
    """Returns the run of the highest last top-1, with it and the split it is of.

    Runs with images held out are compared on those; the test is looked at only where there are none.
    """
    scored = [(run, *score) for run in runs if (score := run.score())]
    held_out = [entry for entry in scored if entry[2] == 'minival']
    return max(held_out or scored, key=lambda entry: entry[1], default=None)


def rows(runs: Sequence[SweepRun]) -> list[dict]:
    """Returns one row per run: where it stands."""
    lines = []
    for run in runs:
        state, score, metrics = run.state(), run.score(), run.rows()
        lines.append(
            dict(
                run=run.name,
                state=state,
                step=metrics[-1]['step'] if metrics else None,
                **{metric_of(metrics): round(score[0], 2) if score else None},
                split=score[1] if score else None,
                reason=why(run) if state == 'failed' else None,
            )
        )
    return lines


class Board:
    """Says on standard error what happens to the runs of a sweep."""

    def __init__(self, runs: Sequence[SweepRun]):
        self.runs = runs
        self.done = [run for run in runs if run.state() == 'finished']
        self.failed: list[SweepRun] = []
        self._next = time.monotonic() + EVERY_SECONDS
        self.say(f'{len(runs)} runs, {len(self.done)} of them finished')

    def say(self, text: str) -> None:
        """Prints a line."""
        print(text, file=sys.stderr, flush=True)

    def finished(self, run: SweepRun) -> None:
        """Counts a run, and says its result and the best so far."""
        self.done.append(run)
        score = run.score()
        result = f': {score[1]} {run.metric()} {score[0]:.2f} %' if score else ''
        self.say(f'[{len(self.done)}/{len(self.runs)}] {run.name}{result}{self._best()}')

    def failure(self, run: SweepRun) -> None:
        """Counts a run that will not be tried again."""
        self.failed.append(run)
        self.say(f'failed: {run.name}: {why(run)} ({run.log})')

    def tell(self) -> None:
        """Says, now and then, how far the runs are."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        going = [f'{row["run"]} at step {row["step"] or 0}' for row in rows(self.runs) if row['state'] == 'running']
        self.say(f'running: {"; ".join(going) or "none"}{self._best()}')

    def end(self) -> None:
        """Says how the sweep ended."""
        failed = f', {len(self.failed)} failed' if self.failed else ''
        self.say(f'{len(self.done)} of {len(self.runs)} runs finished{failed}{self._best()}')

    def _best(self) -> str:
        leader = best(self.runs)
        return f' (best so far: {leader[0].name}, {leader[2]} {leader[0].metric()} {leader[1]:.2f} %)' if leader else ''


def table(runs: Sequence[SweepRun]) -> str:
    """Returns where every run stands, as text."""
    metric = metric_of(row for run in runs for row in run.rows())
    return tables.render(rows(runs), ('run', 'state', 'step', metric, 'split', 'reason'))
