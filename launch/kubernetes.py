"""Sweeps on Kubernetes: one indexed Job, a pod for each run, on a volume that all of them share."""

import dataclasses
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from cvresearch.base.errors import BAD_INPUT, PREEMPTED, UserError
from cvresearch.base.workdir import write_atomically
from launch.plan import OWN, SweepRun

NAME_CHARACTERS = 'abcdefghijklmnopqrstuvwxyz0123456789'


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the cluster must know.

    Attributes:
      image: of the container: this repository at its working directory, its requirements installed.
      claim: of the PersistentVolumeClaim (ReadWriteMany) that holds the sweep.
      mount: where the pods see it; runs train in MOUNT/NAME.
      namespace: of the Job.
      resource, count: what each pod asks for: 'nvidia.com/gpu' and 1, or 'cpu' and 4.
      grace: seconds between SIGTERM and SIGKILL, in which a run saves.
    """

    image: str = ''
    claim: str = ''
    mount: str = '/sweep'
    namespace: str = 'default'
    resource: str = 'nvidia.com/gpu'
    count: int = 1
    grace: int = 120


def manifest(runs: Sequence[SweepRun], name: str, jobs: int, settings: Settings) -> dict:
    """Returns the Job. A pod that was evicted, or exits with 75 (its state is saved), starts again and counts
    no failure; bad input fails its index at once; a crash is tried three times.
    """
    cases = '\n'.join(f'{i}) exec {shlex.join(run.command("python", settings.mount))};;' for i, run in enumerate(runs))
    container = {
        'name': 'train',
        'image': settings.image,
        'command': ['bash', '-c', f'case $JOB_COMPLETION_INDEX in\n{cases}\nesac'],
        'resources': {'limits': {settings.resource: str(settings.count)}},
        'volumeMounts': [{'name': 'sweep', 'mountPath': settings.mount}],
    }
    rules = [
        {'action': 'Ignore', 'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}]},
        {'action': 'Ignore', 'onExitCodes': {'operator': 'In', 'values': [PREEMPTED]}},
        {'action': 'FailIndex', 'onExitCodes': {'operator': 'In', 'values': [BAD_INPUT]}},
    ]
    return {
        'apiVersion': 'batch/v1',
        'kind': 'Job',
        'metadata': {'name': name, 'namespace': settings.namespace},
        'spec': {
            'completionMode': 'Indexed',
            'completions': len(runs),
            'parallelism': min(jobs, len(runs)),
            'backoffLimitPerIndex': 3,
            'maxFailedIndexes': len(runs),
            'podFailurePolicy': {'rules': rules},
            'template': {
                'spec': {
                    'restartPolicy': 'Never',
                    'terminationGracePeriodSeconds': settings.grace,
                    'containers': [container],
                    'volumes': [{'name': 'sweep', 'persistentVolumeClaim': {'claimName': settings.claim}}],
                }
            },
        },
    }


def job_name(folder: Path) -> str:
    """Returns the folder's name as Kubernetes allows names: lower case, digits, dashes, at most 63."""
    text = ''.join(c if c in NAME_CHARACTERS else '-' for c in folder.name.lower())
    return text.strip('-')[:63].rstrip('-') or 'sweep'


def launch(runs: Sequence[SweepRun], folder: Path, jobs: int, settings: Settings, dry: bool) -> None:
    """Writes the manifest and applies it.

    Raises:
      UserError: no image or claim is named, kubectl is not there or refuses.
    """
    for name in ('image', 'claim'):
        if not getattr(settings, name):
            raise UserError(f'--on kubernetes needs {name}: --with "image=IMAGE claim=CLAIM"')
    text = yaml.safe_dump(manifest(runs, job_name(folder), jobs, settings), sort_keys=False, width=120)
    if dry:
        print(text, end='')
        return
    path = folder / OWN / 'job.yaml'
    write_atomically(path, text)
    if not shutil.which('kubectl'):
        raise UserError(f'kubectl is not there (Debian: apt-get install kubernetes-client); the manifest is {path}')
    done = subprocess.run(['kubectl', 'apply', '-f', str(path)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'kubectl refused {path}: {done.stderr.strip()}')
    print(done.stdout.strip())
