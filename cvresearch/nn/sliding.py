"""Dense evaluation: the end of a net slides over the map of a larger image, as if its dense layers were convolutions.

Sermanet et al. 2013, "OverFeat", arXiv:1312.6229, section 3.5; Simonyan & Zisserman 2014, section 3.2. Nets end in
one of two ways: the last map is flattened for a dense layer, whose kernel is then a convolution's with the
size of the map; or it is averaged over the image, and then over windows of that size. Which size it is, is measured
on an image of the net's own size.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import flax.linen as nn
from flax.linen.dtypes import promote_dtype
from jaxtyping import Float

from cvresearch.base.arrays import Images, JaxArray
from cvresearch.nn.conv import conv2d, pair

Size = tuple[int, int]

_SEEN: contextvars.ContextVar[list[Size] | None] = contextvars.ContextVar('seen', default=None)
_WINDOW: contextvars.ContextVar[Size | None] = contextvars.ContextVar('window', default=None)


@contextlib.contextmanager
def measuring() -> Iterator[list[Size]]:
    """Within it, nets note the (height, width) of the map that they flatten or average; yields the list of them."""
    seen: list[Size] = []
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)


@contextlib.contextmanager
def sliding(window: Size) -> Iterator[None]:
    """Within it, nets take larger images and return a map of logits, (batch, rows, columns, classes).

    Args:
      window: (height, width) of the last map for an image of the net's own size.
    """
    token = _WINDOW.set(window)
    try:
        with nn.intercept_methods(_as_convolution):
            yield
    finally:
        _WINDOW.reset(token)


def is_sliding() -> bool:
    """Whether a net is asked for a map of logits."""
    return _WINDOW.get() is not None


def note(x: Images) -> Size | None:
    """Notes the size of a net's last map (batch, height, width, channels); returns the window where nets slide."""
    if (seen := _SEEN.get()) is not None:
        seen.append(pair(x.shape[1:3]))
    return _WINDOW.get()


def flatten(x: Images) -> Float[JaxArray, 'batch ...']:
    """Maps (batch, height, width, channels) to (batch, height * width * channels); as it is where nets slide."""
    return x.reshape(x.shape[0], -1) if note(x) is None else x


def _as_convolution(next_function, arguments, keywords, context):
    """Applies a dense layer that was made for a flattened map to every window of a larger one."""
    module, window = context.module, _WINDOW.get()
    dense = type(module) is nn.Dense and context.method_name == '__call__' and arguments[0].ndim == 4
    if window is None or not dense:
        return next_function(*arguments, **keywords)
    (x,) = arguments
    kernel = module.get_variable('params', 'kernel')
    if kernel.shape[0] == x.shape[-1]:
        return next_function(*arguments, **keywords)  # at each place by itself
    bias = module.get_variable('params', 'bias') if module.use_bias else None
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=module.dtype)
    y = conv2d(x, kernel.reshape(*window, x.shape[-1], module.features), padding='VALID')
    return y if bias is None else y + bias
