"""Loss curves of one small net with batch norm: on any number of devices, in any number of parts, in 32 or 64 bits."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import mesh as meshes
from cvresearch.engine import augment, steps
from cvresearch.engine import state as states
from cvresearch.nn import norms
from cvresearch.nn.conv import Conv
from cvresearch.nn.overrides import Net
from cvresearch.objectives import losses
from cvresearch.optim import optimizers
from tests.environment import QUICK

BATCH, SIZE, CLASSES = 256, 6, 10


class Small(nn.Module):
    """Two convolutions with batch norm. No cast at the end, unlike the models: all of it is in one precision."""

    dtype: jnp.dtype
    normalized: bool = True
    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, x, train=False):
        for number, width in enumerate((8, 16)):
            x = Conv(width, 3, strides=2 if number else 1, padding=1, dtype=self.dtype, name=f'conv{number}')(x)
            x = norms.BatchNorm(train=train, dtype=self.dtype, name=f'norm{number}')(x) if self.normalized else x
            x = nn.relu(x)
        return nn.Dense(CLASSES, dtype=self.dtype, name='head')(jnp.mean(x, (1, 2)))


def curve(
    dtype, group_size=0, devices=1, accumulate=1, length=50, normalized=True, optimizer=None, sam=0.0, begin=None
):
    """Returns the mean training loss of each step, float64 (length,), and the last state.

    Args:
      dtype: jnp.float64 (only where 64 bits are enabled) or jnp.float32, of everything.
      begin: parameters to begin with, instead of the initial ones.
    """
    mesh = meshes.make_mesh(devices)
    model = Net(Small(dtype, normalized), norms.Normalization(group_size=group_size))
    tx = optimizers.make(optimizer or {'name': 'sgd', 'momentum': 0.9}, lambda step: 0.05)
    recipe = steps.UpdateOptions(
        accumulate=accumulate,
        sam=sam,
        spread=lambda parts: jax.lax.with_sharding_constraint(parts, meshes.by_example_in_parts(mesh)),
    )
    loss = losses.make({'name': 'softmax_cross_entropy'})
    step = steps.make_train_step(model, tx, loss, augment.Augment(), (0.5,), (0.25,), recipe)
    whole = meshes.replicated(mesh)
    step = jax.jit(step, in_shardings=(whole, meshes.by_example(mesh)), out_shardings=whole, compiler_options=QUICK)
    state = jax.jit(functools.partial(states.create, model, tx, (SIZE, SIZE, 1)))(np.uint32(0))
    state = jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)
    state = state if begin is None else state.replace(params=begin)
    no_sums, values = state.sums, []
    for number in range(length):
        random = np.random.default_rng(number)
        label = random.integers(0, CLASSES, BATCH)
        # The class is in the brightness of rows, under noise: learnable, and not at once.
        image = random.integers(0, 200, (BATCH, SIZE, SIZE, 1)) + 5 * (label % SIZE)[:, None, None, None]
        batch = {
            'image': image.astype(np.uint8),
            'label': label.astype(np.int32),
            'epoch': np.zeros(BATCH, np.int32),
            'index': np.arange(BATCH, dtype=np.int32),
        }
        state = step(state.replace(sums=no_sums), batch)
        values.append(float(state.sums['loss']) / BATCH)
    return np.array(values), jax.device_get(state)
