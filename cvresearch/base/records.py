"""What a run leaves behind for people and tables: metrics.jsonl, TensorBoard events, run.json."""

import datetime
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import jax

from cvresearch.base import hosts, settings
from cvresearch.base.errors import RunError, UserError
from cvresearch.base.workdir import cannot_write, write_atomically

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'ml-collections', 'clu')
SECRET = re.compile(r'(?i)token|secret|passw|credential|api_?key|access_?key|private_?key')
# Of a row: what depends on the machine and its load. The rest is the same for every run.
SPEED = ('steps_per_second', 'images_per_second', 'data_wait', 'peak_bytes', 'mfu')
PEERS = ('torch', 'torchvision', 'tensorflow-cpu', 'grain', 'simplejpeg', 'opencv-python-headless')  # in measurements


def _tensorboard() -> ModuleType:
    """Returns the writer of TensorBoard's events, without PyTorch.

    It imports PyTorch where that is installed, which takes seconds and is for tensors that we have none of.
    """
    hidden = 'torch' not in sys.modules
    if hidden:
        cast(dict, sys.modules)['torch'] = None  # an import fails, as if it were not installed
    try:
        import tensorboardX

        return tensorboardX
    finally:
        if hidden:
            del sys.modules['torch']


class Metrics:
    """The metrics of a run: one JSON object a line in metrics.jsonl, and the same in TensorBoard.

    A resumed run rewinds to its checkpoint's step, so that the file holds each (step, split)
    once, as if the run had never been stopped. Of several hosts the first writes; all know the rows.
    """

    def __init__(self, workdir: Path, step: int):
        self._path = workdir / 'metrics.jsonl'
        rows = read_metrics(self._path) if hosts.is_primary() else []
        self._rows = hosts.broadcast([row for row in rows if row['step'] <= step])
        self._file = self._events = None
        self._ended: Any = None
        if not hosts.is_primary():
            return
        write_atomically(self._path, ''.join(json.dumps(row) + '\n' for row in self._rows))
        try:
            self._file = open(self._path, 'a', encoding='utf-8')
            self._events = _tensorboard().SummaryWriter(str(workdir), purge_step=step + 1)
        except OSError as error:
            raise cannot_write(self._path, error, RunError) from error

    def write(self, step: int, epoch: float, split: str, values: dict) -> None:
        """Appends one row.

        Raises:
          RunError: the disk is full or cannot be written.
        """
        row = {'step': step, 'epoch': round(epoch, 6), 'split': split, **values}
        self._rows.append(row)
        if self._file is None or self._events is None:
            return
        try:
            self._file.write(json.dumps(row) + '\n')
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error, RunError) from error
        for name, value in scalars(row).items():
            self._events.add_scalar(name, value, step)

    def describe(self, hyperparameters: dict, tags: Iterable[str]) -> None:
        """Writes the hyper-parameters for TensorBoard's table of runs.

        Args:
          hyperparameters: values by name; what is no number, text or truth value is written as text.
          tags: of the metrics beside them, as `write` makes them: 'test/top1'.
        """
        if self._events is None:
            return
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in hyperparameters.items()}
        # Into these events: `SummaryWriter.add_hparams` would open a second file of events, in a folder of its own.
        experiment, summary, self._ended = _tensorboard().summary.hparams(plain, dict.fromkeys(tags, 0.0))
        self._events.file_writer.add_summary(experiment)
        self._events.file_writer.add_summary(summary)

    def finish(self) -> None:
        """Tells TensorBoard's table of runs that this one is finished."""
        if self._events is not None and self._ended is not None:
            self._events.file_writer.add_summary(self._ended)

    def has(self, step: int, split: str, weights: str = 'raw') -> bool:
        """Whether a row of this step, split and weights is written."""
        return any(row['step'] == step for row in self.of(split, weights))

    def of(self, split: str, weights: str = 'raw') -> list[dict]:
        """Returns the rows of one split, oldest first.

        Args:
          split: 'train', 'test', ...
          weights: 'raw', or the name of their average ('ema'). A row without this word is of the raw ones.
        """
        return [row for row in self._rows if row['split'] == split and row.get('weights', 'raw') == weights]

    def sync(self) -> None:
        """Brings all rows to the disk, so that no checkpoint is newer than its records."""
        if self._file is None:
            return
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error, RunError) from error

    def close(self) -> None:
        """Closes both files."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()


def scalars(row: dict) -> dict[str, float]:
    """Returns the numbers of a row by the names that they have in TensorBoard and other trackers, 'test_ema/top1'."""
    numbers: dict[str, float] = {}

    def note(tag: str, values: dict) -> None:
        for name, value in values.items():
            if isinstance(value, dict):  # of layers
                note(f'{tag}/{name}', value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                numbers[f'{tag}/{name}'] = value

    tag = named(row['split'], row.get('weights', 'raw'))
    note(tag, {name: value for name, value in row.items() if name not in ('step', 'epoch')})
    return numbers


def read_metrics(path: Path) -> list[dict]:
    """Returns the rows of a metrics.jsonl; a half-written last line is left out."""
    rows = []
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class RunCard:
    """run.json: how the run was made and what came of it; of the first host. No secrets of flags.

    Of the environment it has what changes JAX's numbers (settings.py), in each session that differs from the defaults.
    """

    def __init__(self, workdir: Path, **facts):
        self._path = workdir / 'run.json'
        old = (read_card(workdir) if hosts.is_primary() else None) or {}
        self._sessions = old.get('sessions', [])
        changed = settings.changed()
        if hosts.is_primary():
            before = self._sessions[-1].get('settings', {}) if self._sessions else None
            for line in settings.warnings(changed, before):
                print(f'warning: {line}', file=sys.stderr)
        self._sessions.append(
            {'started': _now(), 'wall_time_s': 0.0, 'ended': 'killed'} | ({'settings': changed} if changed else {})
        )
        self.fields = {
            'status': 'running',
            'command': shlex.join(['python', *without_secrets(sys.orig_argv[1:])]),
            **_revision(),
            'python': sys.version.split()[0],
            'packages': {name: _version(name) for name in PACKAGES},
            'devices': [device.device_kind for device in jax.devices()],
            'hosts': jax.process_count(),
            **facts,
            **{name: old[name] for name in ('extended_from', 'init') if name in old and name not in facts},
            'sessions': self._sessions,
        }
        self._write()

    def continued(self, step: int, lines: list[str], extended_from: float | None = None) -> None:
        """Writes with what values this session has gone on, in words.

        Args:
          step: from which.
          lines: what was said of them; nothing is written for none.
          extended_from: epochs that the run was to have, if its result differs from a run of the new length.
        """
        if not lines:
            return
        self._sessions[-1].update(continued_at=step, continued_with=lines)
        if extended_from is not None:
            self.fields['extended_from'] = [*self.fields.get('extended_from', []), extended_from]
        self._write()

    def update(self, seconds: float, **fields) -> None:
        """Writes further fields and this session's wall time so far."""
        self._sessions[-1]['wall_time_s'] = round(seconds, 3)
        self.fields.update(fields)
        self.fields['wall_time_s'] = round(sum(s['wall_time_s'] for s in self._sessions), 3)
        self._write()

    def end(self, how: str, seconds: float, **fields) -> None:
        """Writes how this session ended: finished, preempted, or failed."""
        self._sessions[-1]['ended'] = how
        self.update(seconds, status=how, **fields)

    def _write(self) -> None:
        if not hosts.is_primary():
            return
        # What is known of the data has a number for every class: on one line, or a person finds nothing else.
        values = {key: json.dumps(value, indent=None if key == 'dataset' else 2) for key, value in self.fields.items()}
        lines = [f'  {json.dumps(key)}: ' + value.replace('\n', '\n  ') for key, value in values.items()]
        write_atomically(self._path, '{\n' + ',\n'.join(lines) + '\n}\n')


