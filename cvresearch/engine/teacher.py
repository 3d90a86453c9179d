"""Any net as the teacher of a run: a function of the student's images."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base.errors import UserError
from cvresearch.data import identity
from cvresearch.data.preprocessing import CHANNELS
from cvresearch.engine import classifiers
from cvresearch.engine.experiment import Experiment
from cvresearch.interop.classifier import Classifier


def of(student: Experiment) -> Callable[[jax.Array], jax.Array] | None:
    """Returns the teacher that an experiment names, None if it has none; see `load`."""
    how = student.recipe.distillation
    return load(how.teacher, student) if how else None


def load(name: str, student: Experiment) -> Callable[[jax.Array], jax.Array]:
    """Returns a function from the images that the student's net sees to the teacher's logits, in evaluation mode.

    A run that kept an average of its weights teaches with that. The images are normalized as the teacher was
    trained. Its logits are in the order of the student's classes, by their names.

    Args:
      name: of the teacher, as `classifiers.load` takes it: a workdir, run:DIR@best, file:PATH#torchvision/resnet50.
      student: the experiment that is taught.

    Raises:
      UserError: no such net, or other classes than the student's.
    """
    try:
        teacher = classifiers.load(name)
        if teacher.multi_label:
            raise UserError(f'{name} answers with any number of labels an image; expected one class an image')
        if teacher.num_classes != student.model.num_classes:
            raise UserError(
                f'{name} has {teacher.num_classes} classes and the net {student.model.num_classes}; expected the same'
            )
        order = _order(student.source.facts.class_names, teacher, name)
    except UserError as error:
        raise UserError(f'config.distillation.teacher: {error}') from error
    in_order = (order == range(len(order))).all()  # nothing is added to the step then
    variables = jax.device_get(teacher.variables)  # constants of the step, on any host
    mean, std = (jnp.array(values) for values in (teacher.preprocessing.mean, teacher.preprocessing.std))
    channels = CHANNELS[teacher.preprocessing.channels]

    def logits_of(images: jax.Array) -> jax.Array:
        pixels = images * jnp.array(student.std) + jnp.array(student.mean)
        logits = teacher.apply(variables, (pixels[..., channels] - mean) / std)
        return jax.lax.stop_gradient(logits if in_order else logits[..., order])

    return logits_of


def _order(names: Sequence[str], teacher: Classifier, name: str) -> np.ndarray:
    try:
        return identity.permutation(names, teacher.class_names[: len(names)], teacher.num_classes)
    except UserError as error:
        raise UserError(f'{name} cannot teach this net: {error}') from error
