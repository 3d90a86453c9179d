"""Seconds from a command to the end of its first step, cold and warm: python -m tests.peers.startup [--record FILE]

`python -m cvresearch.main` on synthetic images, LeNet-5 and ResNet-50 (16 images of 128 pixels), in a process each,
which stops when its first update is computed. Cold: with an empty cache of compiled programs; warm: with the first
one's. What imports take is of the process itself, from its launch on, and how many modules they are.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEC = 'configs/lenet5_fake.py'
NETS = {
    'lenet5': {},
    'resnet50': {'model.name': 'resnet50', 'data.image_size': 128, 'data.channels': 3, 'batch_size': 16},
}
SETTINGS = {'augment.shift': 0, 'mesh.data': 1, 'evaluate_every_epochs': 0, 'save_every_epochs': 0}
CHILD = """
import json, os, sys, time
from cvresearch import main
from cvresearch.base import cli
with cli.importing():
    from cvresearch import train
imported, modules = time.time(), len(sys.modules)
import jax
from cvresearch.engine.session import Session

def arrived(session, step, state):
    if step == 1:
        jax.block_until_ready(state)
        print(json.dumps([imported, modules, time.time()]), flush=True)
        os._exit(0)

Session.arrived = arrived
cli.run(main.main)
"""


def measured(net: str, folder: Path, cache: Path) -> dict:
    """Returns the seconds of one start."""
    settings = {**SETTINGS, **NETS[net]}
    flags = [f'--config.{key}={value}' for key, value in settings.items()]
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(cache)}
    launched = time.time()
    command = [sys.executable, '-c', CHILD, '--config', SPEC, *flags, '--workdir', str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    imported, modules, stepped = json.loads(done.stdout.splitlines()[-1])
    return dict(imports_s=imported - launched, modules=modules, first_step_s=stepped - launched)


def row_of(net: str, rounds: int) -> dict:
    """Returns a row of the table: medians over the warm starts, and the cold one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starts = [measured(net, folder / str(number), folder / 'compiled') for number in range(rounds + 1)]
    middle = lambda key: statistics.median(start[key] for start in starts[1:])  # noqa: E731
    return dict(
        net=net,
        modules=starts[0]['modules'],
        imports_s=round(middle('imports_s'), 2),
        cold_s=round(starts[0]['first_step_s'], 2),
        warm_s=round(middle('first_step_s'), 2),
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3, help='warm starts')
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    options = parser.parse_args()
    rows = [row_of(net, options.rounds) for net in NETS]
    from cvresearch.base import records, tables

    print(tables.render(rows, tuple(rows[0]), 'text'))
    if options.record:
        records.write_measurement(options.record, rows, load_average=os.getloadavg())


if __name__ == '__main__':
    main()
