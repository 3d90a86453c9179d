"""The devices of this machine, divided between processes that run side by side."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable

from cvresearch.base.errors import UserError


def gpus() -> list[str]:
    """Returns the NVIDIA cards that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    if (visible := os.environ.get('CUDA_VISIBLE_DEVICES')) is not None:
        return [name for name in visible.split(',') if name]
    if os.environ.get('JAX_PLATFORMS', '') == 'cpu' or not shutil.which('nvidia-smi'):
        return []
    done = subprocess.run(['nvidia-smi', '--query-gpu=index', '--format=csv,noheader'], capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def shares(jobs: int) -> list[tuple[dict[str, str], Callable[[], None] | None]]:
    """Returns, for each of `jobs` processes, its environment and what it does first.

    Cards where there are any, else processor cores: a process sees only its own, so that as many
    threads run as there are cores. XLA rounds differently on another number of cores.

    Raises:
      UserError: more jobs than devices.
    """
    cards, cores = gpus(), sorted(os.sched_getaffinity(0))
    devices, kind = (cards, 'cards') if cards else (cores, 'cores')
    if not 1 <= jobs <= len(devices):
        raise UserError(f'--jobs is {jobs}; this machine has {len(devices)} {kind}; expected 1 to {len(devices)}')
    per_job = len(devices) // jobs
    parts = [devices[i * per_job : (i + 1) * per_job] for i in range(jobs)]
    if cards:
        return [({'CUDA_VISIBLE_DEVICES': ','.join(part)}, None) for part in parts]
    return [({}, functools.partial(os.sched_setaffinity, 0, part)) for part in parts]