def read_card(workdir: Path) -> dict | None:
    """Returns the run card of a workdir, None where there is none yet."""
    path = Path(workdir) / 'run.json'
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else None


METRICS = {'top1': 'top-1', 'mAP': 'mAP'}  # that nets are judged by, as a person reads them; in percent


def metric_of(rows: Iterable[dict]) -> str:
    """Returns the metric that nets are judged by in some evaluations: 'mAP' where an image has any number of labels."""
    return 'mAP' if any('mAP' in row for row in rows) else 'top1'


def judged(row: dict) -> tuple[str, float] | None:
    """Returns the name, as a person reads it, and the value of an evaluation's metric; None where it has none."""
    return next(((METRICS[name], row[name]) for name in METRICS if name in row), None)


def in_words(final: dict[str, dict]) -> str:
    """Returns the `final` evaluations of a run card for a person: 'test top-1 98.20 % of 1,000 images'."""
    phrases = [
        f'{split}{f" ({weights})" if weights else ""} {metric} {value:.2f} % of {row["n_seen"]:,} images'
        for name, row in final.items()
        if (best := judged(row))
        for metric, value in [best]
        for split, _, weights in [name.partition('_')]
        if split != 'train'
    ]
    return ', '.join(phrases) or 'nothing was evaluated'


