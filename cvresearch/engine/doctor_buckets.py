"""What `cvresearch doctor` asks of buckets: whether a run can be written there, and data read. Nothing is copied."""

import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from cvresearch.base import at_hand, lease, mirror, uploads
from cvresearch.base.buckets import Bucket
from cvresearch.base.errors import UserError, reason
from cvresearch.base.paths import existing, is_bucket, local
from cvresearch.data import files, locations, sources
from cvresearch.data.examples import Source
from cvresearch.data.imagenet import TRAIN_TAR, VALIDATION_TAR
from cvresearch.data.mirror import missing
from cvresearch.engine.verdicts import OK, WARNING, WRONG, Verdict

GIB = 2**30


def workdir(address: str, copies: list[Path]) -> Iterator[Verdict]:
    """Tries all that a run does there, with an object that is deleted again; puts a copy of the run into `copies`."""
    bucket, name = Bucket.of(address, 'workdir'), f'doctor-{uuid.uuid4().hex}'
    start = time.perf_counter()
    try:
        files_there = bucket.files()
        created, again = bucket.create(name, b'1'), bucket.create(name, b'2')
        same = bucket.read(name) == b'1'
        bucket.remove([name])
    except Exception as error:  # each scheme has its own
        raise UserError(f'{address} cannot be used ({reason(error)}); check its name and your rights') from error
    seconds = (time.perf_counter() - start) / 5
    if not created or again or not same:
        yield WRONG, f'{address} writes an object where there is one already: two processes could write one run'
        return
    yield (
        OK,
        f'{address} has {len(files_there):,} files; it can be written, {seconds:.2f} s a request',
    )
    if lease.in_use(bucket):
        yield WARNING, f'{address} is in use by another process, or one that died had it: see docs/buckets.md'
    if {*uploads.RUN} & {*files_there}:
        copies.append(at_hand.read(address, records=True))


def folders(spec) -> dict[str, str]:
    """Returns {key: address} of a config's `data` that lie in buckets."""
    return {key: spec[key] for key in sources.FOLDERS if is_bucket(str(spec.get(key, '')))}


def data(spec) -> Iterator[Verdict]:
    """Yields whether the folders of a config's `data` can be listed and read, and whether a copy has room."""
    for key, address in folders(spec).items():
        bucket = Bucket.of(address, f'config.data.{key}')
        listing = bucket.listing(f'config.data.{key}')
        size = sum(info['size'] for info in listing.values())
        name = max(listing, key=lambda name: listing[name]['size'])
        start = time.perf_counter()
        try:
            if size:
                bucket.read(name, 0, 1)
        except Exception as error:
            raise UserError(f'{address} is listed, and {name} in it cannot be read ({reason(error)})') from error
        seconds = time.perf_counter() - start
        text = f'{address} has {len(listing):,} files, {size / GIB:,.1f} GiB; a byte of one came in {seconds:.2f} s'
        if not spec.get('cache'):
            yield OK, f'{text}; it is read in place'
            continue
        place = local(spec['cache'], 'config.data.cache')
        needed, free = missing(address, place), shutil.disk_usage(existing(place)).free - mirror.ROOM
        room = f'{needed / GIB:,.1f} GiB of it are still to come to {place}, which has {max(free, 0) / GIB:,.1f} GiB'
        yield (OK if needed <= free else WRONG), f'{text}; {room}'


def asking(config: ConfigDict) -> tuple[ConfigDict | None, Source | None]:
    """Returns a configuration that can be tried without copying its data, None where there is none.

    Beside it images that are only counted, where even their headers would have to be fetched; None for its own.
    """
    if config.data.get('cache') and not any(
        missing(address, local(config.data.cache, 'config.data.cache')) for address in folders(config.data).values()
    ):
        return config, None
    if not sources.reads_in_place(config.data):
        return None, None
    without = ConfigDict(config.to_dict(), convert_dict=True)
    with without.unlocked():
        without.data.cache = ''
    root = locations.place(without.data.root)
    tars = [root / name for name in (TRAIN_TAR, VALIDATION_TAR) if (root / name).exists()]
    if all(map(files.is_listed, tars)):
        return without, None
    if without.data.name != 'imagenet':
        return None, None
    return without, sources.without_images(without.data, without.minival, without.transform)
