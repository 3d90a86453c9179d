"""Saying in one line that an image does not fit a net."""

from cvresearch.base.errors import UserError
from cvresearch.nn.sliding import is_sliding


def require_size(net: str, image: tuple[int, ...], sizes: tuple[int, ...], channels: int | None = None) -> None:
    """Raises UserError unless `image` (..., height, width, channels) is square and of one of `sizes`.

    Args:
      net: name for the message.
      image: shape of the input.
      sizes: heights (= widths) that the net takes.
      channels: number of channels that it takes; None for any.

    In dense evaluation, larger images do too.
    """
    height, width, depth = image[-3:]
    if is_sliding() and min(height, width) >= min(sizes) and channels in (None, depth):
        return
    if height != width or height not in sizes or channels not in (None, depth):
        expected = ' or '.join(f'{size}x{size}x{channels or depth}' for size in sizes)
        raise UserError(f'{net} got images of {height}x{width}x{depth}, expected {expected}')


def require_at_least(net: str, image: tuple[int, ...], size: int) -> None:
    """Raises UserError unless both sides of `image` (..., height, width, channels) reach `size`."""
    height, width, depth = image[-3:]
    if min(height, width) < size:
        raise UserError(f'{net} got images of {height}x{width}x{depth}, expected at least {size}x{size}')
