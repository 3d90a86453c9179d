"""What lies in a bucket, at hand on this machine to be read: a mirror, brought up to date each time.

Mirrors, and the folders with which runs work (staging.py), lie in `CVRESEARCH_STAGING`, or in the user's cache folder.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from cvresearch.base import mirror, uploads
from cvresearch.base.buckets import Bucket
from cvresearch.base.paths import STAGING as VARIABLE
from cvresearch.base.paths import is_bucket, local
from cvresearch.base.paths import staging as root

__all__ = ['VARIABLE', 'read', 'read_all', 'root']


def read(path: str | Path, what: str = '', records: bool = False) -> Path:
    """Returns the folder or file of this machine that a user means, to be read.

    What lies in a bucket is copied to this machine first, as far as it has changed.

    Args:
      path: as typed.
      what: takes it, for messages: '--workdir'.
      records: checkpoints and snapshots are not needed.

    Raises:
      UserError: as `paths.local` and `mirror.mirrored`.
    """
    if not is_bucket(path):
        return local(path, what)
    bucket = Bucket.of(str(path), what or 'the folder')
    chosen = functools.partial(uploads.of_runs, records=records)
    return mirror.mirrored(bucket, root() / 'read', VARIABLE, chosen, quiet=records)


def read_all(paths: Iterable[str | Path], what: str = '', records: bool = True) -> list[Path]:
    """Returns the folders and files that a user means; 'gs://BUCKET/SWEEP/*' is what lies in that folder.

    Arguments are as of `read`.
    """
    places: list[Path] = []
    for path in paths:
        if is_bucket(path) and str(path).endswith('/*'):
            folder = read(str(path).removesuffix('/*'), what, records)
            places += sorted(place for place in folder.iterdir() if place.is_dir())
        else:
            places.append(read(path, what, records))
    return places
