"""A named variant of an architecture, the facts it is held to, and whose weights it takes."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of a family's VARIANTS table.

    The counts come from the paper, a reference implementation or hand arithmetic, as `evidence`
    says, never from running the module.

    Attributes:
      module: the linen class; called with `arguments`, `num_classes` and `dtype`.
      arguments: what sets this variant apart.
      input_shape: (height, width, channels) at which the counts hold.
      num_classes: number of classes at which the counts hold.
      params: trainable parameters; None where no source states them.
      macs: multiply-adds of convolutions and dense layers for one image; None likewise.
      paper: citation.
      evidence: where the counts come from.
    """

    module: type[nn.Module]
    input_shape: tuple[int, int, int]
    num_classes: int
    params: int | None
    macs: int | None
    paper: str
    evidence: str
    arguments: Mapping = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Reference:
    """A net of another library whose weights one of our variants takes, with equal logits.

    Attributes:
      variant: name of our variant.
      rename: maps our module path, 'stage1_block0/conv1', to the reference's, 'layer1.0.conv1' (for Keras, the
        layer's name): a table, `Names`, or a function.
      arguments: of our constructor, over the variant's own, under which the two agree: padding,
        epsilon and the like, where libraries differ.
      flatten: {our module path: (channels, height, width)} of dense layers that follow the
        flattening of a map: their rows are in C, H, W order in PyTorch and in H, W, C order here.
      as_convolution: patterns (regular expressions, of the whole path) of our dense layers that are
        convolutions there: 1x1, or over the whole map that `flatten` gives.
      ignore: patterns (of the whole name) of tensors that the reference has and our net has no use for.
      published: (pattern, replacement) pairs (of the whole name), for tensors whose names in the
        library's published files are not those that its code gives today.
      training_only: pattern (of our whole path) of parameters that only training uses, such as auxiliary heads.
        A file without all of them is loaded, for evaluation, into the net that `without` makes.
      without: arguments of our constructor that leave those out.
      version: of the library's class, which PyTorch demands of a file that is loaded strictly.
      input_shape: (height, width, channels) of the golden file; small, where the net allows.
    """

    variant: str
    rename: Callable[[str], str]
    arguments: Mapping = dataclasses.field(default_factory=dict)
    flatten: Mapping[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    as_convolution: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    published: tuple[tuple[str, str], ...] = ()
    training_only: str | None = None
    without: Mapping = dataclasses.field(default_factory=dict)
    version: int | None = None
    input_shape: tuple[int, int, int] = (224, 224, 3)
