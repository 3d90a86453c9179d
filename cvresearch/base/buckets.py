"""Folders in buckets, gs://, s3:// and az://BUCKET/PATH: the one place that knows schemes.

fsspec does it, with gcsfs, s3fs or adlfs, which take credentials and addresses from their own environment. A scheme
belongs here if it can create an object only where there is none (Google's `ifGenerationMatch=0`, S3's and Azure's
`If-None-Match: *`), in one step: of two processes one alone succeeds. Writing one object is atomic on all: it is the
old one or the new one.
"""

import base64
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from cvresearch.base.errors import UserError, reason
from cvresearch.base.paths import ADDRESS

T = TypeVar('T')

PACKAGES = {'gs': 'gcsfs', 's3': 's3fs', 'az': 'adlfs'}  # by scheme, which is also the name of the extra
# What a bucket answered is not kept: other machines write too. Connections that say nothing are given up and opened
# again.
OPTIONS: dict[str, dict] = {
    'gs': {'use_listings_cache': False, 'requests_timeout': 60},
    's3': {'use_listings_cache': False, 'config_kwargs': {'connect_timeout': 10, 'read_timeout': 60}},
    'az': {'use_listings_cache': False, 'connection_timeout': 10, 'read_timeout': 60},
}
LOGGERS = ('gcsfs', 's3fs', 'azure')
THREADS = 8  # files at once
TRIES, PAUSE_SECONDS = 6, 0.5  # of a request; before the second, twice as long before each further one
PATIENCE_SECONDS = 180.0  # after which there is no further try: of a server that never answers each takes a minute


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A folder in a bucket. Every question goes to the server.

    What the network or the load of a server may have caused is tried again; an error is raised as its package has it.

    Attributes:
      address: as typed, without a slash at the end.
      path: as fsspec has it, 'BUCKET/PATH'.
    """

    address: str
    path: str

    @classmethod
    def of(cls, address: str, what: str = 'the folder') -> Self:
        """Returns the folder of an address.

        Args:
          address: 'gs://BUCKET/PATH'.
          what: takes it, for messages: '--workdir'.

        Raises:
          UserError: no such address, or the package of its scheme is missing.
        """
        match = ADDRESS.fullmatch(address)
        path = match[2].strip('/') if match else ''
        if match is None or not is_plain(path):
            raise UserError(
                f'{what} is {address!r}; expected gs://BUCKET/PATH, s3://BUCKET/PATH or az://CONTAINER/PATH, '
                'without "..", "." or "//"'
            )
        bucket = cls(f'{match[1]}://{path}', path)
        filesystem(bucket.scheme)
        return bucket

    @property
    def scheme(self) -> str:
        """'gs', 's3' or 'az'."""
        return self.address.partition('://')[0]

    @property
    def store(self):
        """The file system of fsspec."""
        return filesystem(self.scheme)

    def files(self, below: str = '') -> dict[str, dict]:
        """Returns {name below the folder: {'size', 'tag'}}; `below` only of that folder in it, which may be absent."""
        place, files = f'{self.path}/{below}'.rstrip('/'), {}

        def listed() -> dict:
            self.store.invalidate_cache()
            return self.store.find(place, detail=True)

        for key, info in patiently(listed).items():
            name = key.removeprefix(self.path).lstrip('/')
            if name and not key.endswith('/'):  # what consoles put for a folder
                files[name] = {'size': int(info['size']), 'tag': _tag(info)}
        return files

    def listing(self, what: str = '') -> dict[str, dict]:
        """Returns what `files` does, for whoever cannot go on without.

        Args:
          what: takes the address, for messages.

        Raises:
          UserError: no such bucket or no right to it, nothing below the address, a name that is none of a file.
        """
        subject = f'{what} is {self.address!r}, which' if what else self.address
        try:
            files = self.files()
        except Exception as error:  # each scheme has its own
            raise UserError(
                f'{subject} cannot be listed ({reason(error)}); check its name, and that this machine has the right to '
                'read it'
            ) from error
        if strange := next((name for name in files if not is_plain(name)), ''):
            raise UserError(f'{subject} has an object {strange!r}, which is no name of a file; take it away')
        if not files:
            raise UserError(f'{subject} holds no files; expected a data set, or a run')
        return files

    def read(self, name: str, start: int | None = None, end: int | None = None, tries: int | None = None) -> bytes:
        """Returns a file's bytes, or those from `start` to `end`; OSError where fewer come."""

        def request() -> bytes:
            data = self.store.cat_file(f'{self.path}/{name}', start=start, end=end)
            if start is not None and end is not None and len(data) != end - start:
                raise OSError(f'{len(data):,} bytes came of {end - start:,}')
            return data

        return patiently(request, tries)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, in one step."""
        patiently(lambda: self.store.pipe_file(f'{self.path}/{name}', data))

    def send(self, name: str, file: Path) -> None:
        """Writes a file of this machine, in one step, however large."""
        patiently(lambda: self.store.put_file(str(file), f'{self.path}/{name}'))

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file where there is none; returns whether it was this call that did it."""
        try:
            patiently(lambda: self.store.pipe_file(f'{self.path}/{name}', data, mode='create'))
        except FileExistsError:
            # It may be ours all the same: the answer to an earlier try of the same request was lost.
            return self.read(name) == data
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Deletes files; those that are gone already are no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                patiently(lambda name=name: self.store.rm_file(f'{self.path}/{name}'))