def without_secrets(arguments: list[str]) -> list[str]:
    """Returns a command line with '***' for what is to be kept to oneself.

    That is the value of a flag whose name says so (SECRET), the value of such an environment variable wherever it
    stands, and the user and password of an address.
    """
    hidden = [value for name, value in os.environ.items() if SECRET.search(name) and len(value) >= 6]
    safe, next_is_secret = [], False
    for argument in arguments:
        name, equals, _ = argument.partition('=')
        is_secret_flag = name.startswith('-') and SECRET.search(name) is not None
        if next_is_secret and not argument.startswith('-'):
            argument = '***'
        elif is_secret_flag and equals:
            argument = f'{name}=***'
        next_is_secret = is_secret_flag and not equals
        for value in hidden:
            argument = argument.replace(value, '***')
        safe.append(re.sub(r'://[^/@\s]+@', '://***@', argument))
    return safe


def write_measurement(path: Path, rows: list[dict], **facts) -> None:
    """Writes the record of a measurement, the rows of a table and how they came about, as JSON.

    `cvresearch report tables FILE.json` prints the table.

    Args:
      path: of the record, docs/records/NAME.json.
      rows: values by column.
      **facts: what else the reader must know.
    """
    about = {
        'command': shlex.join(['python', *without_secrets(sys.orig_argv[1:])]),
        **_revision(),
        'measured': _now(),
        'python': sys.version.split()[0],
        'packages': {name: version for name in (*PACKAGES, *PEERS) if (version := _version(name))},
        'devices': [device.device_kind for device in jax.devices()],
        'processor': _of_processor('model name'),
        'instruction_set': _instruction_set(),
        'cores': len(os.sched_getaffinity(0)),
    }
    write_atomically(path, json.dumps(about | facts | {'rows': rows}, indent=1) + '\n')


def read_measurement(path: Path) -> list[dict]:
    """Returns the rows of a measurement's record.

    Raises:
      UserError: no such file, or none of these.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))['rows']
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f'{path} holds no record of a measurement ({type(error).__name__}: {error})') from error


def _of_processor(field: str) -> str:
    """Returns what the system tells of the processor, '' where it does not."""
    lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines() if Path('/proc/cpuinfo').exists() else []
    return next((line.split(':', 1)[1].strip() for line in lines if line.startswith(field)), '')


def _instruction_set() -> str:
    """Returns the widest vectors that the processor computes with, on which speed depends as much as on its name."""
    flags = _of_processor('flags').split()
    return next((name for flag, name in (('avx512f', 'AVX-512'), ('avx2', 'AVX2')) if flag in flags), '')


def named(split: str, weights: str) -> str:
    """Returns the name of an evaluation: of the split, and of the average that was evaluated, 'test_ema'."""
    return split if weights == 'raw' else f'{split}_{weights}'


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> dict:
    """Returns the git revision of the code that runs, and whether it has uncommitted changes; records are no code."""
    here = Path(__file__).parent
    # GIT_DIR and its like, which hooks and aliases of git set, would name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith('GIT_')}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ['git', *arguments], cwd=here, env=environment, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git('status', '--porcelain', '--untracked-files=no', '--', ':(top)', ':(top,exclude)docs/records')
    return {'revision': git('rev-parse', 'HEAD'), 'uncommitted_changes': None if changes is None else bool(changes)}
