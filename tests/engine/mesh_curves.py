"""Loss curves of small nets of the papers, by the program of a run, on any mesh and in 32 or 64 bits.

python -m tests.engine.mesh_curves    # measures the table of docs/scale.md: about half an hour of one core
"""

import dataclasses
import os
from pathlib import Path
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
from cvresearch.base.records import write_measurement
from cvresearch.data.stream import Stream
from cvresearch.engine import steps
from cvresearch.engine.experiment import Experiment
from cvresearch.evaluation.totals import evaluate
from cvresearch.models import mobilenet_v2

LENGTH, BATCH = 50, 32
RECORD = Path('docs/records/mesh_curves.json')
# Of 16 pixels nothing but one place is left before the last norms of the latter two, and with a rate of 0.02 rounding
# grows tenfold in three steps: 4e-5 after 50 steps in float64 on every mesh. So they get larger images, smaller steps.
CALM = {'data.image_size': 32, 'schedule.peak': 0.001}
NETS = {
    'resnet20_cifar10': {'model.depth': 8},
    'mobilenetv2_100': {'model.width': 0.25, **CALM},
    'efficientnet_b0': {'model.width': 0.25, 'model.depth': 0.25, **CALM},
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


def program_of(net: str, data: int, shard: int, dtype) -> Experiment:
    """Returns the program of a short training on small images, all of it in one precision."""
    changes = {'mesh.data': data, 'mesh.shard': shard, 'mesh.least': 256, 'model.name': net}
    changes |= {
        'data.image_size': 16,
        'data.channels': 3,
        'data.test': 96,
        'batch_size': BATCH,
        'eval_batch_size': BATCH,
        'epochs': 2.0,
        'optimizer.name': 'sgd',
        'schedule.peak': 0.02,
        'average.name': 'ema',
        'augment.flip': True,
        **NETS[net],
    }
    config = configs.load('configs/lenet5_fake.py', {key: str(value) for key, value in changes.items()})
    experiment = Experiment.from_config(config)
    return dataclasses.replace(experiment, model=Wide(experiment.model.clone(dtype=dtype)))


def curve(net: str, data: int, shard: int, dtype, length: int = LENGTH):
    """Returns the mean training loss of each step, float64 (length,), the last state, and its metrics of the test set.

    Args:
      net: one of `NETS`.
      data: copies of the parameters, each with its part of the batch.
      shard: devices over which each copy is divided.
      dtype: jnp.float32, or jnp.float64 where 64 bits are enabled.
    """

    def normalize(images, mean, std):
        return (images.astype(dtype) / 255 - jnp.array(mean, dtype)) / jnp.array(std, dtype)

    def begin(x, like):
        return jax.device_put(x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, like.sharding)

    # All of it is in one precision: the program's own pixels are float32, and so are its initial parameters.
    with mock.patch.object(mobilenet_v2, 'STAGES', FEWER_BLOCKS), mock.patch.object(steps, 'normalize', normalize):
        experiment = program_of(net, data, shard, dtype)
        state = jax.tree.map(begin, program_of(net, 1, 1, dtype).initial_state(), experiment.abstract_state())
        step, stream, values = experiment.train_step(), Stream(experiment.source.splits['train'], 0, BATCH), []
        for number in range(length):
            before = float(state.sums['loss'])
            state = step(state, meshes.place(stream.batch(number), experiment.mesh))
            values.append((float(state.sums['loss']) - before) / BATCH)
        found = evaluate(experiment.eval_step(), state, experiment.source.splits['test'], BATCH, experiment.mesh)
    return np.array(values), state, found


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest relative difference of two curves."""
    return float(np.abs(ours / theirs - 1).max())


def measure() -> None:
    """Writes how far the curves of all layouts are from that of one device, the layouts of all devices first."""
    rows, first = [], {}
    layouts = sorted(
        (layout for each in LAYOUTS.values() for layout in each),
        key=lambda layout: (layout != (1, 1), -layout[0] * layout[1], layout[0] > 1 and layout[1] > 1),
    )
    for data, shard in layouts:
        for net in NETS:
            row = {'net': net, 'data x shard': f'{data} x {shard}'}
            for dtype in (jnp.float64, jnp.float32):
                with jax.enable_x64(dtype is jnp.float64):
                    values, state, found = curve(net, data, shard, dtype)
                    expected = first.setdefault((net, dtype), values)
                row[f'apart, {dtype.__name__}'] = f'{apart(values, expected):.1e}'
            held = first.setdefault(net, _bytes(state))
            row |= {'images counted': found['n_seen'], 'bytes of a device': f'{_bytes(state) / held:.3f}'}
            rows.append(row)
            write_measurement(RECORD, rows, steps=LENGTH, batch=BATCH)
            print(row, flush=True)


def _bytes(state) -> int:
    """Bytes that the first device holds of parameters, moments and averages of the parameters."""
    held = (state.params, state.opt_state, state.average['params'])
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(held))


if __name__ == '__main__':
    measure()
