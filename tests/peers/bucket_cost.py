"""What a run's bucket costs the run, in its own processor time: python -m tests.peers.bucket_cost --record FILE.

A thread beside training looks at the folder every five seconds and sends what is new, another gives the sign of life.
Each is done many times against a server on this machine (bucket_servers.py), and the time counts that this process'
threads took: that alone can keep a step waiting. The server is another process.
"""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from cvresearch.base import at_hand, cli, lease, tables, uploads
from cvresearch.base.buckets import Bucket
from cvresearch.base.records import write_measurement
from tests import bucket_servers

MIB, TIMES = 1 << 20, 50
BEAT, PASS = lease.BEAT_SECONDS, uploads.PASS_SECONDS
COLUMNS = ('bucket', 'idle_pass_ms', 'pass_with_rows_ms', 'sign_of_life_ms', 'checkpoint_64_mib_ms', 'share_percent')


def measure(scheme: str, folder: Path) -> dict:
    """Returns a row of the table; `share_percent` is of the time of training, with new rows in every pass."""
    (folder / 'place').mkdir(parents=True)
    (folder / 'lock').touch()
    bucket = Bucket.of(f'{scheme}://lab/cost')
    lease.BEAT_SECONDS = uploads.PASS_SECONDS = 3600.0  # the threads wait; what they do is done here
    right = lease.Lease.take(bucket, folder / 'lock')
    (folder / 'place/config.json').write_text('{}')
    sending = uploads.Uploads(folder / 'place', bucket, right, folder / 'held', print, fetched=True)
    sending._bring()
    idle, beat = _milliseconds(sending._bring), _milliseconds(right._beat)

    def row() -> None:
        with open(folder / 'place/metrics.jsonl', 'a', encoding='utf-8') as file:
            file.write('x' * 200 + '\n')
        sending._bring()

    rows = _milliseconds(row)
    for number in range(8):
        file = folder / f'place/checkpoints/2/state/{number}'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(8 * MIB))
    checkpoint = _milliseconds(sending._bring, 1)
    share = 100 * (rows / PASS + beat / BEAT) / 1000
    values = (f'{scheme}://', idle, rows, beat, checkpoint, share)
    return dict(zip(COLUMNS, (round(value, 3) if isinstance(value, float) else value for value in values), strict=True))


def _milliseconds(act, times: int = TIMES) -> float:
    start = time.process_time()
    for _ in range(times):
        act()
    return (time.process_time() - start) / times * 1000


def main(argv: list[str]) -> int:
    """Prints the table; returns the exit code."""
    options = cli.parse(argv, __doc__, required=(), places=('record',), record='file for the record, JSON')
    rows = []
    for scheme in bucket_servers.PACKAGES:
        with bucket_servers.elsewhere(scheme) as environment, TemporaryDirectory() as folder:
            os.environ |= {**environment, at_hand.VARIABLE: folder}
            rows.append(measure(scheme, Path(folder)))
    print(tables.render(rows, COLUMNS, 'text'))
    if options.record:
        write_measurement(options.record, rows)
    return 0


if __name__ == '__main__':
    cli.run(main)
