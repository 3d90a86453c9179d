"""A population against its members one after another: python tests/peers/population.py [--record FILE].

Compiled training steps in turns, one update of all members against one update of each; medians of pairs, so that
a machine that is not idle slows both.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import jax.numpy as jnp

from cvresearch import population
from cvresearch.base import config as configs
from cvresearch.base import records, tables
from cvresearch.data.stream import Stream
from cvresearch.engine.experiment import Experiment


def measure(model: str, members: int = 8, rounds: int = 20, batch_size: int = 64) -> dict:
    """Returns the milliseconds of both and their ratio."""
    overrides = {'model.name': model, 'mesh.data': '1', 'batch_size': str(batch_size)}
    wanted = [
        configs.load('configs/lenet5_mnist5k.py', overrides | {'seed': str(i), 'schedule.peak': str(1e-3 + 1e-4 * i)})
        for i in range(members)
    ]
    first = Experiment.from_config(wanted[0])
    together = population.Population(wanted, first, ['schedule.peak'])
    states = [first.initial_state() for _ in wanted]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    batch = Stream(first.source.splits['train'], 0, batch_size).batch(0)
    batches = jax.tree.map(lambda x: jnp.stack([x] * members), batch)
    alone = first.train_step()

    def one_by_one(states):
        return jax.block_until_ready([alone(state, batch) for state in states])

    def at_once(stack):
        return jax.block_until_ready(together.step(together.numbers, stack, batches))

    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        states = one_by_one(states)
        middle = time.perf_counter()
        stack = at_once(stack)
        times.append((middle - start, time.perf_counter() - middle))
    pairs = times[2:]
    one, all_ = (1e3 * statistics.median(t[i] for t in pairs) for i in (0, 1))
    ratio = statistics.median(a / b for a, b in pairs)
    return dict(
        net=model,
        members=members,
        batch=batch_size,
        one_by_one_ms=round(one, 1),
        together_ms=round(all_, 1),
        ratio=round(ratio, 2),
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    nets = ['lenet5', 'lenet5_relu', 'mlp', 'softmax_regression']
    parser.add_argument('nets', nargs='*', default=nets, metavar='NET')
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    options = parser.parse_args()
    rows = [measure(name) for name in options.nets]
    print(tables.render(rows, tuple(rows[0])))
    if options.record:
        records.write_measurement(options.record, rows)


if __name__ == '__main__':
    main()
