"""A run's folder: one configuration, one process at a time, nothing overwritten."""

import contextlib
import datetime
import fcntl
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import paths
from cvresearch.base.errors import RunError, UserError

# Keys on which no result of a run depends: how often and how much is kept, how images are read, and where they lie.
FREE = (
    'keep',
    'save_every_epochs',
    'save_failures',
    'log_every_steps',
    'keep_predictions',
    'eval_batch_size',
    'data.root',
    'data.cache',
    'data.data_dir',
    'data.threads',
    'data.processes',
    'plugins',
)
LENGTH = ('epochs', 'max_steps')  # keys that say how long a run is: it may go on with larger ones, if it is told to
# Groups of which the same is true: where a run computes, and what is watched of it.
_FREE_GROUPS = ('mesh.', 'watch.')
HISTORY = 'config_history.jsonl'
_BEFORE_CONFIG = ('lock', 'config.json.tmp')  # what a run killed in its first instant leaves


@contextlib.contextmanager
def claim(workdir: str | Path, config: ConfigDict, extend: bool = False) -> Iterator[Path]:
    """Makes `workdir` this process' own for the length of the block; yields its path.

    The claim is a lock that the kernel drops when the process dies, however it dies. A configuration that differs in
    what it may is not written yet: that is for `adopt`, once the run is known to go on.

    Args:
      workdir: the folder, made where there is none.
      config: of the run.
      extend: the run is there already, and was to be shorter.

    Raises:
      UserError: the folder is none of this machine or cannot be written, another process uses it, or it is a run of
        another configuration (the keys that differ are named).
    """
    path = paths.local(workdir, 'workdir').absolute()
    _refuse_foreign(path)
    if extend and not (path / 'config.json').exists():
        raise UserError(f'--extend: {path} holds no run; leave --extend out to begin one')
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / 'lock', 'a', encoding='utf-8')
    except OSError as error:
        raise cannot_write(path, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'workdir {path} is in use by another process; wait for it or choose another --workdir'
            ) from None
        check_config(path, config, extend)
        if not (path / 'config.json').exists():
            write_atomically(path / 'config.json', configs.to_json(config))
        yield path


def kept_config(path: Path) -> ConfigDict:
    """Returns the configuration that a workdir was last trained with."""
    return configs.from_json((path / 'config.json').read_text(encoding='utf-8'))


def adopt(path: Path, config: ConfigDict) -> list[str]:
    """Makes `config` the configuration of a claimed run; returns 'key: old -> new' for what differs.

    The one before it is kept in config_history.jsonl, a line {'until', 'differences', 'config'} each.
    """
    file, text = path / 'config.json', configs.to_json(config)
    old = file.read_text(encoding='utf-8')
    if old == text:
        return []
    if different := configs.differences(old, text):
        until = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
        lines = [*history(path), {'until': until, 'differences': different, 'config': json.loads(old)}]
        write_atomically(path / HISTORY, ''.join(json.dumps(line) + '\n' for line in lines))
    write_atomically(file, text)
    return different


def history(path: Path) -> list[dict]:
    """Returns the earlier configurations of a run, oldest first: {'until', 'differences', 'config'} each."""
    file = path / HISTORY
    return [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()] if file.exists() else []


def in_use(workdir: str | Path) -> bool:
    """Whether a process has claimed a workdir; nothing is changed."""
    return locked(Path(workdir) / 'lock')


def locked(file: Path) -> bool:
    """Whether a process holds the lock of a file; nothing is changed."""
    try:
        lock = open(file, encoding='utf-8')
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _refuse_foreign(path: Path) -> None:
    if not path.is_dir() or (path / 'config.json').exists():
        return
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in _BEFORE_CONFIG)
    if foreign:
        raise UserError(
            f'workdir {path} is not empty and holds no run (it has {", ".join(foreign[:5])}); choose another --workdir'
        )


def check_config(path: Path, config: ConfigDict, extend: bool = False) -> None:
    """Raises UserError if a workdir holds a run of another configuration; without config.json it does not.

    The mesh may be another, as a checkpoint is restored on any, and what is watched, and what is in `FREE`. With
    `extend` it may be longer.
    """
    _refuse_foreign(path)
    file, text = path / 'config.json', configs.to_json(config)
    if not file.exists():
        return
    try:
        different = configs.differences(file.read_text(encoding='utf-8'), text)
    except json.JSONDecodeError as error:
        raise UserError(f'{file} is damaged ({error}); choose another --workdir') from error
    longer = is_longer(kept_config(path), config)
    fixed = [line for line in different if not _is_free(line.partition(':')[0], config)]
    fixed = [line for line in fixed if not (extend and longer and line.partition(':')[0] in LENGTH)]
    if not fixed:
        return
    advice = 'choose another --workdir'
    if {line.partition(':')[0] for line in fixed} <= {*LENGTH}:
        add = 'add --extend to the command of cvresearch.main to train it on'
        advice = f'{add if longer else "a run cannot be shortened"}, or {advice}'
    elif any(line.startswith('eval_batch_size:') for line in fixed):
        advice = f'{advice} (the learning rate follows the evaluations, which another eval_batch_size rounds otherwise)'
    raise UserError(f'workdir {path} holds a run of another configuration ({"; ".join(fixed)}); {advice}')


def is_longer(before: ConfigDict, config: ConfigDict) -> bool:
    """Whether a configuration is of a longer run than another: of more epochs, or of more of their steps."""
    was, now = ((settings.epochs, settings.get('max_steps', 0) or math.inf) for settings in (before, config))
    return was != now and all(old <= new for old, new in zip(was, now, strict=True))


def _is_free(key: str, config: ConfigDict) -> bool:
    """Whether a run may go on with another value of that key."""
    stopping = config.get('early_stopping', {}).get('name', 'none')
    if key == 'eval_batch_size' and (config.schedule.get('name') == 'plateau' or stopping != 'none'):
        return False  # the order of float32 sums, and so a loss in its last digit, would have a say in the training
    if key == 'updates.frozen' and not config.updates.get('freeze', ()):
        return True  # it says what is done with frozen parts, and nothing is frozen
    return is_free(key)


def is_free(key: str) -> bool:
    """Whether no result of any run depends on a key."""
    return key in FREE or key.startswith(_FREE_GROUPS)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is, at every instant, either the old one or the new one.

    Raises:
      RunError: the disk is full or cannot be written.
    """
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error, RunError) from error


def cannot_write(path: Path, error: OSError, kind: type[UserError] = UserError) -> UserError:
    """Returns the one-line error for a file or folder that could not be written."""
    return kind(f'cannot write {path}: {error.strerror or error}; free or mount the disk, or choose another --workdir')
