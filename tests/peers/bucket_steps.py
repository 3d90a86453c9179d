"""Seconds a step of runs in buckets, beside the run on the disk: python -m tests.peers.bucket_steps --record FILE.

The runs take turns, `ROUNDS` times: one on the disk, one in gs://, one in s3://. They compute on the first core; the
server is a process on the last one. A checkpoint is saved in every quarter of a run. The command goes on where it was.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from cvresearch.base import at_hand, buckets, cli, tables
from cvresearch.base.paths import is_bucket
from cvresearch.base.records import read_metrics, write_measurement
from cvresearch.base.workdir import write_atomically
from tests import bucket_servers

ROUNDS, STEPS, BATCH, LOGGED = 3, 240, 512, 20
COLUMNS = ('place', 'runs', 'milliseconds_a_step', 'least', 'most', 'more_than_the_disk_percent', 'seconds_of_a_run')


def one(place: str, folder: Path) -> dict:
    """Trains once; returns the milliseconds of its steps, and the seconds of its process."""
    environment = {'JAX_COMPILATION_CACHE_DIR': str(Path(gettempdir()) / 'cvresearch-bucket-steps'),
                   'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'JAX_PLATFORMS': 'cpu'}  # fmt: skip
    if place == 'disk':
        return _trained(str(folder / 'run'), environment)
    with bucket_servers.elsewhere(place) as there:
        return _trained(f'{place}://lab/run', environment | there | {at_hand.VARIABLE: str(folder)})


def _trained(workdir: str, environment: dict[str, str]) -> dict:
    overrides = {
        'data.train': BATCH * STEPS // 8, 'batch_size': BATCH, 'epochs': 8, 'save_every_epochs': 2,
        'evaluate_every_epochs': 8, 'log_every_steps': LOGGED, 'mesh.data': 1,
    }  # fmt: skip
    command = [sys.executable, '-m', 'cvresearch.main', '--config', 'configs/lenet5_fake.py', '--workdir', workdir]
    start = time.perf_counter()
    subprocess.run(
        [*command, *(f'--config.{key}={value}' for key, value in overrides.items())],
        env=os.environ | environment,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {0}),
    )
    seconds, environ = time.perf_counter() - start, dict(os.environ)
    os.environ |= environment
    if is_bucket(workdir):  # the last instance leads to the server before
        type(buckets.filesystem(workdir.partition(':')[0])).clear_instance_cache()
    try:
        rows = read_metrics(at_hand.read(workdir, records=True) / 'metrics.jsonl')
    finally:
        os.environ.clear()
        os.environ |= environ
    rates = [row['steps_per_second'] for row in rows if row['split'] == 'train' and row.get('steps_per_second')]
    return {'step_ms': 1000 * statistics.mean(1 / rate for rate in rates[1:]), 'seconds': seconds}


def rows_of(measured: dict[str, list[dict]]) -> list[dict]:
    """Returns the rows of the table."""
    rows, disk = [], statistics.median(run['step_ms'] for run in measured['disk'])
    for place, runs in measured.items():
        steps = [run['step_ms'] for run in runs]
        more = 100 * (statistics.median(steps) / disk - 1)
        values = (place, len(runs), statistics.median(steps), min(steps), max(steps), more,
                  statistics.median(run['seconds'] for run in runs))  # fmt: skip
        rows.append({key: round(v, 2) if isinstance(v, float) else v for key, v in zip(COLUMNS, values, strict=True)})
    return rows


def main(argv: list[str]) -> int:
    """Prints the table; returns the exit code."""
    options = cli.parse(argv, __doc__, required=(), places=('record',), record='file for the record, JSON')
    kept = Path(gettempdir()) / 'cvresearch-bucket-steps.json'
    measured = json.loads(kept.read_text()) if kept.exists() else {place: [] for place in ('disk', 'gs', 's3')}
    for _ in range(ROUNDS):
        for place, runs in measured.items():
            if len(runs) < ROUNDS and len(runs) <= min(map(len, measured.values())):
                with TemporaryDirectory() as folder:
                    runs.append(one(place, Path(folder)))
                write_atomically(kept, json.dumps(measured))
    print(tables.render(rows_of(measured), COLUMNS, 'text'))
    if options.record:
        write_measurement(options.record, rows_of(measured), batch_size=BATCH, steps=STEPS)
    kept.unlink()
    shutil.rmtree(Path(gettempdir()) / 'cvresearch-bucket-steps', ignore_errors=True)
    return 0


if __name__ == '__main__':
    cli.run(main)