def filesystem(scheme: str):
    """Returns the file system of a scheme.

    Raises:
      UserError: its package is not installed, or has no credentials.
    """
    # Plain objects serve for all that is done here; gcsfs would ask for the kind of each bucket first.
    os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
    for name in LOGGERS:  # they print a traceback of each request that failed, which is tried again, or told in a line
        if not (logger := logging.getLogger(name)).level:
            logger.setLevel(logging.CRITICAL)
    try:
        import fsspec

        return fsspec.filesystem(scheme, **OPTIONS[scheme])
    except ImportError as error:
        raise UserError(
            f'{scheme}:// needs the package {PACKAGES[scheme]}, which is not installed: '
            f'pip install "cvresearch[{scheme}]"'
        ) from error
    except Exception as error:  # Azure's asks for credentials at once
        raise UserError(f'{scheme}:// cannot be used ({reason(error)}); see its package {PACKAGES[scheme]}') from error


def is_plain(path: str) -> bool:
    """Whether a path leads nowhere else."""
    return not any(part in ('', '.', '..') for part in path.split('/'))


def patiently(request: Callable[[], T], tries: int | None = None) -> T:
    """Returns what a request gives; tries again what the network or the load of the server may have caused."""
    pause, until = PAUSE_SECONDS, time.monotonic() + max(PATIENCE_SECONDS, 30.0 * (tries or 0))
    for last in range((tries or TRIES) - 1, -1, -1):
        try:
            return request()
        except Exception as error:
            if not last or _is_final(error) or time.monotonic() > until:
                raise
        time.sleep(pause)
        pause *= 2
    raise AssertionError('the last try returns or raises')


def _is_final(error: Exception) -> bool:
    """Whether the same request would fail again: no such thing, no right to it, no credentials."""
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError):
        return True
    return getattr(error, 'code', None) in (401, 403) or 'Forbidden' in str(error) or 'Credentials' in repr(error)


def in_threads(function, items: Iterable, threads: int = THREADS) -> list:
    """Returns what a function gives for each item, several at once; the first error ends it."""
    with ThreadPoolExecutor(threads, 'bucket') as pool:
        try:
            return list(pool.map(function, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _tag(info: dict) -> str:
    """Returns what tells one content of an object from another: its MD5 in hexadecimal, or the bucket's own mark."""
    if info.get('md5Hash'):  # Google's
        return base64.b64decode(info['md5Hash']).hex()
    return str(info.get('ETag') or info.get('etag') or info.get('generation') or '').strip('"')
