"""A net that computes with its parameters as they are stored: layers that were made narrower, or products of two."""

import flax.linen as nn
import jax

from cvresearch.nn.conv import Conv, conv2d, explicit, pair


class Stored(nn.Module):
    """A model whose convolutions and dense layers may have other shapes than its constructor gives them.

    - A kernel with fewer features, or for fewer channels (structured pruning): the layer is that much narrower.
    - `first` and `second` in place of `kernel` (factorisation): two layers, one after the other, without a bias
      between. Of a dense layer they are (inputs, rank) and (rank, features). Of a convolution either (height, width,
      channels, rank) and (1, 1, rank, features), or (height, 1, channels, rank) and (1, width, rank, features).

    Convolutions in groups have to be as the constructor makes them. Variables have the names of the model's own.
    """

    model: nn.Module

    def setup(self):
        nn.share_scope(self, self.model)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.model.num_classes

    def __call__(self, x: jax.Array, train: bool = False):
        """Maps images as the model does."""
        with nn.intercept_methods(_as_stored):
            return self.model(x, train=train)


def _as_stored(call, arguments, keywords, context):
    layer = context.module
    if context.method_name != '__call__' or type(layer) not in (Conv, nn.Dense) or layer.is_initializing():
        return call(*arguments, **keywords)
    params = layer.variables['params']
    if 'first' not in params and (params['kernel'].shape[-1] == layer.features or getattr(layer, 'groups', 1) > 1):
        return call(*arguments, **keywords)
    names = ('first', 'second') if 'first' in params else ('kernel',)
    x, bias, *kernels = nn.dtypes.promote_dtype(
        arguments[0], params.get('bias'), *(params[name] for name in names), dtype=layer.dtype
    )
    for number, kernel in enumerate(kernels):
        x = x @ kernel if kernel.ndim == 2 else conv2d(x, kernel, **_window(layer, kernel.shape[:2], number))
    return x if bias is None else x + bias


def _window(layer: Conv, size: tuple[int, int], number: int) -> dict:
    """Returns the arguments of one of the convolutions that stand for a layer.

    A side of the window on which the kernel is as long as the layer's belongs to it, and so do its strides and padding;
    where both kernels are 1 long on a side, they belong to the first.
    """
    whole = pair(layer.kernel_size)
    owns = [side == full if full > 1 else number == 0 for side, full in zip(size, whole, strict=True)]

    def of(values, other):
        return tuple(value if own else other for value, own in zip(values, owns, strict=True))

    pads = explicit(layer.padding)
    padding = pads if isinstance(pads, str) else of(pads, (0, 0))
    return dict(strides=of(pair(layer.strides), 1), padding=padding, dilation=of(pair(layer.dilation), 1))
