"""What of a net is frozen at a step, and its mode: freeze and frozen of config.updates."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from cvresearch.base import trees
from cvresearch.base.errors import UserError
from cvresearch.nn.overrides import frozen_in, inside, unrolled
from cvresearch.optim import param_filters
from cvresearch.optim.updates import OptimizerOptions

LEARNS, FROZEN = 'learns', 'frozen'


@dataclasses.dataclass(frozen=True)
class Freezing:
    """What is frozen when.

    Attributes:
      options: config.updates of the run.
      steps_per_epoch: of the run.
    """

    options: OptimizerOptions
    steps_per_epoch: float

    @property
    def inference(self) -> bool:
        """Whether what is frozen is in inference mode, and what is frozen for good has neither gradients nor moments.

        Otherwise its statistics of norms and its dropout go on.
        """
        return self.options.inference

    def never_learns(self, path: str) -> bool:
        """Whether a parameter is frozen for good."""
        return self.options.never_learns(path)

    def modules(self, params, step: int) -> frozenset[str]:
        """Returns the paths of the modules in inference mode in the update from a step: all their parameters rest.

        Args:
          params: of the net, or their shapes; blocks one by one.
          step: from 0.
        """
        if not self.inference:
            return frozenset()
        resting, learning = set(), set()
        for path, _ in trees.named_leaves(params):
            rests = self.never_learns(path) or self.options.start(path, self.steps_per_epoch) > step
            parts = path.split('/')[:-1]
            (resting if rests else learning).update('/'.join(parts[:depth]) for depth in range(1, len(parts) + 1))
        # A module rests as a whole: where one of its parameters learns, its statistics and its dropout go on.
        return frozenset(resting - learning)

    def starts(self, params) -> list[int]:
        """Returns the steps at which something begins to learn, after the first."""
        if not self.options.freeze:
            return []
        paths = (block for name, _ in trees.named_leaves(params) for block in trees.block_names(name))
        starts = {self.options.start(path, self.steps_per_epoch) for path in paths if not self.never_learns(path)}
        # What learns from the first update on begins no phase of its own.
        return sorted(starts - {0})

    def check(self, params, steps: int) -> None:
        """Raises UserError where something is to learn only after the run, or nothing learns."""
        late = [start for start in self.starts(params) if start >= steps]
        if late:
            epochs = sorted({epoch for _, epoch in self.options.thaws if epoch})
            raise UserError(
                f'config.updates.freeze has parameters that learn from epoch {epochs[-1]:g} on, step {late[-1]:,}, '
                f'and the run has {steps:,} steps ({steps / self.steps_per_epoch:g} epochs); expected an earlier '
                'epoch, or a pattern alone for what never learns'
            )
        if all(self.never_learns(block) for name, _ in trees.named_leaves(params) for block in trees.block_names(name)):
            raise UserError('config.updates.freeze freezes every parameter for good; expected some that learn')


def held(modules: frozenset[str], freezing: Freezing | None = None):
    """Returns whether the leaf of a path, of parameters or statistics, must keep its bits."""
    return lambda path: inside(path, modules) or (freezing is not None and freezing.never_learns(path))


def freeze(module: nn.Module, params, patterns: Sequence[str]) -> tuple[nn.Module, Any]:
    """Returns a net with parts in inference mode, and which parameters learn: to train it in a loop of your own.

    A part that is frozen as a whole normalizes with its running statistics, which stay, and has no dropout. Give the
    labels to Optax, since `optax.masked` would pass the gradients of the others through:

        module, labels = cvresearch.freeze(net.module, net.variables['params'], ['stem_.*', 'stage1_.*'])
        tx = optax.partition({'learns': optax.adamw(1e-3), 'frozen': optax.set_to_zero()}, labels)

    Args:
      module: of `load` or `create_model`.
      params: its parameters, blocks one by one.
      patterns: regular expressions for paths of modules, as `param_groups` gives them.

    Returns:
      (module, labels), labels a tree like `params` of 'learns' and 'frozen'.

    Raises:
      UserError: a pattern that matches nothing, or nothing that learns.
    """
    options = OptimizerOptions(freeze=tuple(patterns), frozen='inference')
    options.check(params)
    freezing = Freezing(options, 1.0)
    freezing.check(params, 1)
    frozen = param_filters.values(params, lambda path: float(freezing.never_learns(path)))
    labels = jax.tree.map(lambda one: FROZEN if one else LEARNS, frozen)
    return frozen_in(unrolled(module), freezing.modules(params, 0)), labels
