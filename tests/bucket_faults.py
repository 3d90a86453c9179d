"""Runs in buckets, killed and cut off at random, beside the same run on the disk: the table of docs/buckets.md.

    python -m tests.bucket_faults [--cases 12] [--seed 0] [--out docs/records/bucket_faults.json]
    python -m tests.bucket_faults --table docs/records/bucket_faults.json

Cases take turns: a server of gs or s3 (bucket_servers.py), and a run that is killed up to `KILLS` times, or whose line
spoils every so-and-so-many requests and is down for a while, or both. After every second kill the next process is on
another machine: its folder is empty, and it waits until the lease of the dead one is over. What is in the bucket at the
end, taken from there, must be bit for bit what the run on the disk leaves (`kill_runs.Left`). The command itself can be
interrupted; started again, it goes on.
"""

import dataclasses
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from cvresearch.base import at_hand, buckets, cli, staging, tables, uploads
from cvresearch.base.workdir import write_atomically
from tests import bucket_run, kill_at, kill_matrix, kill_runs
from tests.bucket_servers import FAULTS, Line, server
from tests.kill_at import Kill

OUT = Path('docs/records/bucket_faults.json')
FEATURES = ('snapshots', 'ema', 'plain')
KINDS = ('kills', 'faults', 'kills and faults')
KILLS = 4
SHARE, DOWN_SECONDS = 0.06, 2.0
SCHEMES = ('gs', 's3')
# Beside the phases of kill_at.py; `WITHIN` seconds after their beginning.
PHASES = {'upload': (uploads.Uploads, '_send_unit'), 'last uploads': (uploads.Uploads, 'finish'),
          'fetch': (staging, '_fetch')}  # fmt: skip
WITHIN = kill_matrix.WITHIN | {'upload': 0.05, 'last uploads': 0.1, 'fetch': 0.1}
TURN = ('upload', 'step', 'save', 'fetch', 'last uploads', 'evaluate', 'compile')
TIMEOUT = 300


def planned(number: int, seed: int) -> list[Kill]:
    """Returns the kills of a case, in their order."""
    random, made = np.random.default_rng((seed, number)), []
    for position in range(KILLS):
        phase = TURN[(number + position) % len(TURN)]
        step = -1 if phase in ('compile', 'fetch', 'last uploads') else int(random.integers(1, 4)) + 3 * position
        name = 'SIGTERM' if random.random() < 1 / 3 else 'SIGKILL'
        made.append(Kill(phase, step, round(float(random.uniform(0, WITHIN[phase])), 4), name))
    return made


