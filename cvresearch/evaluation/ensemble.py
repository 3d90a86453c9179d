"""Ensembles: several nets answer, their probabilities are averaged (Huang et al. 2017, "Snapshot ensembles",
arXiv:1704.00109, section 3). And averages of weights, which are another thing: one net.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import memory, trees
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError
from cvresearch.data.examples import Examples
from cvresearch.engine import recipes, steps
from cvresearch.evaluation import predictions
from cvresearch.evaluation.predictions import Placed, Predictions
from cvresearch.evaluation.protocols import Protocol
from cvresearch.objectives import multi_label, scores

SHARE_OF_MEMORY = 4  # stacked members and what they compute may take this part of a device's memory


def average(members: Sequence[Predictions], **record) -> Predictions:
    """Returns the ensemble: the mean of the members' probabilities, on the same images.

    Raises:
      UserError: members of other images or classes.
    """
    first, *_ = members = aligned(members)
    if first.multi_label:
        mean = multi_label.averaged([member.logits for member in members])
        return Predictions(mean.astype(np.float32), first.labels, record, first.class_names)
    # In logarithms and float64: the probabilities of classes that nobody believes in would underflow.
    logs = np.logaddexp.reduce([scores.log_softmax(member.logits) for member in members]) - np.log(len(members))
    return Predictions(logs.astype(np.float32), first.labels, record, first.class_names)


def aligned(members: Sequence[Predictions]) -> list[Predictions]:
    """Returns the members with the classes of the first in their order, by the names of the classes.

    Raises:
      UserError: members of other images or classes.
    """
    first, in_order = members[0], list(members[:1])
    for other in members[1:]:
        try:
            in_order.append(predictions.in_order_of(first, other))
        except UserError as error:
            pair = ' and '.join(str(member.record.get('run')) for member in (first, other))
            raise UserError(
                f'members of an ensemble must answer on the same images and classes ({pair}): {error}'
            ) from error
    return in_order


def curve(members: Sequence[Predictions]) -> list[dict]:
    """Returns one row for each m = 1 to M: the metrics of the ensemble of the last m members.

    The last, since the first cycles are the least trained (Huang et al. 2017, section 4.1).
    """
    task, numbers = _task(members), range(1, len(members) + 1)
    return [{'m': m, **predictions.summary(average(members[-m:], **task))} for m in numbers]


def _task(members: Sequence[Predictions]) -> dict[str, str]:
    return {key: value for key, value in members[0].record.items() if key == 'task'}


def disagreement(members: Sequence[Predictions]) -> np.ndarray:
    """Returns the share of images on which two members choose another class, or other classes, float64 (M, M)."""
    chosen = np.stack([member.predicted.reshape(len(member.labels), -1) for member in members])
    return (chosen[:, None] != chosen[None]).any(-1).mean(-1)


def correlation(members: Sequence[Predictions]) -> np.ndarray:
    """Returns Pearson's correlation of two members' probabilities over all images and classes, float64 (M, M).

    Huang et al. 2017, section 4.4, "pairwise correlation of softmax outputs".
    """
    coefficients = np.corrcoef(np.stack([member.probabilities.reshape(-1) for member in members]))
    return np.atleast_2d(coefficients)  # a single member has a number alone


def stack(variables: Sequence[dict]) -> dict:
    """Returns the variables of nets of one architecture as one pytree, with the net as first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)


def fit(variables: Sequence[dict], mesh: meshes.AnyMesh) -> bool:
    """Whether members can be evaluated at once: of one structure, and no more than their share of the memory."""
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in variables]
    if any(other != shapes[0] for other in shapes[1:]):
        return False
    available = memory.of_device(meshes.devices(mesh)[0])
    return 4 * len(variables) * trees.count(variables[0]) * SHARE_OF_MEMORY <= available


def members_of(
    net: Placed,
    variables: Sequence[dict],
    examples: Examples,
    protocol: Protocol,
    batch_size: int,
    records: Sequence[dict],
    stacked: bool | None = None,
) -> list[Predictions]:
    """Returns what each net of one architecture says of a split.

    Args:
      net: of all, where they are evaluated.
      variables: of each.
      examples: the split.
      protocol: how images are shown.
      batch_size: images at once.
      records: of each.
      stacked: in one pass over the images, all nets in one compiled program; or one net after another, with equal
        results up to rounding. Where they fit, by default.
    """

    def seen_by(logits_of: predictions.Forward) -> tuple[np.ndarray, np.ndarray]:
        answers = predictions.predict(logits_of, examples, protocol, batch_size, net.mesh)
        assert answers is not None  # nothing asks it to stop
        return answers

    if stacked if stacked is not None else len(variables) > 1 and fit(variables, net.mesh):
        together = predictions.forward(net, protocol, members=True)
        logits, labels = seen_by(together(stack(variables)))
    else:
        one = predictions.forward(net, protocol)
        answered = [seen_by(one(tree)) for tree in variables]
        logits, labels = np.stack([part for part, _ in answered]), answered[0][1]
    return [Predictions(part, labels, record) for part, record in zip(logits, records, strict=True)]


def average_weights(variables: Sequence[dict]) -> dict:
    """Returns the mean of nets' variables: a soup (Wortsman et al. 2022, arXiv:2203.05482), or SWA over snapshots.

    Izmailov et al. 2018, arXiv:1803.05407, algorithm 1. Batch statistics are averaged too, which is only a
    beginning: `reestimate` replaces them.

    Raises:
      UserError: nets of other architectures.
    """
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in variables]
    if any(other != shapes[0] for other in shapes[1:]):
        raise UserError('weights can only be averaged over nets of one architecture; average their probabilities')
    # Whole numbers, such as counters, stay whole numbers.
    return jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), 0).astype(leaves[0].dtype), *variables)


def reestimate(
    model: nn.Module,
    variables: dict,
    examples: Examples,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    most: int = 100,
) -> dict:
    """Returns the variables with batch statistics of the training images under these weights.

    Izmailov et al. 2018, section 3.2, "batch normalization"; from images that are not augmented. How statistics of
    batches become one: `recipes.population`.

    Args:
      model: of a run.
      variables: with the collection 'batch_stats'; returned as they are without.
      examples: to train on.
      batch_size: of training.
      mean: of pixels; std: likewise.
      most: batches at most.
    """
    if not variables.get('batch_stats'):
        return variables
    # Averaged weights have activations of their own, which the mean of the nets' statistics does not fit.
    net = recipes.statistics_net(model)

    @jax.jit
    def of_batch(images):
        _, statistics = net.apply(
            variables,
            steps.normalize(images, mean, std),
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': jax.random.key(0)},
        )
        return statistics['batch_stats']

    # Whole batches: a shorter last one would weigh as much as the others.
    number = max(1, min(most, len(examples) // batch_size))
    parts = (np.arange(b * batch_size, min((b + 1) * batch_size, len(examples))) for b in range(number))
    statistics = [jax.device_get(of_batch(examples.take(part)[0])) for part in parts]
    return {**variables, 'batch_stats': recipes.population(statistics)}
