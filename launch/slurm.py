"""Sweeps on SLURM: one array of `sbatch`, requeued where a run was preempted.

A task that gets SIGTERM (preemption, or a minute before its time is over) hands it to the run, which
saves and exits with 75; the task then asks `scontrol` to put it back into the queue. `sacct` and
`squeue` know each task by the sweep's job.
"""

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base.errors import PREEMPTED, UserError
from cvresearch.base.workdir import write_atomically
from launch.plan import OWN, SweepRun

WARN_SECONDS = 60
SUBMITTED = 'slurm.json'  # [{'job': '12', 'runs': [names, in the order of the tasks]}, ...]


def script(runs: Sequence[SweepRun], folder: Path, jobs: int, arguments: Sequence[str] = ()) -> str:
    """Returns the batch script of an array.

    Args:
      runs: task by task.
      folder: of the sweep.
      jobs: tasks at a time.
      arguments: further ones of sbatch: '--partition=gpu', '--gpus=1', ...
    """
    options = [
        f'--job-name={folder.name}',
        f'--array=0-{len(runs) - 1}%{jobs}',
        '--requeue',
        '--open-mode=append',
        f'--signal=B:TERM@{WARN_SECONDS}',
        f'--output={str(folder / OWN).replace("%", "%%")}/slurm-%A_%a.log',
        *arguments,
    ]
    # On several nodes a run is a process on each.
    nodes = any(option.startswith('--nodes=') and option != '--nodes=1' for option in arguments)
    together = 'srun --ntasks-per-node=1 --kill-on-bad-exit=0 ' if nodes else ''
    cases = '\n'.join(
        f'  {i}) lock={shlex.quote(str(run.lock))}; log={shlex.quote(str(run.log))}\n'
        f'     set -- {shlex.join([*run.command(), *(["--hosts=auto"] if nodes else [])])};;'
        for i, run in enumerate(runs)
    )
    head = '\n'.join(f'#SBATCH {shlex.quote(option)}' for option in options)
    return f"""#!/bin/bash
{head}
cd {shlex.quote(str(Path.cwd()))}
case $SLURM_ARRAY_TASK_ID in
{cases}
esac
# The lock says that the run is going on, as for a launcher of processes; it ends with the run.
exec 9> "$lock"
flock --nonblock 9 || {{ echo "$lock is held: another process has this run"; exit 0; }}
{together}"$@" >> "$log" 2>&1 &
run=$!
trap 'kill -TERM $run' TERM
wait $run; code=$?
while kill -0 $run 2> /dev/null; do wait $run; code=$?; done  # a signal ends `wait`, not the run
if [ $code = {PREEMPTED} ]; then
  exec 9>&-
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit $code
"""


def launch(runs: Sequence[SweepRun], folder: Path, jobs: int, arguments: Sequence[str], dry: bool) -> str | None:
    """Submits the runs that are neither finished nor in the queue; returns the job's number.

    Raises:
      UserError: SLURM is not there, or refuses.
    """
    if dry:
        print(script(runs, folder, jobs, arguments))
        return None
    if not shutil.which('sbatch'):
        raise UserError('sbatch is not there; log in to the cluster, or on Debian `apt-get install slurm-wlm`')
    queued = in_queue(folder)
    runs = [run for run in runs if run.name not in queued]
    if not runs:
        print('every run that is not finished is in the queue already')
        return None
    path = folder / OWN / f'slurm-{len(_submitted(folder))}.sh'
    write_atomically(path, script(runs, folder, jobs, arguments))
    done = subprocess.run(['sbatch', '--parsable', str(path)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'sbatch refused {path}: {done.stderr.strip()}')
    job = done.stdout.strip().partition(';')[0]
    entries = [*_submitted(folder), {'job': job, 'runs': [run.name for run in runs]}]
    write_atomically(folder / OWN / SUBMITTED, json.dumps(entries, indent=1) + '\n')
    print(f'submitted {len(runs)} runs as job {job}; --status shows where they stand')
    return job


def in_queue(folder: Path) -> set[str]:
    """Returns the names of the runs that wait in SLURM's queue, or are going on."""
    entries = _submitted(folder)
    if not entries:
        return set()
    jobs = ','.join(entry['job'] for entry in entries)
    done = subprocess.run(
        ['squeue', '--noheader', '--array', '--format=%F %K', '--jobs', jobs], capture_output=True, text=True
    )
    runs_of = {entry['job']: entry['runs'] for entry in entries}
    # squeue fails where all of the jobs are gone long since: then none is in the queue.
    pairs = [line.split() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return {runs_of[job][int(task)] for job, task in pairs if task.isdecimal()}


def _submitted(folder: Path) -> list[dict]:
    path = folder / OWN / SUBMITTED
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else []
