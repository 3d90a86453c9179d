"""Folders of data in a bucket, read in place: listed once, then each image by a request for its own bytes."""

import dataclasses
import fnmatch
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from cvresearch.base.errors import RunError, reason

TRIES = 10  # of a request: four minutes without an answer end a run
THREADS = 64  # read and decode at once: they wait for the network most of the time
PIECE = 1 << 22  # bytes of a tar read at once


class Bucket(Protocol):
    """What is asked of a folder in a bucket (`base/buckets.py`)."""

    @property
    def address(self) -> str: ...

    def listing(self, what: str = '') -> dict[str, dict]: ...

    def read(self, name: str, start: int | None = None, end: int | None = None, tries: int | None = None) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Remote:
    """A folder or a file in a bucket, with as much of pathlib's manners as data sets need.

    Attributes:
      bucket: the folder that was listed.
      tree: what is in this folder by name, folders as dicts; of a file, its {'size', 'tag'}; None where nothing is.
      below: the path in the bucket's folder, '' for itself.
    """

    bucket: Bucket
    tree: Any = dataclasses.field(repr=False, compare=False)
    below: str = ''

    @classmethod
    def of(cls, bucket: Bucket, what: str = '') -> 'Remote':
        """Lists a folder.

        Args:
          bucket: the folder.
          what: takes its address, for messages.

        Raises:
          UserError: no such bucket or no right to it, nothing there.
        """
        tree = _Folder()
        for name, info in bucket.listing(what).items():
            folder, parts = tree, name.split('/')
            for part in parts[:-1]:
                folder = folder.setdefault(part, _Folder())
            folder[parts[-1]] = info
        return cls(bucket, tree)

    def __truediv__(self, name: str) -> 'Remote':
        tree, below = self.tree, self.below
        for part in filter(None, str(name).split('/')):
            tree = tree.get(part) if isinstance(tree, _Folder) else None
            below = f'{below}/{part}'.lstrip('/')
        return Remote(self.bucket, tree, below)

    def __str__(self) -> str:
        return f'{self.bucket.address}/{self.below}'.rstrip('/')

    def __fspath__(self) -> str:
        return str(self)  # for messages; nothing of this machine can be opened by it

    @property
    def name(self) -> str:
        """The last part of the path."""
        return str(self).rpartition('/')[2]

    @property
    def size(self) -> int:
        """Of a file, in bytes."""
        return self.tree['size']

    @property
    def mark(self) -> str:
        """What tells one content of a file from another."""
        return f'{self} {self.tree["size"]} {self.tree["tag"]}'

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return isinstance(self.tree, _Folder)

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.tree is not None and not self.is_dir()

    def exists(self) -> bool:
        """Whether it is there."""
        return self.tree is not None

    def iterdir(self) -> Iterator['Remote']:
        """Yields what is in a folder."""
        for name in self.tree or () if self.is_dir() else ():
            yield self / name

    def glob(self, pattern: str) -> Iterator['Remote']:
        """Yields what fits a pattern, whose parts are names with * and ?."""
        first, _, rest = pattern.partition('/')
        for entry in self.iterdir():
            if fnmatch.fnmatchcase(entry.name, first):
                yield from entry.glob(rest) if rest else (entry,)

    def read_bytes(self) -> bytes:
        """Returns the bytes of a file; FileNotFoundError where there is none.

        Raises:
          RunError: as `read`.
        """
        if not self.is_file():
            raise FileNotFoundError(f'there is no {self}')
        return self.read(0, self.size)

    def read_text(self, encoding: str = 'utf-8') -> str:
        """Returns a file as text; errors as of `read_bytes`."""
        return self.read_bytes().decode(encoding)

    def read(self, start: int, end: int) -> bytes:
        """Returns the bytes of a file from `start` to `end`, fewer where it ends before.

        Raises:
          RunError: the bucket did not give them. An image that is not heard of is no damaged one, which a run replaces.
        """
        end = min(end, self.size)
        if start >= end:
            return b''
        try:
            return self.bucket.read(self.below, start, end, TRIES)
        except FileNotFoundError:
            raise
        except Exception as error:  # each scheme has its own
            raise RunError(
                f'{self} could not be read ({reason(error)}); the same command goes on from the last checkpoint'
            ) from error


class _Folder(dict):
    """What is in a folder, by name."""


class Opened:
    """A file in a bucket as `tarfile` reads files, in pieces."""

    def __init__(self, file: Remote):
        self.name, self.size, self._file = str(file), file.size, file
        self._at, self._start, self._piece = 0, 0, b''

    def __enter__(self) -> 'Opened':
        return self

    def __exit__(self, *error: object) -> None:
        self._piece = b''

    def tell(self) -> int:
        """Returns the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a place."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Returns so many bytes, fewer at the end."""
        end = self.size if size < 0 else min(self._at + size, self.size)
        if end <= self._at:
            return b''
        if not self._start <= self._at <= end <= self._start + len(self._piece):
            self._start, self._piece = self._at, self._file.read(self._at, max(end, self._at + PIECE))
        data = self._piece[self._at - self._start : end - self._start]
        self._at = end
        return data


Place = Path | Remote
