"""The methods of learning by name. Each makes its own update from the same parts; none is a branch in another's."""

from collections.abc import Callable
from typing import Protocol

from ml_collections import ConfigDict

from cvresearch.base.errors import UserError, construct
from cvresearch.data.examples import Source
from cvresearch.engine.methods.consistency import fixmatch, uda
from cvresearch.engine.methods.meta_pseudo_labels import MetaPseudoLabels
from cvresearch.engine.methods.pseudo_labels import PseudoLabels
from cvresearch.engine.methods.soft_labels import SoftLabels
from cvresearch.engine.methods.supervised import Supervised
from cvresearch.engine.state import State
from cvresearch.engine.steps import UpdateParts
from cvresearch.optim import compression, updates

METHODS = {
    'supervised': Supervised,
    'pseudo_labels': PseudoLabels,
    'fixmatch': fixmatch,
    'uda': uda,
    'soft_labels': SoftLabels,
    'meta_pseudo_labels': MetaPseudoLabels,
}


class Method(Protocol):
    """How a net learns from a batch.

    Attributes:
      strong_view: whether a batch has a strongly augmented view of the unlabelled images.
      unlabelled: whether it learns from such images.
    """

    strong_view: bool
    unlabelled: bool

    def initial(self, model, tx, image_shape: tuple[int, ...], seed) -> dict:
        """Returns what `State.method` holds at step 0."""
        ...

    def make_train_step(self, parts: UpdateParts) -> Callable[[State, dict], State]:
        """Returns one update, (state, batch) -> state."""
        ...


def make(config: ConfigDict, steps_per_epoch: float) -> Method:
    """Returns the method that a config's `method` names.

    Args:
      config: the run's.
      steps_per_epoch: updates for which the labelled images last.

    Raises:
      UserError: an unknown name or argument, or one out of range; options of the update that the method does without.
    """
    method = construct('method', METHODS, config.method, steps_per_epoch=steps_per_epoch)
    if not method.unlabelled:
        return method
    options = updates.make(config.updates)
    other = {
        'updates.accumulate': options.accumulate > 1,
        'updates.sam': options.sam > 0,
        'updates.freeze': bool(options.freeze),
        'mixing.mixup': config.mixing.get('mixup', 0) > 0,
        'mixing.cutmix': config.mixing.get('cutmix', 0) > 0,
        'compress.name': compression.is_on(config),
        'distillation.teacher': bool(config.distillation.get('teacher')),
    }
    if refused := [key for key, set_ in other.items() if set_]:
        how = config.get('finetune', {}).get('name', 'all')  # which freezes, where the file itself does not
        set_by = f' (config.finetune.name={how} sets it)' if refused[0] == 'updates.freeze' and how != 'all' else ''
        raise UserError(
            f'config.method.name is {config.method.name!r}, whose update has no config.{refused[0]}{set_by}; expected '
            'it at its default'
        )
    return method


def check(config: ConfigDict, method: Method, source: Source) -> None:
    """Raises UserError where a training's data do not go with its method."""
    if method.unlabelled and source.unlabelled is None:
        raise UserError(
            f'config.method.name is {config.method.name!r}, which learns from images without labels, and '
            'config.unlabelled.name is none; expected rest (with config.data.labels), images, or a source'
        )
    if source.unlabelled is not None and not method.unlabelled:
        raise UserError(
            f'config.unlabelled.name is {config.unlabelled.name!r}, and config.method.name={config.method.name} has no '
            'use for images without labels; expected none'
        )
    has_labels = bool(config.unlabelled.get('labels', ''))
    if has_labels != isinstance(method, SoftLabels):
        raise UserError(
            f'config.method.name is {config.method.name!r} and config.unlabelled.labels is '
            f'{config.unlabelled.get("labels", "")!r}; expected soft_labels with the labels.npz of `cvresearch label`, '
            'or neither'
        )
    if method.unlabelled and source.facts.multi_label:
        raise UserError(
            f'config.method.name is {config.method.name!r}, which gives an image one class, and the images of '
            f'{source.facts.name} have any number of labels; expected supervised'
        )
