"""Whole training steps, or inference, beside PyTorch's, in turns: medians of pairs.

    python tests/peers/pytorch.py [NET...] [--rounds 3] [--plain] [--format markdown] [--record FILE]
    python tests/peers/pytorch.py [NET...] --inference [--rounds 2] ...

Float32, SGD with momentum, the batch already in memory; PyTorch eager, channels last, with its own threads. Each net is
measured in a process of its own, once a round: what other nets left in memory, and which addresses a process was given,
move a ratio by more than the rest. The table has the median of the rounds, and the least and the largest. Inference
is of 1 and of 32 images. With --plain also our nets with every convolution as XLA's one operation, as `flax.linen.Conv`
has it. Needs PyTorch and torchvision (tests/goldens/requirements.txt); run it on an idle machine.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests/goldens')]

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch_reference import define_missing_operators

from cvresearch.base import records, tables
from cvresearch.base.memory import keep_freed_pages
from cvresearch.benchmark import Step
from cvresearch.models import registry
from cvresearch.nn.conv import plain_lowering

# Our name: torchvision's, batch, height and width.
NETS = {
    'resnet50': ('resnet50', 16, 128), 'resnext50_32x4d': ('resnext50_32x4d', 16, 128),
    'mobilenetv2_100': ('mobilenet_v2', 16, 128), 'shufflenet_v2_x1_0': ('shufflenet_v2_x1_0', 16, 128),
    'efficientnet_b0': ('efficientnet_b0', 16, 128), 'densenet121': ('densenet121', 16, 128),
    'lenet5': (None, 64, 28), 'resnet20_cifar10': (None, 64, 32),
}  # fmt: skip
BATCHES = (1, 32)  # images of inference


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


def torch_net(name: str) -> nn.Module:
    """Returns PyTorch's net, channels last."""
    define_missing_operators()
    import torchvision

    own = {'lenet5': lenet5, 'resnet20_cifar10': resnet20}
    model = own[name]() if name in own else getattr(torchvision.models, NETS[name][0])()
    return model.to(memory_format=torch.channels_last)


def torch_images(name: str, batch_size: int, size: int) -> torch.Tensor:
    """Returns random images (batch, channels, size, size), channels last."""
    images = torch.randn(batch_size, 1 if name == 'lenet5' else 3, size, size)
    return images.to(memory_format=torch.channels_last)


def torch_step(name: str, batch_size: int, size: int) -> Callable[[], float]:
    """Returns a function that makes one update and returns its seconds."""
    model = torch_net(name).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images, labels = torch_images(name, batch_size, size), torch.randint(0, 10, (batch_size,))

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        return time.perf_counter() - start

    return step


def torch_inference(name: str, batch_size: int, size: int) -> Callable[[], float]:
    """Returns a function that computes the logits of a batch and returns its seconds."""
    model, images = torch_net(name).eval(), torch_images(name, batch_size, size)

    def infer() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model(images)
        return time.perf_counter() - start

    return infer


def our_inference(name: str, batch_size: int, size: int) -> Callable[[], float]:
    """Returns the same of ours."""
    model, random = registry.build(name), np.random.default_rng(0)
    images = jnp.asarray(random.standard_normal((batch_size, size, size, 1 if name == 'lenet5' else 3)), jnp.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    numbers = jax.tree.map(lambda x: jnp.asarray(0.05 * random.standard_normal(x.shape), x.dtype), shapes)
    numbers = dict(numbers) | {'batch_stats': jax.tree.map(jnp.ones_like, numbers.get('batch_stats', {}))}
    apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False))

    def infer() -> float:
        start = time.perf_counter()
        jax.block_until_ready(apply(numbers, images))
        return time.perf_counter() - start

    return infer


def in_turns(functions: list[Callable[[], float]], rounds: int = 3) -> list[list[float]]:
    """Returns, for each function, the median seconds of every round."""
    medians = [[] for _ in functions]
    for _ in range(rounds):
        for function, found in zip(functions, medians, strict=True):
            function()
            time.sleep(0.05)  # the threads of the other one spin a while after its last step
            once = function()
            found.append(statistics.median([once, *(function() for _ in range(max(1, min(20, int(1 / once)))))]))
    return medians


def _beside(ours: Callable[[], float], theirs: Callable[[], float]) -> dict:
    our_s, their_s = in_turns([ours, theirs])
    ratio = statistics.median(a / b for a, b in zip(our_s, their_s, strict=True))
    return dict(ours_ms=1e3 * statistics.median(our_s), pytorch_ms=1e3 * statistics.median(their_s), ratio=ratio)


