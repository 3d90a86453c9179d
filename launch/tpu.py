"""Sweeps on Cloud TPU VMs, through the `gcloud` command line.

Each of `--jobs` TPUs is created, set up, trains its share of the runs one after another, and is
deleted, whatever happens. The runs are in a bucket that every worker mounts, so a TPU that is preempted
is deleted and created anew, and its run goes on from its last checkpoint.
"""

import concurrent.futures
import dataclasses
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cvresearch.base.errors import FAILED, HOST_LOST, PREEMPTED, UserError
from launch.plan import SweepRun

ATTEMPTS = 20  # of one run: preemptions are many
POLL_SECONDS = 30.0
CODE = 'cvresearch'
SETUP = (
    f'mkdir -p {CODE} ~/sweep && tar -xzf code.tar.gz -C {CODE} && cd {CODE} && '
    'sed "s/^jax>=/jax[tpu]>=/" requirements.txt > tpu.txt && python3 -m venv .venv && '
    '.venv/bin/pip install -q -r tpu.txt'
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `gcloud` must know.

    Attributes:
      zone: 'us-west4-a'.
      type: 'v5litepod-8'.
      version: of the machine's image, 'v2-alpha-tpuv5-lite'.
      bucket: where the runs are, without gs://; gcsfuse must be on the image.
      project: gcloud's own by default.
      spot: cheaper, and preempted at any time.
      queued: ask by a queued resource, and wait for it.
    """

    zone: str = ''
    type: str = ''
    version: str = ''
    bucket: str = ''
    project: str = ''
    spot: bool = False
    queued: bool = False


@dataclasses.dataclass(frozen=True)
class Gcloud:
    """Calls `gcloud`, or only prints what it would call.

    Attributes:
      dry: print, and take it that all goes well.
      say: prints a line.
    """

    dry: bool = False
    say: Callable[[str], None] = print

    def __call__(self, *arguments: str, answer: str = '') -> tuple[int, str]:
        """Returns the exit code and what was printed; `answer` is what a dry call prints."""
        if self.dry:
            self.say(shlex.join(['gcloud', *arguments]))
            return 0, answer
        done = subprocess.run(['gcloud', *arguments], capture_output=True, text=True)
        return done.returncode, done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


class Tpu:
    """One TPU, of one or more workers (hosts)."""

    def __init__(self, name: str, settings: Settings, gcloud: Gcloud):
        self.name, self.settings, self.gcloud = name, settings, gcloud
        self.place = [f'--zone={settings.zone}', *([f'--project={settings.project}'] if settings.project else [])]

    def create(self) -> None:
        """Asks for the TPU, waits for it, and installs the code.

        Raises:
          UserError: it cannot be had, or not be set up.
        """
        s = self.settings
        what = [f'--accelerator-type={s.type}', *self.place, *(['--spot'] if s.spot else [])]
        if s.queued:
            self._must(
                'queued-resources',
                'create',
                self.name,
                f'--node-id={self.name}',
                f'--runtime-version={s.version}',
                *what,
            )
            while (state := self._state('queued-resources', 'state.state', 'ACTIVE')) != 'ACTIVE':
                if state in ('FAILED', 'SUSPENDED', ''):
                    raise UserError(f'the queued resource {self.name} is {state or "gone"}; see gcloud compute tpus')
                time.sleep(POLL_SECONDS)
        else:
            self._must('tpu-vm', 'create', self.name, f'--version={s.version}', *what)
        self._must('tpu-vm', 'scp', 'code.tar.gz', f'{self.name}:', '--worker=all', *self.place)
        self._must('tpu-vm', 'ssh', self.name, '--worker=all', f'--command={SETUP}', *self.place)
        self._must('tpu-vm', 'ssh', self.name, '--worker=all', f'--command=gcsfuse {s.bucket} ~/sweep', *self.place)

    def train(self, run: SweepRun, root: str) -> int:
        """Trains one run on all workers; returns its exit code."""
        command = f'cd {CODE} && {shlex.join([*run.command(".venv/bin/python", root), "--hosts=auto"])}'
        return self._call('tpu-vm', 'ssh', self.name, '--worker=all', f'--command={command}', *self.place)[0]

    def ready(self) -> bool:
        """Whether the TPU is still there."""
        return self._state('tpu-vm', 'state', 'READY') == 'READY'

    def delete(self) -> None:
        """Gives the TPU back; no error where it is gone already."""
        if self.settings.queued:
            self._call('queued-resources', 'delete', self.name, '--force', '--quiet', *self.place)
        else:
            self._call('tpu-vm', 'delete', self.name, '--quiet', *self.place)

    def _state(self, what: str, field: str, answer: str) -> str:
        code, text = self.gcloud(
            'compute', 'tpus', what, 'describe', self.name, f'--format=value({field})', *self.place, answer=answer
        )
        return text if code == 0 else ''

    def _call(self, *arguments: str) -> tuple[int, str]:
        return self.gcloud('compute', 'tpus', *arguments)

    def _must(self, *arguments: str) -> None:
        code, text = self._call(*arguments)
        if code:
            raise UserError(f'gcloud compute tpus {" ".join(arguments[:3])} failed: {text}')


def train_all(tpu: Tpu, runs: Sequence[SweepRun], root: str) -> list[str]:
    """Trains the runs on a TPU that is created, recreated where it was preempted, and deleted.

    Returns:
      The names of the runs that failed.
    """
    failed = []
    try:
        tpu.create()
        for run in runs:
            for _ in range(ATTEMPTS):
                code = tpu.train(run, root)
                if code == 0:
                    break
                if not tpu.ready():
                    tpu.gcloud.say(f'{tpu.name} was preempted: created anew')
                    tpu.delete()
                    tpu.create()
                elif code not in (PREEMPTED, HOST_LOST):
                    failed.append(run.name)
                    break
            else:
                failed.append(run.name)
    finally:
        tpu.delete()
    return failed


def launch(runs: Sequence[SweepRun], folder: Path, jobs: int, settings: Settings, dry: bool) -> int:
    """Trains the runs on `jobs` TPUs and fetches them; returns the exit code.

    Raises:
      UserError: a setting is missing, gcloud is not there, a TPU cannot be had.
    """
    for name in ('zone', 'type', 'version', 'bucket'):
        if not getattr(settings, name):
            raise UserError(f'--on tpu needs {name}: --with "zone=ZONE type=TYPE version=VERSION bucket=BUCKET"')
    if '/' in settings.bucket:
        raise UserError(f"bucket is {settings.bucket!r}; expected a bucket's name, without gs:// and folders")
    if not dry and not shutil.which('gcloud'):
        raise UserError('gcloud is not there; it comes with the Google Cloud SDK (package google-cloud-cli)')
    gcloud = Gcloud(dry)
    archive = ['git', 'archive', '--format=tar.gz', '--output=code.tar.gz', 'HEAD']
    print(shlex.join(archive)) if dry else subprocess.run(archive, check=True)
    shares = [share for i in range(jobs) if (share := runs[i::jobs])]
    tpus = [Tpu(f'{folder.name}-{i}'.lower().replace('_', '-'), settings, gcloud) for i in range(len(shares))]
    roots = [f'../sweep/{folder.name}'] * len(shares)
    if dry:
        failed = list(map(train_all, tpus, shares, roots))
    else:
        with concurrent.futures.ThreadPoolExecutor(len(tpus)) as threads:
            failed = list(threads.map(train_all, tpus, shares, roots))
    gcloud('storage', 'rsync', '--recursive', f'gs://{settings.bucket}/{folder.name}', str(folder))
    for name in (bad := [name for names in failed for name in names]):
        print(f'failed: {name}')
    return FAILED if bad else 0
