"""Loss curves of small nets of the papers, by the program of a run, on any mesh and in 32 or 64 bits.

    python -m tests.engine.mesh_curves    # the table of docs/scale.md: takes about half an hour of one core
"""

import dataclasses
import os
from unittest import mock

if __name__ == '__main__':
    os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'
    os.environ['JAX_PLATFORMS'] = 'cpu'

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvresearch.base import config as configs
from cvresearch.base import mesh as meshes
from cvresearch.data.stream import Stream
from cvresearch.engine.evaluate import evaluate
from cvresearch.engine.program import Program
from cvresearch.models import mobilenet_v2

LENGTH, BATCH = 50, 32
NETS = {
    'resnet20_cifar10': {'model.depth': 8},
    'mobilenetv2_100': {'model.width': 0.25},
    'efficientnet_b0': {'model.width': 0.25, 'model.depth': 0.25},
}
FEWER_BLOCKS = tuple((t, c, min(n, 2), s) for t, c, n, s in mobilenet_v2.STAGES[:5])
LAYOUTS = {
    'data parallel': ((1, 1), (2, 1), (4, 1), (8, 1)), 'fully sharded': ((1, 2), (1, 4), (1, 8)), 'both': ((2, 4),),
}  # fmt: skip


class Wide(nn.Module):
    """A net whose logits keep the precision that its last layer computes in: the models hand out float32."""

    model: nn.Module

    def setup(self):
        nn.share_scope(self, self.model)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.model.num_classes

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images to logits."""
        kept = []

        def keep(call, arguments, keywords, context):
            result = call(*arguments, **keywords)
            if context.module.name == 'head':
                kept.append(result)
            return result

        with nn.intercept_methods(keep):
            self.model(x, train=train)
        return kept[0]


def program_of(net: str, data: int, shard: int, dtype) -> Program:
    """Returns the program of a short training on images of 16 pixels, all of it in one precision."""
    changes = {'mesh.data': data, 'mesh.shard': shard, 'mesh.least': 256, 'model.name': net, **NETS[net]}
    changes |= {
        'data.image_size': 16, 'data.channels': 3, 'data.test': 96, 'batch_size': BATCH, 'eval_batch_size': BATCH,
        'epochs': 2.0, 'optimizer.name': 'sgd', 'schedule.peak': 0.02, 'average.name': 'ema', 'augment.flip': True,
    }  # fmt: skip
    config = configs.load('configs/lenet5_fake.py', {key: str(value) for key, value in changes.items()})
    program = Program.of(config)
    return dataclasses.replace(program, model=Wide(program.model.clone(dtype=dtype)))


def curve(net: str, data: int, shard: int, dtype, length: int = LENGTH):
    """Returns the mean training loss of each step, float64 (length,), the last state, and its metrics of the test set.

    Args:
      net: one of `NETS`.
      data: copies of the parameters, each with its part of the batch.
      shard: devices over which each copy is divided.
      dtype: jnp.float32, or jnp.float64 where 64 bits are enabled.
    """
    with mock.patch.object(mobilenet_v2, 'STAGES', FEWER_BLOCKS):
        program = program_of(net, data, shard, dtype)
        wide = lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x  # noqa: E731
        state = jax.tree.map(wide, program.initial_state())
        state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state, program.abstract_state())
        step, stream, values = program.train_step(), Stream(program.source.splits['train'], 0, BATCH), []
        for number in range(length):
            before = float(state.sums['loss'])
            state = step(state, meshes.place(stream.batch(number), program.mesh))
            values.append((float(state.sums['loss']) - before) / BATCH)
        found = evaluate(program.eval_step(), state, program.source.splits['test'], BATCH, program.mesh)
    return np.array(values), state, found


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest relative difference of two curves."""
    return float(np.abs(ours / theirs - 1).max())


def table() -> None:
    """Prints how far the curves of all layouts are from that of one device."""
    print('| net | layout | data x shard | float64 | float32 | test images | state of a device |')
    print('| --- | --- | --- | ---: | ---: | ---: | ---: |')
    for net in NETS:
        first = {}
        for kind, layouts in LAYOUTS.items():
            for layout in layouts:
                cells = []
                for dtype in (jnp.float64, jnp.float32):
                    with jax.enable_x64(dtype is jnp.float64):
                        values, state, found = curve(net, *layout, dtype)
                        first.setdefault(dtype, (values, _bytes(state)))
                        cells.append(apart(values, first[dtype][0]))
                share = _bytes(state) / first[jnp.float32][1]
                print(
                    f'| {net} | {kind} | {layout[0]} x {layout[1]} | {cells[0]:.1e} | {cells[1]:.1e} | '
                    f'{found["n_seen"]} | {share:.3f} |', flush=True,
                )  # fmt: skip


def _bytes(state) -> int:
    """Bytes that the first device holds of parameters, moments and averages of the parameters."""
    held = (state.params, state.opt_state, state.average['params'])
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(held))


if __name__ == '__main__':
    table()
