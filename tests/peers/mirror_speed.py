"""How fast data of a bucket come to this machine: python -m tests.peers.mirror_speed --record FILE.

The mirror of `data.cache`, and what is read in place, beside a plain copy, one file after another. The server is on
this machine, and every request takes `LATENCY` longer, as one over a network does.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from cvresearch.base import buckets, cli, mirror, tables
from cvresearch.base.buckets import Bucket
from cvresearch.base.records import write_measurement
from cvresearch.data import remote
from tests import bucket_servers

LATENCY = 0.03  # seconds
FILES, SIZE, LARGE = 400, 100_000, 1 << 27  # images and their bytes; bytes of a tar
COLUMNS = ('bucket', 'data', 'how', 'seconds', 'mib_per_second', 'times_a_plain_copy')


def measure(scheme: str, folder: Path) -> list[dict]:
    """Returns the rows of a scheme."""
    type(buckets.filesystem(scheme)).clear_instance_cache()
    image, images, tar = os.urandom(SIZE), Bucket.of(f'{scheme}://lab/images'), Bucket.of(f'{scheme}://lab/tar')
    buckets.in_threads(lambda n: images.write(f'{n % 10}/{n}.jpg', image), range(FILES), 32)
    (folder / 'tar').write_bytes(os.urandom(LARGE))
    tar.send('train.tar', folder / 'tar')
    rows = []
    for what, bucket in ((f'{FILES} images of {SIZE // 1000} kB', images), (f'a tar of {LARGE >> 20} MiB', tar)):
        size, seconds = sum(info['size'] for info in bucket.files().values()), _ways(bucket, folder / what)
        for how, taken in seconds.items():
            speed, ratio = size / taken / (1 << 20), seconds['plain copy'] / taken
            values = (f'{scheme}://', what, how, round(taken, 2), round(speed, 1), round(ratio, 1))
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _ways(bucket: Bucket, to: Path) -> dict[str, float]:
    """Returns the seconds that each way takes."""

    def mirrored() -> None:
        mirror.mirrored(bucket, to / 'mirror', 'place', quiet=True)

    return {
        'plain copy': _seconds(lambda: _plain(bucket, to / 'plain')),
        'mirror': _seconds(mirrored),
        'mirror, all there': _seconds(mirrored),
        'read in place': _seconds(lambda: _in_place(bucket)),
    }


def _plain(bucket: Bucket, to: Path) -> None:
    for name in bucket.files():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        bucket.store.get_file(f'{bucket.path}/{name}', str(to / name))


def _in_place(bucket: Bucket) -> None:
    folder = remote.Remote.of(bucket)
    pieces = [(folder / name, at) for name, info in bucket.files().items() for at in range(0, info['size'], SIZE)]
    with ThreadPoolExecutor(remote.THREADS) as pool:
        list(pool.map(lambda piece: piece[0].read(piece[1], piece[1] + SIZE), pieces))


def _seconds(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    """Prints the table; returns the exit code."""
    options = cli.parse(argv, __doc__, required=(), places=('record',), record='file for the record, JSON')
    rows = []
    for scheme in bucket_servers.PACKAGES:
        with bucket_servers.elsewhere(scheme, LATENCY) as environment, TemporaryDirectory() as folder:
            os.environ |= environment
            rows += measure(scheme, Path(folder))
    print(tables.render(rows, COLUMNS, 'text'))
    if options.record:
        write_measurement(options.record, rows, latency_seconds=LATENCY)
    return 0


if __name__ == '__main__':
    cli.run(main)
