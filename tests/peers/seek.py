"""The stream's time to a batch at step 0 and at step 400,000, and its memory, for sources of any size.

    python tests/peers/seek.py [--record FILE]

Images are drawn as they are asked for, 64 x 64, in batches of 64 and with threads; every row is a process of its own.
Seconds are from `Stream(...)` to the batch; memory is the process' peak, with Python, NumPy and the decoders.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

ROUNDS = 5
PLACES = [(size, step) for size in (1_000, 1_000_000) for step in (0, 400_000)]


def measure(size: int, step: int) -> tuple[float, float]:
    """Returns the seconds to the batch and the peak memory in MB."""
    from cvresearch.data import sources
    from cvresearch.data.stream import Stream

    crop = dict(crop=dict(name='random_resized_crop', size=64))
    transform = dict(train=crop, eval=crop)
    examples = sources.load(dict(name='fake_photographs', train=size), 0, transform).splits['train']
    examples.take([0], [0])  # starts the threads
    start = time.perf_counter()
    Stream(examples, 0, 64).batch(step)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    parser.add_argument('--one', nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    from cvresearch.base import records, tables

    found = {place: [] for place in PLACES}
    for _ in range(ROUNDS):
        for size, step in PLACES:
            command = [sys.executable, __file__, '--one', str(size), str(step)]
            found[size, step].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    rows = []
    for (size, step), values in found.items():
        seconds, memory = (statistics.median(part) for part in zip(*values, strict=True))
        rows.append({'images': size, 'step': step, 'ms to the batch': round(1e3 * seconds), 'peak MB': round(memory)})
    print(tables.render(rows, tuple(rows[0])))
    if options.record:
        records.write_measurement(options.record, rows)


if __name__ == '__main__':
    main()
