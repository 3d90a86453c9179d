"""What becomes of a run that goes on with other values of its configuration: in words, from the parts themselves."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cvresearch.base.errors import UserError
from cvresearch.base.records import read_card
from cvresearch.base.workdir import adopt, kept_config
from cvresearch.data import resizing
from cvresearch.engine.checkpoint import Checkpoints
from cvresearch.engine.program import Plan, Program
from cvresearch.engine.state import State
from cvresearch.optim import schedules

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
    card, longer = read_card(path), kept_config(path).epochs < config.epochs
    saved = Checkpoints(path / 'checkpoints', read_only=True).steps()
    if card and longer and card['status'] == 'finished' and not saved:
        raise UserError(
            f'{path} is finished and has no checkpoint, so it cannot be extended; choose another --workdir to train so '
            'long from the start'
        )
    return card, longer


def adopted(path: Path, program: Program, config: ConfigDict, state: State) -> list[str]:
    """Makes a configuration that of a claimed run; returns what is to be said of it, nothing where it is the same.

    Args:
      path: the workdir.
      program: made of `config`.
      config: as it is from now on.
      state: from which the run goes on.
    """
    before = kept_config(path)
    different = adopt(path, config)
    others = [line for line in different if not line.startswith('epochs:')]
    longer = extended(program, before, config, state) if before.epochs != config.epochs else []
    return ([changed(others)] if others else []) + longer


def changed(differences: list[str]) -> str:
    """Returns the line that says with which values, 'key: old -> new' each, a run goes on."""
    hints = [hint for start, hint in EXACTNESS.items() if any(line.startswith(start) for line in differences)]
    return f'continues with {"; ".join(differences)}' + (f' ({"; ".join(hints)})' if hints else '')


def extended(program: Program, before: ConfigDict, config: ConfigDict, state: State) -> list[str]:
    """Returns what a longer run does to the schedule, and to whatever else goes by the length of the run.

    Args:
      program: of the longer run.
      before: the configuration of the shorter one.
      config: of the longer one.
      state: from which the run goes on.
    """
    plan, per_epoch = program.plan, program.plan.steps_per_epoch
    shorter = Plan(plan.examples, before.batch_size, before.epochs)
    step = int(state.step)
    old = schedules.make(before.schedule, shorter.steps, per_epoch, before.batch_size)
    scale = float(state.plateau['scale']) if state.plateau else 1.0
    rates = [scale * float(rate) for rate in (old(step), program.schedule(step), program.schedule(plan.steps - 1))]
    texts = [f'{rate:.4g}' for rate in rates]
    moves = f'stays {texts[0]}' if texts[0] == texts[1] else f'goes from {texts[0]} to {texts[1]}'
    name = config.schedule.name
    as_from_start = same_until(old, program.schedule, step) and name != 'plateau'
    said = (
        f'extended from {before.epochs:g} to {config.epochs:g} epochs ({shorter.steps:,} to {plan.steps:,} steps): '
        f'schedule {name!r}: at step {step:,} the learning rate {moves}, at the end it is {texts[2]}: {REASONS[name]}; '
        f'the steps so far are {"" if as_from_start else "not "}the first of a run of {config.epochs:g} epochs'
    )
    return [said, *_sizes(shorter, plan, config, step), *_statistics(config, step >= shorter.steps)]


def same_until(one, other, step: int) -> bool:
    """Whether two schedules have the same rates up to a step, but for rounding."""
    steps = jnp.asarray(np.unique(np.linspace(0, max(step - 1, 0), min(step, SAMPLES)).astype(np.int32)))
    rates = [np.asarray(jax.vmap(lambda count, of=of: jnp.float32(of(count)))(steps)) for of in (one, other)]
    return bool(np.allclose(*rates, rtol=1e-5, atol=0))


def _sizes(shorter: Plan, longer: Plan, config: ConfigDict, step: int) -> list[str]:
    """Says where images are resized on the way, and the size of the next ones moves with the end of the run."""
    if config.resize.name == 'none':
        return []
    found = []
    for plan in (shorter, longer):
        stages = resizing.make(config.resize, plan.steps, plan.steps_per_epoch)
        found.append(stages[resizing.stage_at(stages, step)].size)
    moves = f'stay {found[0]} pixels' if found[0] == found[1] else f'go from {found[0]} to {found[1]} pixels'
    return [f'resize {config.resize.name!r}: at step {step:,} training images {moves}']


def _statistics(config: ConfigDict, ended: bool) -> list[str]:
    if not ended or not config.batch_norm.get('precise_batches', 0):
        return []
    return ['the statistics of norms, computed anew at the old end, are where their running means go on from']
