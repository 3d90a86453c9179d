"""Kills training at random instants and compares what comes of it with the run left alone: the kill matrix.

    python -m tests.kill_matrix [--cases 200] [--jobs 1] [--seed 0] [--out docs/records/kill_matrix.json]
    python -m tests.kill_matrix --table docs/records/kill_matrix.json

A case is a run of one feature (tests/kill_config.py) that is killed up to CHAIN times, each time started again with
the same command, and at last left to finish. `--cases` counts the signals that met the program alive. What the run
leaves (`kill_runs.Left`) must be, bit for bit, what the same run leaves that was never killed and compiled without the
cache that the others share. The command itself can be interrupted; started again, it goes on.
"""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from cvresearch.base import cli, tables
from cvresearch.base.errors import UserError
from cvresearch.base.workdir import write_atomically
from tests import kill_runs
from tests.kill_at import Kill
from tests.kill_config import FEATURES, RESTARTS, SIZE_CHANGES, STEPS

OUT = Path('docs/records/kill_matrix.json')
CHAIN = 4  # kills of one run, one after another
ANEW = 5  # of ten cases the one whose number ends so is of interpreters started anew; the others are forked
# Seconds of the process' own time after the beginning of a phase within which its kill comes.
WITHIN = dict(compile=0.8, step=0.012, evaluate=0.1, save=0.1, restart=0.2, resize=0.06)
COLUMNS = dict(
    compile='compile',
    step='step',
    evaluate='evaluation',
    save='inside the save',
    restart='SGDR restart',
    resize='size change',
    elsewhere='start, restore, end',
)
NAMES = dict(
    mixing='mixup + CutMix',
    ema='EMA',
    sam='SAM',
    stochastic_depth='stochastic depth + dropout',
    resizing='progressive resizing',
    warm_start='warm start',
    gradual='gradual unfreezing',
    lpft='LP-FT',
    pseudo_labels='pseudo-labels',
    fixmatch='FixMatch',
    uda='UDA',
    meta_pseudo_labels='Meta Pseudo Labels',
    soft_labels='labels of a net',
    balanced='class-balanced sampling',
    early_stopping='early stopping',
    multi_label='any number of labels',
)


def phases(feature: str) -> list[str]:
    """Returns the phases in which a feature's runs are killed, in turn; every second is one that it alone has."""
    own = {'snapshots': ['restart'], 'resizing': ['resize']}.get(feature, [])
    return [phase for each in ('step', 'save', 'evaluate', 'compile') for phase in (each, *own)]


