"""Data of a bucket, copied to a folder of this machine before they are read."""

from pathlib import Path

from cvresearch.base import mirror
from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local


def missing(address: str, cache: Path) -> int:
    """Returns how many bytes of a folder in a bucket are not in its copy below `cache` yet; errors as of `mirrored`."""
    bucket = Bucket.of(address, 'config.data.root')
    return mirror.missing(bucket, cache)


def mirrored(address: str, cache: str, what: str = 'config.data.root') -> Path:
    """Returns the folder of this machine that holds what is in a bucket, after fetching what is missing.

    Args:
      address: of the data, 's3://bucket/path'.
      cache: config.data.cache, a folder for all mirrors.
      what: takes the address, for messages.

    Raises:
      UserError: no cache is given; as `Bucket.of` and `mirror.mirrored`.
    """
    if not cache:
        raise UserError(
            f'{what} is {address!r}, which is not read in place; set config.data.cache to a folder of this machine '
            'that is to hold its copy'
        )
    bucket = Bucket.of(address, what)
    return mirror.mirrored(bucket, local(cache, 'config.data.cache'), 'config.data.cache')