def inference_of(name: str) -> list[dict]:
    """Returns what one round finds of a net's inference, for each size of a batch."""
    found, size = [], NETS[name][2]
    for batch_size in BATCHES:
        ours, theirs = our_inference(name, batch_size, size), torch_inference(name, batch_size, size)
        ours(), theirs()
        found.append(dict(net=name, batch=batch_size, pixels=size, **_beside(ours, theirs)))
    return found


def training_of(name: str, plain: bool) -> list[dict]:
    """Returns what one round finds of a net's step."""
    _, batch_size, size = NETS[name]
    ours, theirs = Step.of(name, batch_size, size), torch_step(name, batch_size, size)
    ours_first, _ = _first_step(ours)
    theirs()
    row = dict(net=name, batch=batch_size, pixels=size, **_beside(ours, theirs), **ours_first)
    if plain:
        del ours
        jax.clear_caches()
        with plain_lowering():
            step = Step.of(name, batch_size, size)
        first, plain_s = _first_step(step)
        if plain_s < 10:  # the others take minutes
            plain_s = statistics.median(step() for _ in range(3))
        row |= dict(plain_ms=1e3 * plain_s, **{f'plain_{key}': value for key, value in first.items()})
    return [row]


def _first_step(step: Step) -> tuple[dict, float]:
    """Returns the seconds to compile the update and those to the first's end from the state's making on; its own."""
    once = step()
    return dict(compile_s=step.compile_s, first_step_s=step.initialise_s + step.compile_s + once), once


def measured_apart(name: str, options: argparse.Namespace, cache: Path, first: bool) -> list[dict]:
    """Returns what one round finds, in a process of its own; compiled programs are kept for the rounds after the first.

    What is compiled with plain convolutions, and the seconds of that, are of the first round alone.
    """
    flags = [flag for flag, on in (('--inference', options.inference), ('--plain', options.plain and first)) if on]
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': str(cache / name),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    command = [sys.executable, __file__, '--one', name, *flags]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row_of(rounds: list[dict]) -> dict:
    """Returns a row of the table: medians of the rounds, and between which ratios they lie."""
    first, ratios = rounds[0], [each['ratio'] for each in rounds]
    row = {key: first[key] for key in ('net', 'batch', 'pixels')}
    row |= {key: round(statistics.median(each[key] for each in rounds), 2) for key in ('ours_ms', 'pytorch_ms')}
    row |= dict(ratio=round(statistics.median(ratios), 2), least=round(min(ratios), 2), largest=round(max(ratios), 2))
    row |= {key: round(value, 1) for key, value in first.items() if key.endswith('_s') or key == 'plain_ms'}
    if 'plain_ms' in first:
        row['plain_ratio'] = round(first['plain_ms'] / row['pytorch_ms'], 2)
    return row


def main() -> None:
    """Prints the table; the record is written anew after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('nets', nargs='*', help='of ' + ', '.join(NETS), metavar='NET')
    parser.add_argument('--rounds', type=int, default=3, help='processes for each net')
    parser.add_argument('--inference', action='store_true', help='logits of 1 and of 32 images, no training')
    parser.add_argument('--plain', action='store_true', help='also with plain convolutions')
    parser.add_argument('--format', default='text', choices=['text', 'markdown', 'csv'])
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    parser.add_argument('--one', choices=NETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        keep_freed_pages()
        print(json.dumps(inference_of(options.one) if options.inference else training_of(options.one, options.plain)))
        return
    found: dict[tuple, list[dict]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(options.rounds):
            for name in options.nets or list(NETS):
                for each in measured_apart(name, options, Path(cache), number == 0):
                    found.setdefault((each['net'], each['batch']), []).append(each)
                    print(each, file=sys.stderr, flush=True)
            rows = [row_of(rounds) for rounds in found.values()]
            rows += [mean_of(rows, batch) for batch in (BATCHES if options.inference else (None,))]
            if options.record:
                records.write_measurement(options.record, rows, rounds=number + 1, load_average=os.getloadavg())
    print(tables.render(rows, tuple(rows[0]), options.format))
    print(f'jax {jax.__version__}, torch {torch.__version__}')


def mean_of(rows: list[dict], batch: int | None) -> dict:
    """Returns a row with the geometric means of the ratios, of batches of one size or of all."""
    rows = [row for row in rows if 'geometric' not in row['net'] and batch in (None, row['batch'])]
    mean = lambda key: round(math.exp(statistics.fmean(math.log(row[key]) for row in rows)), 2)  # noqa: E731
    blank = dict.fromkeys(rows[0], '')
    return blank | dict(net='geometric mean', batch=batch or '') | {k: mean(k) for k in ('ratio', 'least', 'largest')}


if __name__ == '__main__':
    main()
