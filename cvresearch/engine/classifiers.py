"""One way to name a net, on every command line and in every configuration: a run, a file or the hub.

run:DIR            a run's newest checkpoint; of the average of its weights, if it keeps one
run:DIR@best       the kept checkpoint that is best on the images held out; @1200 of a step; @snapshot1200
run:DIR@raw        the parameters themselves; @ema, @swa, @polyak their average; after a step or best: @best@raw
file:PATH#torchvision/resnet50    weights of another library; a tag (#timm/resnet50.tv_in1k) tells their photographs
hub:timm/resnet50.a1_in1k@REVISION
compressed:DIR     what `cvresearch compress` made
PATH               a folder that holds a run or a compressed net, or a file
"""

import json
from collections.abc import Callable
from pathlib import Path

import jax

from cvresearch.base import trees
from cvresearch.base.errors import UserError, lookup
from cvresearch.base.paths import is_bucket, local
from cvresearch.data import transforms
from cvresearch.data.preparation import AsEvaluated, Preparation
from cvresearch.data.preprocessing import Preprocessing
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment
from cvresearch.engine.state import State
from cvresearch.engine.trained import SNAPSHOTS, TrainedRun, variables_of, without_optimizer
from cvresearch.interop import classifier, compressed
from cvresearch.interop.classifier import NAMING, Classifier, Name, Provenance
from cvresearch.nn import overrides


def load(name: str | Path, model: str = '') -> Classifier:
    """Returns the net that a name stands for.

    Args:
      name: see the head of this file.
      model: a variant that a file's net must be; it need not say whose weights they are then.

    Raises:
      UserError: nothing is there, it cannot be read, or the weights do not fit.
    """
    name = str(name)
    parsed = classifier.parse(name)
    kind = parsed.kind or _kind(parsed)
    return lookup('kind of net', OPENERS, kind, f'expected {NAMING}')(parsed, name, model)


def _kind(parsed: Name) -> str:
    if is_bucket(parsed.place):
        return 'run'
    path = local(parsed.place, 'the net')
    if not path.exists():
        raise UserError(f'there is no {path}; expected a net: {NAMING}')
    if compressed.is_compressed(path):
        return 'compressed'
    return 'run' if path.is_dir() and not parsed.reference and not _published(path) else 'file'


def _published(path: Path) -> bool:
    """Whether a folder is laid out as on the hub; a run's config.json names no architecture."""
    try:
        return 'architecture' in json.loads((path / 'config.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return False


def _of_file(parsed: Name, name: str, model: str) -> Classifier:
    path = local(parsed.place, 'the net')
    if not parsed.reference and not model and path.is_dir() and _published(path):
        return classifier.of_hub_folder(path, name)
    return classifier.of_file(parsed.place, parsed.reference, model, name)


def _of_hub(parsed: Name, name: str, model: str) -> Classifier:
    return classifier.of_hub(parsed.place, *(parsed.choices or (None,)), name=name)


def _of_compressed(parsed: Name, name: str, model: str) -> Classifier:
    net = compressed.classifier_of(local(parsed.place, 'the net'), name)
    if model and net.provenance.variant != model:
        raise UserError(f'{parsed.place} is a {net.provenance.variant}, not a {model}')
    return net


def _of_run(parsed: Name, name: str, model: str) -> Classifier:
    run = TrainedRun.open(parsed.place, images=False, what='the net')
    steps = [choice for choice in parsed.choices if choice == 'best' or choice.removeprefix('snapshot').isdigit()]
    averages = [choice for choice in parsed.choices if choice not in steps]
    if len(steps) > 1 or len(averages) > 1:
        raise UserError(
            f'{name} chooses twice ({", ".join(parsed.choices)}); expected one step and one kind of weights'
        )
    weights = averages[0] if averages else run.experiment.weights[-1]
    lookup('weights', dict.fromkeys(run.experiment.weights), weights)
    state = _state(run, steps[0] if steps else '')
    return of_state(run, state, weights, name)


def _state(run: TrainedRun, choice: str) -> State:
    if choice == 'best':
        return run.checkpoint(run.best_step('minival', ''))
    if not choice.startswith('snapshot'):
        return run.checkpoint(int(choice) if choice else None)
    folder, step = Checkpoints(run.path / SNAPSHOTS, read_only=True), int(choice.removeprefix('snapshot'))
    state = folder.restore(without_optimizer(run.experiment.abstract_state()), step)
    if state is None:
        steps = ', '.join(map(str, folder.steps())) or 'none'
        raise UserError(f'{run.path} has no whole snapshot of step {step}; there are: {steps}')
    return state


def of_state(run: TrainedRun, state: State, weights: str, name: str = '') -> Classifier:
    """Returns the classifier of a run's state.

    Args:
      run: the run.
      state: of one of its checkpoints.
      weights: 'raw' or the average that the run keeps.
      name: as it was asked for.
    """
    experiment, config = run.experiment, run.experiment.config
    module, variables = overrides.separate(experiment.model, jax.device_get(variables_of(state, weights)))
    step = int(state.position)
    known = experiment.source.facts.class_names
    names = known + tuple(f'class {number}' for number in range(len(known), module.num_classes))
    facts = dict(step=step, weights=weights, data=experiment.source.facts.name, seed=config.seed)
    arguments = {key: value for key, value in config.model.items() if key not in ('name', 'num_classes', 'stacked')}
    provenance = Provenance(
        'run',
        name or f'run:{run.path}',
        config.model.name,
        trees.sha256(variables['params']),
        arguments=arguments,
        facts=facts,
    )
    return Classifier(module, variables, preparation_of(experiment), names, provenance, experiment.task.several)


def preparation_of(experiment: Experiment) -> Preparation:
    """Returns how a run prepares photographs: as it evaluates them.

    For a run of arrays (digits, CIFAR) a photograph is resized to the size of its images, both sides, and becomes grey
    if they are.

    Raises:
      UserError: a run of images that are not square.
    """
    if experiment.source.encoded:
        return AsEvaluated(transforms.make(experiment.config.transform.eval), experiment.mean, experiment.std)
    height, width, channels = experiment.source.facts.image_shape
    if height != width:
        raise UserError(f'the run has images of {height} x {width} pixels; expected square ones, to resize others')
    side = experiment.augment.resize or height
    return Preprocessing(
        crop=side,
        resize=side,
        squash=True,
        mean=experiment.mean,
        std=experiment.std,
        channels='L' if channels == 1 else 'RGB',
    )


OPENERS: dict[str, Callable[[Name, str, str], Classifier]] = {
    'run': _of_run,
    'file': _of_file,
    'compressed': _of_compressed,
    'hub': _of_hub,
}
