"""How fast members of an ensemble answer together: cvresearch benchmark ensemble [--members 8].

One pass over images with the nets' parameters stacked, against one pass for each net, in turns: median seconds of a
pass over all images, and the median of the ratios of neighbouring rounds. Both are compiled before.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import cli, records, tables
from cvresearch.base import mesh as meshes
from cvresearch.data.examples import Arrays
from cvresearch.evaluation import ensemble, predictions, protocols
from cvresearch.models import registry


def measure(
    model: str = 'lenet5', members: int = 8, images: int = 10_000, batch_size: int = 500, rounds: int = 7
) -> dict:
    """Returns the seconds of one stacked pass, of a pass for each member, and how many times faster the first is.

    Args:
      model: name of a variant.
      members: nets, with weights of their own.
      images: random ones, of the variant's size.
      batch_size: images at once.
      rounds: of both, in turns.
    """
    net, shape = registry.build(model), registry.variant(model).input_shape
    initial = jax.jit(lambda key: net.init(key, jnp.zeros((1, *shape)), train=False))
    variables = [initial(key) for key in jax.random.split(jax.random.key(0), members)]
    random = np.random.default_rng(0)
    examples = Arrays(random.integers(0, 256, (images, *shape), np.uint8), np.zeros(images, np.int32))
    mesh, protocol = meshes.make_mesh(), protocols.as_given(examples, shape)
    placed = predictions.Placed(net, (0.5,), (0.25,), mesh)
    one, all_together = (predictions.forward(placed, protocol, members=stacked) for stacked in (False, True))
    together, apart = all_together(ensemble.stack(variables)), [one(tree) for tree in variables]

    def seconds(*forwards) -> float:
        start = time.perf_counter()
        for forward in forwards:
            predictions.predict(forward, examples, protocol, batch_size, mesh)
        return time.perf_counter() - start

    seconds(together, apart[0])  # compiles
    stacked_s, apart_s = [], []
    for number in range(rounds):  # in turns: a machine that drifts favours neither
        for first in (True, False):
            if first == bool(number % 2):
                stacked_s.append(seconds(together))
            else:
                apart_s.append(seconds(*apart))
    ratios = [a / b for a, b in zip(apart_s, stacked_s, strict=True)]
    return dict(
        model=model,
        device=jax.devices()[0].device_kind,
        members=members,
        images=images,
        batch_size=batch_size,
        stacked_s=round(statistics.median(stacked_s), 4),
        apart_s=round(statistics.median(apart_s), 4),
        times_faster=round(statistics.median(ratios), 3),
        ratios=[round(ratio, 3) for ratio in ratios],
    )


def main(argv: list[str]) -> int:
    """Prints the measurement; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=(),
        places=('record',),
        model='variant (lenet5)',
        members='nets (8)',
        images='random images (10000)',
        batch_size='images at once (500)',
        rounds='of both, in turns (7)',
        format='text (default) or json: one line',
        record='file for the record: docs/records/NAME.json',
    )
    numbers = cli.integers(options, 'members', 'images', 'batch_size', 'rounds')
    result = measure(options.model or 'lenet5', **numbers)
    if options.record:
        records.write_measurement(options.record, [result])
    print(tables.of_one(result, options.format or 'text'))
    return 0