def case(number: int, seed: int, alone: kill_runs.Left, folder: Path) -> dict:
    """Makes one case; returns its row."""
    scheme, kind = SCHEMES[number % 2], KINDS[number // 2 % 3]
    feature, address = FEATURES[number // 6 % len(FEATURES)], f'{scheme}://lab/runs/case{number}'
    kills = planned(number, seed) if 'kills' in kind else []
    row = dict(case=number, scheme=scheme, kind=kind, feature=feature, kills=[], machines=1)
    row |= dict(revision=kill_matrix._revision())
    with server(scheme, seed=number, share=SHARE if 'faults' in kind else 0.0) as (line, environment):
        if 'faults' in kind:
            threading.Thread(target=_outages, args=(line,), daemon=True).start()
        wrong, begun = [], time.monotonic()
        for kill in [*kills, None]:
            machine = folder / f'machine{row["machines"]}'
            variables = environment | {at_hand.VARIABLE: str(machine)}
            code, found = process(feature, address, kill, folder, variables)
            if found:
                row['kills'].append(dataclasses.asdict(kill) | found)
                row['machines'] += len(row['kills']) % 2
            if not (kill_runs.expected(code, kill) if found else code == 0):
                wrong.append(f'exit {code}: {_last_lines(folder)}')
        row.update(seconds=round(time.monotonic() - begun, 1), requests=line.requests, faults=dict(line.counts))
        line.share, line.down = 0.0, False
        wrong += _differences(feature, address, alone, folder, environment)
    return row | dict(outcome='; '.join(wrong) or 'identical')


def process(feature: str, address: str, kill: Kill | None, folder: Path, variables: dict[str, str]):
    """Runs the training program in a process of its own; returns its exit code and where the kill met it, if it did."""
    found = folder / 'found'
    found.unlink(missing_ok=True)
    arguments = ['--config', f'{kill_runs.CONFIG}:{feature}', '--workdir', address]
    processes = multiprocessing.get_context('forkserver')
    processes.set_forkserver_preload(['tests.bucket_run'])
    wish = dataclasses.asdict(kill) if kill else None
    started = processes.Process(target=_program, args=(arguments, wish, str(found), str(folder / 'log'), variables))
    started.start()
    started.join(TIMEOUT)
    if started.is_alive():
        started.kill()
        return None, None
    return started.exitcode, json.loads(found.read_text()) if found.exists() else None


def _program(arguments, wish, found, log, variables) -> None:
    os.environ |= variables
    with open(log, 'a', encoding='utf-8') as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    kill_at.PHASES |= PHASES
    bucket_run.run(arguments, wish, found)


def _outages(line: Line) -> None:
    """Lets nothing through for a while, again and again."""
    while True:
        time.sleep(4 * DOWN_SECONDS)
        line.down = line.share > 0
        time.sleep(DOWN_SECONDS)
        line.down = False


def _differences(feature: str, address: str, alone: kill_runs.Left, folder: Path, environment: dict) -> list[str]:
    os.environ |= environment | {at_hand.VARIABLE: str(folder / 'reader')}
    type(buckets.filesystem(address.partition(':')[0])).clear_instance_cache()  # it leads to the server before
    workdir = at_hand.read(address)
    try:
        return [f'other {name}' for name in kill_runs.Left.by(feature, workdir).differences(alone)]
    except Exception as error:
        return [f'unreadable: {type(error).__name__}: {error}']


def _last_lines(folder: Path) -> str:
    return ' | '.join((folder / 'log').read_text().strip().splitlines()[-2:])[-400:]


def table(record: dict) -> str:
    """Returns the Markdown table of a record."""
    lines = []
    for scheme in SCHEMES:
        for kind in KINDS:
            of = [row for row in record['cases'] if (row['scheme'], row['kind']) == (scheme, kind)]
            same = sum(row['outcome'] == 'identical' for row in of)
            lines.append({
                'bucket': f'{scheme}://', 'what happens': kind, 'runs': len(of),
                'kills': sum(len(row['kills']) for row in of),
                'on another machine then': sum(row['machines'] - 1 for row in of),
                'requests': sum(row['requests'] for row in of),
                **{fault: sum(row['faults'][fault] for row in of) for fault in FAULTS},
                'bit-identical to the disk': f'{same} of {len(of)}',
            })  # fmt: skip
    return tables.render(lines, tuple(lines[0]), 'markdown')


def main(argv: list[str]) -> int:
    """Makes the cases, or prints their table; returns the exit code: 1 where a run ended otherwise."""
    options = cli.parse(
        argv, __doc__, required=(), cases='how many (12)', seed='of the instants (0)', out=f'the record ({OUT})',
        table='print the table of this record, and do nothing else',
    )  # fmt: skip
    if options.table:
        print(table(json.loads(Path(options.table).read_text(encoding='utf-8'))))
        return 0
    logging.getLogger('werkzeug').setLevel(logging.ERROR)
    out, seed = Path(options.out or OUT).absolute(), int(options.seed or 0)
    folder = Path(tempfile.gettempdir()) / f'cvresearch-{out.stem}'
    os.environ |= dict(JAX_COMPILATION_CACHE_DIR=str(folder / 'compiled'), JAX_PLATFORMS='cpu',
                       JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0')  # fmt: skip
    about = dict(revision=kill_matrix._revision(), seed=seed)
    record = json.loads(out.read_text(encoding='utf-8')) if out.exists() else about | dict(cases=[])
    alone: dict[str, kill_runs.Left] = {}
    done = {row['case'] for row in record['cases']}
    for number in [n for n in range(cli.integer('cases', options.cases or '12')) if n not in done]:
        feature = FEATURES[number // 6 % len(FEATURES)]
        if feature not in alone:
            alone[feature] = kill_matrix.left_alone(feature, folder / 'alone' / feature, forked=True)
        own = folder / str(number)
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        row = case(number, seed, alone[feature], own)
        print({key: value for key, value in row.items() if key != 'kills'}, len(row['kills']), flush=True)
        record['cases'].append(row)
        write_atomically(out, json.dumps(record, indent=1) + '\n')
    return int(any(row['outcome'] != 'identical' for row in record['cases']))


if __name__ == '__main__':
    cli.run(main)
