"""Processes of the training program that are killed and started again, and what their runs leave behind."""

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax

from cvresearch.base import config as configs
from cvresearch.base import trees
from cvresearch.base.errors import PREEMPTED
from cvresearch.base.records import SPEED, read_card, read_metrics
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.trained import SNAPSHOTS
from cvresearch.engine.warm_start import WarmStart
from cvresearch.evaluation.predictions import KEPT, Predictions
from cvresearch.evaluation.runs import Run
from tests import kill_at
from tests.kill_at import Kill

CONFIG = 'tests/kill_config.py'
TIMEOUT = 1800  # seconds; a process that takes longer hangs


def train(
    feature: str, workdir: Path, kill: Kill | None = None, forked: bool = True, **environment: str
) -> tuple[int | None, dict | None]:
    """Runs the training program in a process of its own, to its end or its kill.

    Args:
      feature: of `kill_config.FEATURES`.
      workdir: of the run. Beside it are `<workdir>.log`, what the process printed, and `<workdir>.found`.
      kill: None for none.
      forked: from a process that has imported everything and begun nothing: JAX has neither devices nor threads there.
        Else the interpreter starts anew, as for a user.
      **environment: variables; where it is forked, of what is read later than JAX is imported.

    Returns:
      Its exit code, as of `subprocess`, None where it hung; and where the signal met it, None where it never came.
    """
    found, log = (workdir.with_name(f'{workdir.name}.{suffix}') for suffix in ('found', 'log'))
    found.unlink(missing_ok=True)
    arguments = ['--config', f'{CONFIG}:{feature}', '--workdir', str(workdir)]
    wish = dataclasses.asdict(kill) if kill else None
    if forked:
        code = _forked(arguments, wish, str(found), str(log), environment)
    else:
        own = ['tests.kill_at', json.dumps(wish | {'found': str(found)})] if wish else ['cvresearch.main']
        code = _started(['-m', *own, *arguments], log, environment)
    return code, json.loads(found.read_text()) if found.exists() else None


@dataclasses.dataclass(frozen=True)
class Left:
    """What a finished run leaves, as digests.

    Attributes:
      params: of the run card.
      state: of the whole last checkpoint, read back: parameters, optimizer, statistics of norms, average, step.
      rows: of metrics.jsonl, but for speeds.
      predictions: of the kept logits.
      snapshots: of each, read back, by its step.
    """

    params: str
    state: str
    rows: str
    predictions: str
    snapshots: tuple[tuple[int, str], ...]

    @classmethod
    def by(cls, feature: str, workdir: Path) -> 'Left':
        """Reads the folder of a run."""
        run = dataclasses.replace(_run(feature), path=workdir)
        has_snapshots = (workdir / SNAPSHOTS).is_dir()
        return cls(
            read_card(workdir)['params_sha256'],
            trees.sha256(jax.device_get(run.checkpoint())),
            _sha256(json.dumps(rows(workdir)).encode()),
            _sha256(*(Predictions.load(file).logits.tobytes() for file in sorted((workdir / KEPT).glob('*.npz')))),
            tuple((int(s.step), trees.sha256(jax.device_get(s))) for s in run.snapshots()) if has_snapshots else (),
        )

    def differences(self, other: 'Left') -> list[str]:
        """Returns the names of what is not the same."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def rows(workdir: Path) -> list[dict]:
    """Returns the rows of a run's metrics without what depends on the machine."""
    return [{k: v for k, v in row.items() if k not in SPEED} for row in read_metrics(workdir / 'metrics.jsonl')]


def kept(workdir: Path) -> int:
    """Returns the step of the newest finished checkpoint, 0 where there is none."""
    return max(Checkpoints(workdir / 'checkpoints', read_only=True).steps(), default=0)


def unfinished(workdir: Path) -> bool:
    """Whether the process died while a checkpoint was being written."""
    folder = workdir / 'checkpoints'
    return folder.is_dir() and any(not path.name.isdigit() for path in folder.iterdir())


def expected(code: int | None, kill: Kill) -> bool:
    """Whether a process may end so after a signal that met it.

    SIGTERM ends a process at once before it has begun; later it is obeyed with the code for requeueing, or comes too
    late to stop anything.
    """
    if kill.signal == 'SIGKILL':
        return code == -signal.SIGKILL
    return code in (PREEMPTED, -signal.SIGTERM, 0)


@functools.cache
def _run(feature: str) -> Run:
    loaded = configs.load(f'{CONFIG}:{feature}')
    return Run(Path(), Experiment.from_config(WarmStart.of(loaded, '').config))


def _sha256(*parts: bytes) -> str:
    return hashlib.sha256(b''.join(parts)).hexdigest()


def _forked(arguments: list[str], wish: dict | None, found: str, log: str, environment: dict[str, str]) -> int | None:
    processes = multiprocessing.get_context('forkserver')
    processes.set_forkserver_preload(['tests.kill_at'])
    process = processes.Process(target=_as_program, args=(arguments, wish, found, log, environment), daemon=True)
    process.start()
    process.join(TIMEOUT)
    if process.is_alive():
        process.kill()
        return None
    return process.exitcode


def _as_program(arguments: list[str], wish: dict | None, found: str, log: str, environment: dict[str, str]) -> None:
    os.environ |= environment
    with open(log, 'w', encoding='utf-8') as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    kill_at.run(arguments, wish, found)


def _started(arguments: list[str], log: Path, environment: dict[str, str]) -> int | None:
    with open(log, 'w', encoding='utf-8') as file:
        try:
            return subprocess.run(
                [sys.executable, *arguments], stdout=file, stderr=file, timeout=TIMEOUT, env=os.environ | environment
            ).returncode
        except subprocess.TimeoutExpired:
            return None
