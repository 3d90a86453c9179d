"""Seconds from launch to the first resumed step, early and late in a run: python -m tests.peers.first_step [ROUNDS]

LeNet-5 on as many images as ImageNet has. In turns, a process is started with a checkpoint of step 0 and one with a
checkpoint of step 400,000, compiled programs at hand, and stopped when its first step is dispatched. The late
checkpoint is saved by the trainer's own `Checkpoints`, the state of step 0 with another step, beside a log of the
4,000 rows that such a run has. The two are equal where nothing is replayed. Writes docs/records/first_step.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cvresearch.base import config as configs
from cvresearch.base.records import write_measurement
from cvresearch.base.workdir import claim
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment

LATE, LOG_EVERY = 400_000, 100
OUT = Path('docs/records/first_step.json')
SETTINGS = {
    'data.train': '1281167',
    'batch_size': '8',
    'epochs': '3',
    'augment.shift': '2',
    'mesh.data': '1',
    'evaluate_every_epochs': '0',
    'save_every_epochs': '0',
    'log_every_steps': f'{LOG_EVERY}',
}
SPEC = 'configs/lenet5_fake.py'


def prepare(folder: Path, step: int) -> Path:
    """Returns the folder of a run that seems to have come to a step."""
    config = configs.load(SPEC, SETTINGS)
    experiment = Experiment.from_config(config)
    with claim(folder / f'step{step}', config) as path:
        state = experiment.initial_state()
        checkpoints = Checkpoints(path / 'checkpoints')
        checkpoints.save(state.replace(step=state.step + step), step)
        checkpoints.close()
        rows = [
            {'step': at, 'epoch': round(experiment.plan.epoch(at), 6), 'split': 'train', 'loss': 2.3, 'top1': 10.0}
            for at in range(LOG_EVERY, step + 1, LOG_EVERY)
        ]
        (path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def seconds(workdir: Path) -> float:
    """Returns the seconds from the launch of a process to its first step."""
    found = workdir.with_suffix('.found')
    found.unlink(missing_ok=True)
    kill = {'phase': 'step', 'step': 0, 'delay': 0.0, 'signal': 'SIGKILL', 'found': str(found)}
    flags = [f'--config.{key}={value}' for key, value in SETTINGS.items()]
    start = time.time()
    done = subprocess.run(
        [sys.executable, '-m', 'tests.kill_at', json.dumps(kill), '--config', SPEC, *flags, '--workdir', str(workdir)],
        capture_output=True,
        text=True,
    )
    if not found.exists():
        sys.exit(f'the process ended with {done.returncode} before its first step:\n{done.stderr}')
    expected = int(workdir.name.removeprefix('step')) + 1
    assert json.loads(found.read_text())['step'] == expected, found.read_text()
    return found.stat().st_mtime - start


def main(rounds: int = 5) -> None:
    """Measures in turns and prints the medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= dict(
            JAX_COMPILATION_CACHE_DIR=str(folder / 'compiled'), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0'
        )
        runs = [prepare(folder, step) for step in (0, LATE)]
        cold = seconds(runs[0])
        found = {run.name: [] for run in runs}
        for _ in range(rounds):
            for run in runs:
                found[run.name].append(round(seconds(run), 3))
    rows = [
        {
            'resumed at step': int(name.removeprefix('step')),
            'seconds to the first step': statistics.median(each),
            'of': ', '.join(map(str, each)),
        }
        for name, each in found.items()
    ]
    write_measurement(OUT, rows, cold_compile_s=round(cold, 3), load_average=os.getloadavg())
    print(OUT.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
