"""What Grad-CAM costs, in forward passes of the net, on one photograph of 224 pixels.

    python tests/peers/look_speed.py [--record FILE]

Processor time of this process, of the compiled programs, in turns; weights and pixels are random, which changes no
time. Of each the median..
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

NETS = ('efficientnet_lite0', 'squeezenet1_0')
ROUNDS, SIDE = 20, 224


def seconds(call) -> float:
    """Returns the processor time of a call, all threads together."""
    start = time.process_time()
    jax.block_until_ready(call())
    return time.process_time() - start


def measure(name: str) -> dict:
    """Returns the row of a net."""
    from cvresearch.inspect import class_activation, program
    from cvresearch.models import registry

    module = registry.build(name)
    image = np.random.default_rng(0).standard_normal((1, SIDE, SIDE, 3)).astype(np.float32)
    variables = jax.jit(lambda key: module.init(key, image))(jax.random.key(0))
    calls = {
        'forward pass': lambda: program.logits(module, variables, image),
        'Grad-CAM': lambda: class_activation.grad_cam(module, variables, image).map,
    }
    found = {key: [] for key in calls}
    for round_number in range(ROUNDS + 1):
        for key, call in calls.items():
            taken = seconds(call)
            if round_number:  # the first compiles
                found[key].append(taken)
    median = {key: statistics.median(values) for key, values in found.items()}
    return {
        'net': name,
        'ms of a forward pass': round(1e3 * median['forward pass'], 1),
        'ms of Grad-CAM': round(1e3 * median['Grad-CAM'], 1),
        'forward passes': round(median['Grad-CAM'] / median['forward pass'], 2),
    }


def main() -> None:
    """Prints the table."""
    from cvresearch.base import records, tables

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    options = parser.parse_args()
    rows = [measure(name) for name in NETS]
    print(tables.render(rows, tuple(rows[0])))
    if options.record:
        records.write_measurement(options.record, rows, rounds=ROUNDS, side=SIDE)


if __name__ == '__main__':
    main()
