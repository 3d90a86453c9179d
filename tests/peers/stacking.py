"""What stacked blocks would save of the compiling of nets that do not have them: python -m tests.peers.stacking

ResNet-50 and EfficientNet-B0 at 64 pixels, 8 images, as they are and with the equal blocks of each stage as one
(`nn/stacked.py`). In turns, in one process; the shortest of each. Writes docs/records/stacking.json.
"""

import functools
import os
import statistics
import sys
from pathlib import Path

import flax.linen as nn
import jax

from cvresearch.base import trees
from cvresearch.base.records import write_measurement
from cvresearch.benchmark import Step
from cvresearch.inspect import cost
from cvresearch.models import registry
from cvresearch.models.efficientnet import EfficientNet, MBConv, scaled_stages
from cvresearch.models.resnet import ResNet, projected_where_needed
from cvresearch.nn.activations import activation
from cvresearch.nn.conv import Conv
from cvresearch.nn.initializers import initializer
from cvresearch.nn.padding import padded_conv
from cvresearch.nn.pool import global_avg_pool, max_pool
from cvresearch.nn.stacked import repeat

BATCH, SHAPE, STEPS = 8, (64, 64, 3), 5
OUT = Path('docs/records/stacking.json')
as_one = functools.partial(repeat, scan=True, stacked=True)


class StackedResNet(ResNet):
    """The same net; of each stage all blocks but the first are one."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images to logits."""
        conv = functools.partial(Conv, use_bias=False, kernel_init=initializer(self.kernel_init))
        norm = self.bn.layer(train)
        shortcut = functools.partial(projected_where_needed, conv=conv, norm=norm)
        block = functools.partial(self.block, conv=conv, norm=norm, last_norm=norm, act=nn.relu, shortcut=shortcut)
        x = nn.relu(norm(name='stem_norm')(conv(64, 7, strides=2, padding=3, name='stem_conv')(x)))
        x = max_pool(x, 3, strides=2, padding=1)
        for i, size in enumerate(self.stage_sizes):
            of_stage, prefix = functools.partial(block, 64 * 2**i), f'stage{i + 1}_block'
            x = of_stage(2 if i else 1, name=f'{prefix}0')(x)
            x = as_one(self, functools.partial(of_stage, 1), prefix, range(1, size), x)
        return nn.Dense(self.num_classes, name='head')(global_avg_pool(x))


class StackedEfficientNet(EfficientNet):
    """The same net without stochastic depth; of each stage all blocks but the first are one."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images to logits."""
        conv = functools.partial(padded_conv, padding=self.padding, kernel_init=initializer(self.kernel_init))
        norm, act = self.bn.layer(train), activation(self.act)
        block = functools.partial(
            MBConv, se_ratio=self.se_ratio, drop_rate=0.0, train=train, conv=conv, norm=norm, act=act
        )
        x = act(norm(name='stem_bn')(conv(32, 3, strides=2, name='stem_conv')(x)))
        for i, stage in enumerate(scaled_stages(self.width, self.depth), 1):
            of_stage = functools.partial(block, stage.features, stage.kernel_size, expansion=stage.expansion)
            x = of_stage(strides=stage.strides, name=f'stage{i}_block0')(x)
            x = as_one(self, functools.partial(of_stage, strides=1), f'stage{i}_block', range(1, stage.repeats), x)
        x = act(norm(name='last_bn')(conv(1280, 1, name='last_conv')(x)))
        x = nn.Dropout(self.dropout, deterministic=not train)(global_avg_pool(x))
        return nn.Dense(self.num_classes, name='head')(x)


def nets() -> dict[str, tuple[nn.Module, nn.Module]]:
    """Returns each net with its blocks one by one, and with equal ones as one."""
    resnet, efficientnet = registry.build('resnet50'), registry.build('efficientnet_b0', stochastic_depth=0.0)
    arguments = registry.variant('resnet50').arguments
    return {
        'resnet50': (resnet, StackedResNet(num_classes=1000, **arguments)),
        'efficientnet_b0': (efficientnet, StackedEfficientNet(num_classes=1000)),
    }


def main(rounds: int = 2) -> None:
    """Measures in turns."""
    rows = []
    for name, ways in nets().items():
        separate, together = (trees.count(cost.shapes(way, SHAPE)['params']) for way in ways)
        assert separate == together, f'{name} has {separate} parameters, stacked {together}'
        found: list[list[tuple[float, ...]]] = [[], []]
        for _ in range(rounds):
            for way, times in zip(ways, found, strict=True):
                jax.clear_caches()
                step = Step.of_net(way, SHAPE, BATCH)
                first = step()
                times.append((step.compile_s, step.compile_s + first, statistics.median(step() for _ in range(STEPS))))
        least = [[min(column) for column in zip(*each, strict=True)] for each in found]
        (one, first, step_s), (own, own_first, own_step_s) = least
        rows.append(
            dict(
                net=name,
                compile_s=round(one, 1),
                stacked_compile_s=round(own, 1),
                compile_ratio=round(own / one, 2),
                first_step_s=round(first, 1),
                stacked_first_step_s=round(own_first, 1),
                step_ms=round(1e3 * step_s),
                stacked_step_ms=round(1e3 * own_step_s),
            )
        )
        print(rows[-1], flush=True)
    write_measurement(OUT, rows, batch=BATCH, rounds=rounds, load_average=os.getloadavg())


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
