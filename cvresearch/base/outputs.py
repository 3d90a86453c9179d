"""Files that a command makes: all of them, or none; never in place of others."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cvresearch.base.errors import RunError, UserError


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yields an empty folder; what the body puts into it appears beside `path` when the body ends without an error.

    Args:
      path: the file or folder that the body makes first of all, under its name in the yielded folder.

    Raises:
      UserError: it exists, or there is no folder for it.
      RunError: the files cannot be written; nothing of them is left.
    """
    check_place(path)
    folder = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    moved: list[Path] = []
    try:
        folder.mkdir()
        yield folder
        # The one that was asked for comes last: where it is, everything is.
        files = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
        for file in files:
            refuse_existing(path.parent / file.name)
        for file in files:
            file.rename(path.parent / file.name)
            moved.append(path.parent / file.name)
    except UserError as error:  # of what was asked for, not of the folder that is about to go
        lines = [str(text).replace(str(folder), str(path.parent)) for text in (error, *error.details)]
        raise type(error)(lines[0], lines[1:]) from error
    except OSError as error:
        for file in moved:
            file.unlink(missing_ok=True)
        raise RunError(f'cannot write {path}: {error.strerror or error}') from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_place(path: Path) -> None:
    """Raises UserError if there is something at a path, or no folder for it."""
    refuse_existing(path)
    if not path.parent.is_dir():
        raise UserError(f'there is no folder {str(path.parent)!r} for {path.name!r}; make it first')


def refuse_existing(path: Path) -> None:
    """Raises UserError if there is something at a path."""
    if os.path.lexists(path):
        raise UserError(f'{path} exists; name another, or move it away')
