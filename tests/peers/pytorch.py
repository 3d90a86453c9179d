"""Whole training steps beside PyTorch's, in one process, in turns: medians of pairs.

    python tests/peers/pytorch.py [NET...] [--plain] [--format markdown] [--record FILE]

Float32, SGD with momentum, the batch already in memory; PyTorch eager, channels last, with its own threads. With
--plain also our nets with every convolution as XLA's one operation, as `flax.linen.Conv` has it. Needs PyTorch and
torchvision (tests/goldens/requirements.txt); run it on an idle machine.
"""

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests/goldens')]

import jax
import torch
from torch import nn
from torch_reference import define_missing_operators

from cvresearch.base import records, tables
from cvresearch.base.memory import keep_freed_pages
from cvresearch.benchmark import Step
from cvresearch.nn.conv import plain_lowering

# Our name: torchvision's, batch, height and width.
NETS = {
    'resnet50': ('resnet50', 16, 128), 'resnext50_32x4d': ('resnext50_32x4d', 16, 128),
    'mobilenetv2_100': ('mobilenet_v2', 16, 128), 'shufflenet_v2_x1_0': ('shufflenet_v2_x1_0', 16, 128),
    'efficientnet_b0': ('efficientnet_b0', 16, 128), 'densenet121': ('densenet121', 16, 128),
    'lenet5': (None, 64, 28), 'resnet20_cifar10': (None, 64, 32),
}  # fmt: skip


class Block(nn.Module):
    """He et al. 2015, section 4.2: two 3x3 convolutions, and a shortcut that appends zeros."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.stride, self.missing = stride, after - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (batch, before, height, width) to (batch, after, height / stride, width / stride)."""
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        if self.missing:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return torch.relu(y + x)


def resnet20() -> nn.Module:
    """Returns the CIFAR net of the paper's table 6."""
    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [Block(a, b, b // a) for a, b in itertools.pairwise(widths)]
    stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def lenet5() -> nn.Module:
    """Returns the net of our variant: 5x5 convolutions, tanh, averages, 61,706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def torch_step(name: str, batch_size: int, size: int) -> Callable[[], float]:
    """Returns a function that makes one update and returns its seconds."""
    define_missing_operators()
    import torchvision

    own = {'lenet5': lenet5, 'resnet20_cifar10': resnet20}
    model = own[name]() if name in own else getattr(torchvision.models, NETS[name][0])()
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images = torch.randn(batch_size, 1 if name == 'lenet5' else 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch_size,))

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        return time.perf_counter() - start

    return step


def in_turns(functions: list[Callable[[], float]], rounds: int = 5) -> list[list[float]]:
    """Returns, for each function, the median seconds of every round."""
    medians = [[] for _ in functions]
    for _ in range(rounds):
        for function, found in zip(functions, medians, strict=True):
            function()
            time.sleep(0.05)  # the threads of the other one spin a while after its last step
            once = function()
            found.append(statistics.median([once, *(function() for _ in range(max(1, min(20, int(1 / once)))))]))
    return medians


def compare(name: str, plain: bool) -> dict:
    """Returns one row of the table."""
    _, batch_size, size = NETS[name]
    jax.clear_caches()  # or what is compiled second finds parts of what was compiled first
    ours, theirs = Step.of(name, batch_size, size), torch_step(name, batch_size, size)
    ours_first, _ = _first_step(ours)
    theirs()
    our_s, their_s = in_turns([ours, theirs])
    row = dict(
        net=name,
        batch=batch_size,
        pixels=size,
        ours_ms=round(1e3 * statistics.median(our_s), 1),
        pytorch_ms=round(1e3 * statistics.median(their_s), 1),
        ratio=round(statistics.median(a / b for a, b in zip(our_s, their_s, strict=True)), 2),
        **ours_first,
    )
    if plain:
        del ours
        jax.clear_caches()
        with plain_lowering():
            step = Step.of(name, batch_size, size)
        first, plain_s = _first_step(step)
        if plain_s < 10:  # the others take minutes
            plain_s = statistics.median(step() for _ in range(3))
        row |= dict(
            plain_ms=round(1e3 * plain_s, 1),
            plain_ratio=round(plain_s / statistics.median(their_s), 2),
            **{f'plain_{key}': value for key, value in first.items()},
        )
    return row


def _first_step(step: Step) -> tuple[dict, float]:
    """Returns the seconds to compile the update and those to the first's end from the state's making on; its own."""
    once = step()
    total = step.initialise_s + step.compile_s + once
    return dict(compile_s=round(step.compile_s, 1), first_step_s=round(total, 1)), once


def main() -> None:
    """Prints the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('nets', nargs='*', help='of ' + ', '.join(NETS), metavar='NET')
    parser.add_argument('--plain', action='store_true', help='also with plain convolutions')
    parser.add_argument('--format', default='text', choices=['text', 'markdown', 'csv'])
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    options = parser.parse_args()
    keep_freed_pages()
    rows = []
    for name in options.nets or list(NETS):
        rows.append(compare(name, options.plain))
        print(rows[-1], file=sys.stderr)
        jax.clear_caches()
    print(tables.render(rows, tuple(rows[0]), options.format))
    if options.record:
        records.write_measurement(options.record, rows)
    mean = math.exp(statistics.fmean(math.log(row['ratio']) for row in rows))
    print(f'geometric mean of {len(rows)}: {mean:.2f}; jax {jax.__version__}, torch {torch.__version__}')


if __name__ == '__main__':
    main()
