"""A net whose batch norms, and the memory it takes in training, are decided from outside, for any architecture."""

import flax.linen as nn
import jax

from cvresearch.nn.norms import BatchNorm, Normalization


class Net(nn.Module):
    """A model with its variables under the same names, and other normalization or rematerialised blocks.

    Attributes:
      model: the net.
      norm: what its batch norms do.
      remat: in the backward pass compute each block (a module of the net that has modules of its own) anew from
        its input, instead of keeping its values. Blocks that nn/stacked.py repeats see to it themselves.
    """

    model: nn.Module
    norm: Normalization = Normalization()
    remat: bool = False

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
        inside = False

        def intercept(call, arguments, keywords, context):
            nonlocal inside
            if context.method_name != '__call__':
                return call(*arguments, **keywords)
            if isinstance(context.module, BatchNorm):
                return call(*arguments, **{'how': self.norm, **keywords})
            if not (self.remat and train) or inside or not _is_block(context.module):
                return call(*arguments, **keywords)
            inside = True
            try:
                return nn.remat(type(context.module).__call__)(context.module, *arguments, **keywords)
            finally:
                inside = False

        with nn.intercept_methods(intercept):
            return self.model(x, train=train)


def blocks(params: dict) -> list[str]:
    """Returns the names of a net's blocks: modules of the net that have modules of their own."""
    return [name for name, inner in params.items() if any(isinstance(leaf, dict) for leaf in inner.values())]


def _is_block(module: nn.Module) -> bool:
    return len(module.path) == 1 and bool(blocks({'module': module.variables.get('params', {})}))
