"""Padding, by the name of the library that pads so. Where a stride is 2, weights of the one do not suit the other."""

from cvresearch.base.errors import lookup
from cvresearch.nn.conv import Conv, Padding

PADDINGS = {
    'SAME': lambda kernel_size: 'SAME',  # TensorFlow: as little as keeps ceil(size / stride), the odd pixel at the end
    'torch': lambda kernel_size: kernel_size // 2,  # half the kernel on every side
}


def padding_of(name: str, kernel_size: int) -> Padding:
    """Returns the padding of a window under a library's habit.

    Args:
      name: 'SAME' or 'torch'.
      kernel_size: of the window, odd.

    Raises:
      UserError: another name.
    """
    return lookup('padding', PADDINGS, name)(kernel_size)


def padded_conv(features: int, kernel_size: int, *, padding: str, use_bias: bool = False, **arguments) -> Conv:
    """Returns a convolution layer, without bias unless asked for; `padding` as `padding_of`, the rest as `Conv`."""
    return Conv(features, kernel_size, padding=padding_of(padding, kernel_size), use_bias=use_bias, **arguments)
