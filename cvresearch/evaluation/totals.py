"""Evaluation of a split: every image exactly once, whatever the batch size and the mesh."""

from collections.abc import Callable

import jax

from cvresearch.base import mesh as meshes
from cvresearch.base.errors import RunError
from cvresearch.data.sources import Examples
from cvresearch.data.stream import in_order
from cvresearch.engine.state import State
from cvresearch.objectives import metrics

AHEAD = 2  # batches handed to the device before the first of them is waited for


def evaluate(
    eval_step: Callable[[State, dict], metrics.Sums],
    state: State,
    examples: Examples,
    batch_size: int,
    mesh: meshes.AnyMesh,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Returns the metrics of a split and `n_seen`, the number of its images.

    Args:
      eval_step: as `passes.make_eval_step` makes it, jitted.
      state: the run's.
      examples: the split.
      batch_size: images a step, over all hosts.
      mesh: of the run.
      stop: asked before every batch; where it says True the evaluation is given up.

    Returns:
      {'loss', 'top1', 'top5' (percent), 'n_seen'}; None where it was given up.

    Raises:
      RunError: `n_seen` is not the size of the split.
    """
    totals, pending = None, []
    for batch in in_order(examples, batch_size, jax.process_index(), jax.process_count()):
        if stop():
            return None
        pending.append(eval_step(state, meshes.place(batch, mesh)))
        # Not waited for at once: the next batch is read while the device computes this one.
        if len(pending) > AHEAD:
            totals = metrics.total(totals, pending.pop(0))
    for sums in pending:
        totals = metrics.total(totals, sums)
    values = metrics.means(totals or {})
    if values['n_seen'] != len(examples):
        raise RunError(f'evaluation saw {values["n_seen"]} images of {len(examples)}; the result is not written')
    return values
