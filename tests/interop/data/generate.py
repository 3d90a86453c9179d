"""Writes the files beside this one with PyTorch and Keras. Not imported by the tests.

    python tests/interop/data/generate.py

Every tensor holds 0, 1/8, 2/8, ... in its own order, exact in every format.
"""

import gzip
import os
from collections import OrderedDict
from pathlib import Path

os.environ.setdefault('KERAS_BACKEND', 'jax')

import keras
import numpy as np
import torch

HERE = Path(__file__).parent


def eighths(*shape: int) -> torch.Tensor:
    """Returns 0, 1/8, 2/8, ... in that shape."""
    return torch.arange(np.prod(shape, dtype=int), dtype=torch.float32).reshape(shape) / 8


def torch_files() -> None:
    """Writes a training checkpoint in both layouts of torch.save."""
    wide = eighths(4, 6)
    state = OrderedDict({
        'module.conv.weight': torch.nn.Parameter(eighths(2, 3, 1, 2)),
        'module.every_other.weight': wide[:, ::2],  # a view, of a storage that the next one shares
        'module.turned.weight': wide.t(),
        'module.half.weight': eighths(3).half(),
        'module.brain.weight': eighths(3).bfloat16(),
        'module.double.weight': eighths(2).double(),
        'module.bn.num_batches_tracked': torch.tensor(7),
        'module.empty.weight': eighths(0, 3),
    })  # fmt: skip
    state._metadata = {'': {'version': 1}}
    checkpoint = {'epoch': 3, 'lr': 0.1, 'arch': 'tiny', 'state_dict': state, 'optimizer': {'state': {0: {'step': 5}}}}
    torch.save(checkpoint, HERE / 'checkpoint.pth')
    torch.save(checkpoint, HERE / 'checkpoint_legacy.pth', _use_new_zipfile_serialization=False)


def keras_files() -> None:
    """Writes a net with layers that have no name of their own, built second in its session."""
    layers = keras.layers

    def build() -> keras.Model:
        image = keras.Input((4, 4, 2))
        x = layers.Conv2D(3, 1, name='conv1')(image)
        x = layers.BatchNormalization(scale=False)(x)
        x = layers.DepthwiseConv2D(2, use_bias=False)(x)
        return keras.Model(image, layers.SeparableConv2D(1, 2, name='sep')(x))

    build()
    model = build()
    for weight in model.weights:
        weight.assign(eighths(*weight.shape).numpy())
    for name in ('tiny.keras', 'tiny.h5'):  # nine tenths of them are nothing, and go
        model.save(HERE / name)
        (HERE / f'{name}.gz').write_bytes(gzip.compress((HERE / name).read_bytes(), mtime=0))
        (HERE / name).unlink()


if __name__ == '__main__':
    torch_files()
    keras_files()