def planned(feature: str, number: int, seed: int, kills: int = CHAIN) -> list[Kill]:
    """Returns the kills of a feature's case `number`, in their order: a function of the arguments.

    The phases take turns; steps grow from kill to kill, so that each finds the run further on.
    """
    random = np.random.default_rng((seed, list(FEATURES).index(feature), number))
    turn = phases(feature)
    made = []
    for position in range(kills):
        phase = turn[(number + position) % len(turn)]
        low, high = (STEPS * part // kills for part in (position, position + 1))
        step = int(random.integers(low + 1, high + 1))
        if phase == 'compile':
            step = -1  # at once
        elif phase == 'resize':
            step = SIZE_CHANGES[2 * position // kills]
        elif phase == 'step':
            step -= 1 - step % 2  # at even ones there are saves and evaluations, which take longer than a step
        name = 'SIGTERM' if random.random() < 1 / 3 else 'SIGKILL'
        made.append(Kill(phase, step, round(float(random.uniform(0, WITHIN[phase])), 4), name))
    return made


def met(kill: Kill, found: dict, unfinished: bool) -> str:
    """Returns the column of COLUMNS for a signal: the phase that it was meant for if it met that, else what it met."""
    inside, step = found['inside'], found['step']
    phases = [
        *(['restart'] if 'restart' in inside or step in RESTARTS else []),
        *(['resize'] if step in SIZE_CHANGES else []),
        *(['save'] if 'save' in inside or unfinished else []),
        *(['evaluate'] if 'evaluate' in inside else []),
        *(['compile'] if 'compile' in inside else []),
    ]
    if step >= 0 and not {'evaluate', 'save', 'restart', 'restore', 'end'} & set(inside):
        phases.append('step')
    if kill.phase in phases:
        return kill.phase
    return next((phase for phase in reversed(phases) if phase not in ('restart', 'resize')), 'elsewhere')


def case(
    feature: str,
    number: int,
    kills: list[Kill],
    alone: kill_runs.Left,
    folder: Path,
    forked: bool = True,
    **environment: str,
) -> list[dict]:
    """Kills a run again and again, lets it finish, and compares: a row for each kill.

    Args:
      feature: of the run.
      number: of the case, for the rows.
      kills: one after another.
      alone: what the run leaves that was never killed.
      folder: empty; removed where all is well.
      forked: see `kill_runs.train`, also for `environment`.
    """
    workdir, rows, wrong = folder / 'run', [], []
    for kill in kills:
        code, found = kill_runs.train(feature, workdir, kill, forked, **environment)
        row = dict(feature=feature, case=number, forked=forked, **dataclasses.asdict(kill), found=found, exit=code)
        if found:
            unfinished = kill_runs.unfinished(workdir)
            row.update(met=met(kill, found, unfinished), unfinished=unfinished, kept=kill_runs.kept(workdir))
        if not (kill_runs.expected(code, kill) if found else code == 0):
            wrong.append(f'exit {code} after kill {len(rows) + 1}: {_last_line(folder)}')
        rows.append(row)
    code, _ = kill_runs.train(feature, workdir, None, forked, **environment)
    if code != 0:
        wrong.append(f'exit {code} at the end: {_last_line(folder)}')
    elif 'warning' in (folder / 'run.log').read_text():
        wrong.append(f'a warning at the end: {_last_line(folder)}')
    else:
        wrong += [f'other {name}' for name in kill_runs.Left.by(feature, workdir).differences(alone)]
    if not wrong:
        shutil.rmtree(folder)
    return [row | dict(outcome='; '.join(wrong) or 'identical') for row in rows]


def left_alone(feature: str, folder: Path, forked: bool = False, **environment: str) -> kill_runs.Left:
    """Returns what a feature's run leaves that nobody kills; made once in a folder.

    Raises:
      UserError: it fails.
    """
    workdir = folder / 'run'
    folder.mkdir(parents=True, exist_ok=True)
    code, _ = kill_runs.train(feature, workdir, None, forked, **environment)
    if code != 0:
        raise UserError(f'the run of {feature} that is never killed ends with {code}: {_last_line(folder)}')
    return kill_runs.Left.by(feature, workdir)


def table(record: dict) -> str:
    """Returns the Markdown table of a record: features by phases, each cell signals and how many ended otherwise."""
    lines = []
    for feature in [*FEATURES, None]:
        of = [row for row in record['kills'] if feature in (None, row['feature']) and row['found']]
        cells = {name: _cell([row for row in of if row['met'] == column]) for column, name in COLUMNS.items()}
        same = sum(row['outcome'] == 'identical' for row in of)
        lines.append(
            {
                'feature': NAMES.get(feature, feature) if feature else 'all',
                **cells,
                **{name: str(sum(row['signal'] == name for row in of)) for name in ('SIGKILL', 'SIGTERM')},
                'ended bit-identical': f'{same} of {len(of)} ({100 * same / len(of):.4g} %)' if of else None,
            }
        )
    return tables.render(lines, tuple(lines[0]), 'markdown')


def _cell(rows: list[dict]) -> str:
    different = sum(row['outcome'] != 'identical' for row in rows)
    return f'{len(rows) or ""}' + (f' ({different} differ)' if different else '')


def _last_line(folder: Path) -> str:
    return (folder / 'run.log').read_text().strip().rpartition('\n')[-1]


class Matrix:
    """The cases of one record, those that are done and those that are not."""

    def __init__(self, kills: int, seed: int, out: Path, folder: Path):
        self.kills, self.out, self.folder = kills, out, folder
        about = dict(revision=_revision(), seed=seed, jax=jax.__version__, steps=STEPS)
        before = json.loads(out.read_text(encoding='utf-8')) if out.exists() else {}
        same = {key: before.get(key) for key in about} == about
        if before and not same:
            print(f'{out} is of another revision or seed: begun anew', file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        self.record = before if same else about | dict(kills=[])
        self._alone: dict[str, kill_runs.Left] = {}

    @property
    def met(self) -> int:
        """Signals so far that met the program alive."""
        return sum(bool(row['found']) for row in self.record['kills'])

    def run(self, jobs: int) -> None:
        """Does what is missing; the record on disk is whole at every instant."""
        done = {row['case'] for row in self.record['kills']}
        missing = (number for number in itertools.count() if number not in done)
        with tqdm(total=self.kills, initial=self.met, unit='kill') as bar, ThreadPoolExecutor(jobs) as pool:
            while self.met < self.kills:
                for rows in pool.map(self._case, list(itertools.islice(missing, jobs))):
                    self.record['kills'] += rows
                    bar.update(sum(bool(row['found']) for row in rows))
                    for text in {row['outcome'] for row in rows} - {'identical'}:
                        bar.write(f'case {rows[0]["case"]}, {rows[0]["feature"]}: {text}')
                write_atomically(self.out, json.dumps(self.record, indent=1) + '\n')

    def _case(self, number: int) -> list[dict]:
        feature, of_feature = list(FEATURES)[number % len(FEATURES)], number // len(FEATURES)
        if feature not in self._alone:
            alone = self.folder / 'alone' / feature
            self._alone[feature] = left_alone(feature, alone, JAX_COMPILATION_CACHE_DIR='')
        folder = self.folder / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kills = planned(feature, of_feature, self.record['seed'])
        return case(feature, number, kills, self._alone[feature], folder, forked=number % 10 != ANEW)


def _revision() -> str:
    """Returns the git revision of the code, with a mark where it was changed since."""
    return subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--abbrev=12'], capture_output=True, text=True, check=True
    ).stdout.strip()


def main(argv: list[str]) -> int:
    """Makes the matrix, or prints its table; returns the exit code: 1 where a run ended otherwise."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        cases='signals that must meet the program alive (200)',
        jobs='runs at once (1)',
        seed='of the instants (0)',
        out=f'the record ({OUT})',
        workdir='folder of the runs, which is needed to go on (a temporary one named after the record)',
        table='print the table of this record, and do nothing else',
    )
    if options.table:
        print(table(json.loads(Path(options.table).read_text(encoding='utf-8'))))
        return 0
    out = Path(options.out or OUT).absolute()
    folder = Path(options.workdir or Path(tempfile.gettempdir()) / f'cvresearch-{out.stem}').absolute()
    # Before the first process: all that are killed share one cache, and are told so by their environment.
    os.environ |= dict(
        JAX_COMPILATION_CACHE_DIR=str(folder / 'compiled'),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
        JAX_PLATFORMS='cpu',
    )
    jax.config.update('jax_platforms', 'cpu')  # of this process, which has imported JAX already
    matrix = Matrix(cli.integer('cases', options.cases or '200'), int(options.seed or 0), out, folder)
    matrix.run(cli.integer('jobs', options.jobs or '1'))
    different = [row for row in matrix.record['kills'] if row['outcome'] != 'identical']
    print(f'{matrix.met} kills, {len(different)} of them in runs that ended otherwise', file=sys.stderr)
    return int(bool(different))


if __name__ == '__main__':
    cli.run(main)
