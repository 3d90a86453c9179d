"""What becomes of a run that goes on with other values of its configuration: in words, from the parts themselves."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.base.workdir import LENGTH, adopt, is_longer, kept_config
from cvresearch.data import resizing
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.experiment import Experiment, Plan
from cvresearch.engine.state import State
from cvresearch.optim import schedules
from cvresearch.optim.schedules import Schedule

SAMPLES = 4096  # steps at which two schedules are compared; all of a shorter run
REASONS = {
    'constant': 'it is the same throughout',
    'step': 'its drops are counted from the start of the run, and go on',
    'exponential': 'it falls by the epochs since the start of the run, and goes on falling',
    'multistep': 'its drops are at given epochs, and none is added',
    'polynomial': 'its curve is stretched to the new end',
    'cosine': 'its curve is stretched to the new end',
    'sgdr': 'its cycles are counted from the start of the run, and go on',
    'one_cycle': 'its rise and fall are stretched to the new end',
    'trapezoid': 'its decay is moved to the new end',
    'plateau': 'it goes by the evaluations so far, and the one at the old end is one of them',
}
EXACTNESS = {
    'mesh.': 'sums over other devices are rounded otherwise',
    'eval_batch_size': 'losses of evaluations may differ in their last digits',
}


def found(path: Path, config: ConfigDict) -> tuple[dict | None, bool]:
    """Returns the run card of a claimed workdir, None before there is one, and whether the run is to be longer.

    Raises:
      UserError: the run is finished and has no checkpoint from which it could be trained on.
    """
    card, longer = read_card(path), is_longer(kept_config(path), config)
    ended = card is not None and card['status'] == 'finished'
    if ended and longer and not Checkpoints(path / 'checkpoints', read_only=True).steps():
        raise UserError(
            f'{path} is finished and has no checkpoint, so it cannot be extended; choose another --workdir to train so '
            'long from the start'
        )
    return card, longer


def adopted(path: Path, experiment: Experiment, state: State) -> tuple[list[str], float | None]:
    """Gives a claimed run a new configuration.

    Args:
      path: the workdir.
      experiment: of the configuration as it is from now on.
      state: from which the run goes on.

    Returns:
      What is to be said of it, nothing where it is the same; and the epochs that the run was to have, where it is
      extended and is not what a run of the new length would have been.
    """
    before, config = kept_config(path), experiment.config
    different = adopt(path, config)
    others = [line for line in different if line.partition(':')[0] not in LENGTH]
    lines = [changed(others)] if others else []
    if len(others) == len(different):
        return lines, None
    shorter, _ = _shorter(experiment.plan, before)
    mixed = not is_first_part(experiment, before, int(state.step))
    had = before.epochs if shorter.steps == shorter.all_steps else round(shorter.epoch(shorter.steps), 3)
    if before.epochs == config.epochs:
        sentence = (
            f'goes on from {shorter.steps:,} to {experiment.plan.steps:,} of {experiment.plan.all_steps:,} steps '
            '(config.max_steps): the schedule is made for all steps, as before'
        )
        return [*lines, sentence, *_statistics(config, int(state.step) >= shorter.steps)], had if mixed else None
    return lines + extended(experiment, before, state), had if mixed else None


def changed(differences: list[str]) -> str:
    """Returns the line that says with which values, 'key: old -> new' each, a run goes on."""
    hints = [hint for start, hint in EXACTNESS.items() if any(line.startswith(start) for line in differences)]
    return f'continues with {"; ".join(differences)}' + (f' ({"; ".join(hints)})' if hints else '')


def extended(experiment: Experiment, before: ConfigDict, state: State) -> list[str]:
    """Returns what a longer run does to the schedule, and to whatever else goes by the length of the run.

    Args:
      experiment: of the longer run.
      before: the configuration of the shorter one.
      state: from which the run goes on.
    """
    plan, config, step = experiment.plan, experiment.config, int(state.step)
    shorter, old = _shorter(plan, before)
    scale = float(state.plateau['scale']) if state.plateau else 1.0
    new = experiment.schedule
    rates = [scale * float(rate) for rate in (old(step), new(step), new(plan.steps - 1))]
    texts = [f'{rate:.4g}' for rate in rates]
    moves = f'stays {texts[0]}' if texts[0] == texts[1] else f'goes from {texts[0]} to {texts[1]}'
    name = config.schedule.name
    mixed = '' if is_first_part(experiment, before, step) else 'not '
    sentence = (
        f'extended from {before.epochs:g} to {config.epochs:g} epochs ({shorter.steps:,} to {plan.steps:,} steps): '
        f'schedule {name!r}: at step {step:,} the learning rate {moves}, at the end it is {texts[2]}: {REASONS[name]}; '
        f'the steps so far are {mixed}the first of a run of {config.epochs:g} epochs'
    )
    return [sentence, *_sizes(shorter, plan, config, step), *_statistics(config, step >= shorter.steps)]


def is_first_part(experiment: Experiment, before: ConfigDict, step: int) -> bool:
    """Whether the steps so far, made for a shorter run, are what a run of the new length would have made.

    Arguments are as in `extended`.
    """
    config, (shorter, old) = experiment.config, _shorter(experiment.plan, before)
    if step >= shorter.steps and (config.precise_batches or config.schedule.name == 'plateau'):
        return False  # at the old end statistics were computed anew, and an evaluation was made that counts
    steps = jnp.asarray(np.unique(np.linspace(0, max(step - 1, 0), min(step, SAMPLES)).astype(np.int32)))
    rates = [jax.vmap(lambda count, of=of: jnp.float32(of(count)))(steps) for of in (old, experiment.schedule)]
    sizes = [
        [phase for phase in resizing.make(config.resize, plan.all_steps, plan.steps_per_epoch) if phase.first < step]
        for plan in (shorter, experiment.plan)
    ]
    return bool(np.allclose(*rates, rtol=1e-5, atol=0)) and sizes[0] == sizes[1]


def _shorter(plan: Plan, before: ConfigDict) -> tuple[Plan, Schedule]:
    """Returns the plan and the schedule of the run as it was to be."""
    shorter = Plan(plan.examples, before.batch_size, before.epochs, before.max_steps)
    return shorter, schedules.make(before.schedule, shorter.all_steps, shorter.steps_per_epoch, before.batch_size)


def _sizes(shorter: Plan, longer: Plan, config: ConfigDict, step: int) -> list[str]:
    """Says where images are resized on the way, and the size of the next ones moves with the end of the run."""
    if config.resize.name == 'none':
        return []
    sizes = []
    for plan in (shorter, longer):
        phases = resizing.make(config.resize, plan.all_steps, plan.steps_per_epoch)
        sizes.append(phases[resizing.phase_at(phases, step)].size)
    moves = f'stay {sizes[0]} pixels' if sizes[0] == sizes[1] else f'go from {sizes[0]} to {sizes[1]} pixels'
    return [f'resize {config.resize.name!r}: at step {step:,} training images {moves}']


def _statistics(config: ConfigDict, ended: bool) -> list[str]:
    if not ended or not config.precise_batches:
        return []
    return ['the statistics of norms, computed anew at the old end, are where their running means go on from']
