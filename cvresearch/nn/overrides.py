"""A net whose batch norms, frozen parts and memory in training are decided from outside, for any architecture."""

import contextlib
import dataclasses

import flax.linen as nn
import jax

from cvresearch.nn import remat, stacked, stochastic_depth
from cvresearch.nn.norms import BatchNorm, Normalization


class Net(nn.Module):
    """A model with its variables under the same names, and other normalization or rematerialised blocks.

    Attributes:
      model: the net.
      norm: what its batch norms do.
      remat: in the backward pass compute each block (a module of the net that has modules of its own) anew from
        its input, instead of keeping its values; statistics and gates are kept (nn/remat.py). Blocks that
        nn/stacked.py repeats see to it themselves.
      frozen: paths of modules that train as they are evaluated: with the running statistics of norms, which stay, and
        without dropout and stochastic depth. Dropout belongs to the layer before it. Blocks must be one by one.
    """

    model: nn.Module
    norm: Normalization = Normalization()
    remat: bool = False
    frozen: frozenset[str] = frozenset()

    def setup(self):
        nn.share_scope(self, self.model)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.model.num_classes

    @property
    def aux_weight(self) -> float:
        """Weight of the auxiliary heads' losses."""
        return self.model.aux_weight

    def __call__(self, x: jax.Array, train: bool = False):
        """Maps images as the model does."""
        in_block, rests = False, False  # whether the layer called last is frozen
        frozen = self.frozen if train else frozenset()

        def intercept(call, arguments, keywords, context):
            nonlocal in_block, rests
            module, path = context.module, '/'.join(context.module.path)
            if context.method_name != '__call__':
                return call(*arguments, **keywords)
            still = inside(path, frozen)
            if isinstance(module, nn.Dropout) and (still or rests):
                return arguments[0]
            if isinstance(module, BatchNorm):
                how = dataclasses.replace(self.norm, frozen=still)
                result = call(*arguments, **{'how': how, **keywords})
            else:
                with stochastic_depth.off() if still else contextlib.nullcontext():
                    result = rematerialised(call, arguments, keywords, module)
            if frozen and path and module.variables.get('params'):
                rests = still
            return result

        def rematerialised(call, arguments, keywords, module):
            nonlocal in_block
            if not (self.remat and train) or in_block or not _is_block(module):
                return call(*arguments, **keywords)
            in_block = True
            try:
                return remat.rematerialised(type(module).__call__)(module, *arguments, **keywords)
            finally:
                in_block = False

        with nn.intercept_methods(intercept):
            return self.model(x, train=train)


def frozen_in(model: nn.Module, modules: frozenset[str]) -> nn.Module:
    """Returns the net with these modules frozen, see `Net`; itself for none."""
    if not modules:
        return model
    return model.clone(frozen=modules) if isinstance(model, Net) else Net(model, frozen=modules)


def unrolled(model: nn.Module) -> nn.Module:
    """Returns the net with its blocks one by one: those inside a loop cannot be looked at."""
    return model.clone(model=unrolled(model.model)) if isinstance(model, Net) else stacked.unrolled(model)


def separate(model: nn.Module, variables: dict) -> tuple[nn.Module, dict]:
    """Returns the net with its blocks one by one, and its variables so, in whichever layout they came."""
    return unrolled(model), stacked.unstack(variables)


def inside(path: str, modules: frozenset[str]) -> bool:
    """Whether a path names a module among `modules`, or something inside one."""
    parts = path.split('/')
    return bool(modules) and any('/'.join(parts[:depth]) in modules for depth in range(1, len(parts) + 1))


def blocks(params: dict) -> list[str]:
    """Returns the names of a net's blocks: modules of the net that have modules of their own."""
    return [name for name, inner in params.items() if any(isinstance(leaf, dict) for leaf in inner.values())]


def _is_block(module: nn.Module) -> bool:
    return len(module.path) == 1 and bool(blocks({'module': module.variables.get('params', {})}))
