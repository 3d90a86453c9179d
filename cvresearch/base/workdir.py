"""A run's folder: one configuration, one process at a time, nothing overwritten."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from cvresearch.base import config as configs
from cvresearch.base import paths
from cvresearch.base.errors import RunError, UserError

_ANYWHERE = 'mesh.'  # keys that say where a run computes, and not what: it may go on elsewhere
_BEFORE_CONFIG = ('lock', 'config.json.tmp')  # what a run killed in its first instant leaves


@contextlib.contextmanager
def claim(workdir: str | Path, config: ConfigDict) -> Iterator[Path]:
    """Makes `workdir` this process' own for the length of the block; yields its path.

    The claim is a lock that the kernel drops when the process dies, however it dies.

    Raises:
      UserError: the folder is none of this machine or cannot be written, another process uses it, or it is a run of
        another configuration (the keys that differ are named).
    """
    path = paths.local(workdir, 'workdir').absolute()
    _refuse_foreign(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / 'lock', 'a')
    except OSError as error:
        raise cannot_write(path, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'workdir {path} is in use by another process; wait for it or choose another --workdir'
            ) from None
        check_config(path, config)
        text, file = configs.to_json(config), path / 'config.json'
        if not file.exists() or file.read_text() != text:
            write_atomically(file, text)
        yield path


def in_use(workdir: str | Path) -> bool:
    """Whether a process has claimed a workdir; nothing is changed."""
    return locked(Path(workdir) / 'lock')


def locked(file: Path) -> bool:
    """Whether a process holds the lock of a file; nothing is changed."""
    try:
        lock = open(file)
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
            f'workdir {path} is not empty and holds no run (it has {", ".join(foreign[:5])}); '
            'choose another --workdir'
        )


def check_config(path: Path, config: ConfigDict) -> None:
    """Raises UserError if a workdir holds a run of another configuration; without config.json it does not.

    The mesh may be another: a checkpoint is restored on any.
    """
    _refuse_foreign(path)
    file, text = path / 'config.json', configs.to_json(config)
    if not file.exists():
        return
    try:
        different = configs.differences(file.read_text(), text)
    except json.JSONDecodeError as error:
        raise UserError(f'{file} is damaged ({error}); choose another --workdir') from error
    if different := [line for line in different if not line.startswith(_ANYWHERE)]:
        raise UserError(
            f'workdir {path} holds a run of another configuration ({"; ".join(different)}); '
            'choose another --workdir'
        )


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is, at every instant, either the old one or the new one.

    Raises:
      RunError: the disk is full or cannot be written.
    """
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        with open(temporary, 'w') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error, RunError) from error


def cannot_write(path: Path, error: OSError, kind: type[UserError] = UserError) -> UserError:
    """Returns the one-line error for a file or folder that could not be written."""
    return kind(
        f'cannot write {path}: {error.strerror or error}; free or mount the disk, or choose another --workdir'
    )
