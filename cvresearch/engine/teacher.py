"""A finished run as the teacher of another: its newest checkpoint, as a function of the pupil's images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cvresearch.base import config as configs
from cvresearch.base import hosts
from cvresearch.base import mesh as meshes
from cvresearch.base.errors import UserError
from cvresearch.base.paths import local
from cvresearch.data import identity
from cvresearch.engine import datasets
from cvresearch.engine.checkpoint import Checkpoints


def load(workdir: str, program_of: Callable, student) -> Callable[[jax.Array], jax.Array]:
    """Returns a function from the images that the pupil's net sees to the teacher's logits, in evaluation mode.

    Where the teacher kept an average of its weights, it teaches with that. Its images are normalized as it was
    trained. Its logits are in the order of the pupil's classes, by their names.

    Args:
      workdir: of the teacher.
      program_of: `Experiment.from_config`.
      pupil: the program that is taught.

    Raises:
      UserError: no run, no whole checkpoint, or other classes than the pupil's.
    """
    path = local(workdir, 'config.distillation.teacher')
    if not (path / 'config.json').is_file():
        raise UserError(f'config.distillation.teacher: {path} holds no run (it has no config.json)')
    config = configs.from_json((path / 'config.json').read_text())
    config.distillation.teacher = ''  # what taught the teacher may be gone
    source = datasets.of_run(path, config, images=False)
    experiment = program_of(config, source, meshes.Layout(student.mesh, rules=(('', None),)))  # a constant of the step
    state = Checkpoints(path / 'checkpoints', read_only=True).restore(experiment.abstract_state())
    if state is None:
        raise UserError(f'config.distillation.teacher: {path} has no whole checkpoint')
    if experiment.model.num_classes != student.model.num_classes:
        raise UserError(
            f'config.distillation.teacher: {path} has {experiment.model.num_classes} classes and the net '
            f'{student.model.num_classes}; expected the same'
        )
    names = (each.source.facts.class_names for each in (student, experiment))
    try:
        order = identity.permutation(*names, experiment.model.num_classes)
    except UserError as error:
        raise UserError(f'config.distillation.teacher: {path} cannot teach this net: {error}') from error
    in_order = (order == range(len(order))).all()  # nothing is added to the step then
    state = state.averaged() if state.average else state
    variables = hosts.to_host({'params': state.params, **state.model_state})  # constants of the step, on any host
    scale = jnp.array(student.std) / jnp.array(experiment.std)
    shift = (jnp.array(student.mean) - jnp.array(experiment.mean)) / jnp.array(experiment.std)

    def logits_of(images: jax.Array) -> jax.Array:
        logits = experiment.model.apply(variables, images * scale + shift, train=False)
        return jax.lax.stop_gradient(logits if in_order else logits[..., order])

    return logits_of
