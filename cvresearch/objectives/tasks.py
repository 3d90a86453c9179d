"""What is asked of a net: one class an image, or any number of classes. Targets and metrics of each."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from cvresearch.base.arrays import AnyArray
from cvresearch.objectives import metrics
from cvresearch.objectives.metrics import Sums


@dataclasses.dataclass(frozen=True)
class Task:
    """What is asked.

    Attributes:
      name: 'single_label' or 'multi_label'.
      metric: that nets are judged by, higher is better: 'top1' or 'mAP' (percent).
      metrics: by which a run may be judged, or its learning rate be set.
      sums: names of what training adds up, beside 'count'.
      target: (labels, classes) -> float (batch, classes); labels are int (batch,) or, filled up with -1, (batch, most).
      of_batch: (logits, labels, losses) -> sums over a batch.
      means: sums -> metrics, as Python numbers.
    """

    name: str
    metric: str
    metrics: tuple[str, ...]
    sums: tuple[str, ...]
    target: Callable[[jax.Array, int], jax.Array]
    of_batch: Callable[..., Sums]
    means: Callable[[Sums | dict], dict[str, float]]

    @property
    def several(self) -> bool:
        """Whether an image has any number of classes."""
        return self.name == 'multi_label'


def of_several(labels: Int[AnyArray, '*batch most'], classes: int) -> Float[Array, '*batch {classes}']:
    """Returns 1 for every class of an image, float (batch, classes), from labels (batch, most) filled up with -1."""
    return jnp.max(jax.nn.one_hot(labels, classes), axis=-2)


def _sums(
    logits: Real[AnyArray, 'batch classes'], labels: Int[AnyArray, 'batch most'], loss: Real[AnyArray, ' batch']
) -> Sums:
    """Returns the sums of one batch; a class is predicted where its probability is above 0.5."""
    present, predicted = of_several(labels, logits.shape[-1]) > 0, logits > 0
    values = {
        'loss': loss,
        'exact': jnp.all(present == predicted, axis=-1),
        'hits': jnp.sum(present & predicted, axis=-1),
        'errors': jnp.sum(present != predicted, axis=-1),
    }
    sums = {name: jnp.sum(value, dtype=jnp.float32) for name, value in values.items()}
    return sums | {'count': jnp.int32(len(labels))}


def _means(sums: Sums | dict) -> dict[str, float]:
    if not (count := int(sums['count'])):
        return {'n_seen': 0}
    hits = float(sums['hits'])
    said_or_had = 2 * hits + float(sums['errors'])
    return {
        'loss': float(sums['loss']) / count,
        'exact_match': 100 * float(sums['exact']) / count,
        'micro_f1': 100 * 2 * hits / max(said_or_had, 1),
        'n_seen': count,
    }


SINGLE = Task(
    'single_label', 'top1', ('top1', 'top5', 'loss'), metrics.NAMES, jax.nn.one_hot, metrics.of_batch, metrics.means
)
MULTI = Task('multi_label', 'mAP', ('mAP', 'loss'), ('loss', 'exact', 'hits', 'errors'), of_several, _sums, _means)
