"""Training steps on one NVIDIA card beside others', within ten minutes: python tests/peers/card.py --record FILE

`cvresearch one_card` runs it first, and then trains on the card.

Four nets in bfloat16, images of 224 pixels, SGD with momentum: ours, the same net as anyone would write it in Flax
(tests/peers/linen.py; ResNet-50 has the shape of Flax's own ImageNet example), and torchvision's under torch.compile,
channels last, autocast. Each is a process of its own. A row has images/s and MFU (operations of the net, three passes,
over the card's peak); ours also what is foreseen: the longer of operations and bytes of its compiled program, each at
the card's peak (`cvresearch plan`). At last LeNet-5, 64 nets as one program. What there is no time for is left out and
said; PyTorch is passed over where it is not installed (tests/goldens/requirements.txt).

It has run on no card yet: our step and plain Flax's were tried on a CPU, with --card none --batch_size 2 --pixels 32.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests/goldens')]

# Ours: linen's and torchvision's names are these but for the last's version.
NETS = {
    'resnet50': 'resnet50',
    'efficientnet_b0': 'efficientnet_b0',
    'resnext50_32x4d': 'resnext50_32x4d',
    'mobilenetv2_100': 'mobilenet_v2',
}
WHOSE = ('ours', 'linen', 'torch.compile')
WARM_UP, STEPS = 5, 20
LEAST = 30  # seconds that a process needs to be worth its start


def seconds_of(step: Callable[[], object], wait: Callable[[object], object]) -> float:
    """Returns the seconds of a step, of many that are not waited for one by one."""
    for _ in range(WARM_UP):
        done = step()
    wait(done)
    start = time.perf_counter()
    for _ in range(STEPS):
        done = step()
    wait(done)
    return (time.perf_counter() - start) / STEPS


def ours(net: str, batch_size: int, pixels: int, card: str) -> dict:
    """Returns the seconds of our step, its operations, and what is foreseen of it."""
    import jax

    from cvresearch.base import machines
    from cvresearch.benchmark import Step
    from cvresearch.inspect import cost, hlo, traffic

    step = Step.of(net, batch_size, pixels, 'bfloat16')
    flops = cost.training_flops(step.model, step.image_shape, batch_size)

    def update():
        step._state = step.compiled(step._state, step._batch)
        return step._state

    found = dict(seconds=seconds_of(update, jax.block_until_ready), flops=flops)
    if chip := machines.CHIPS.get(card):
        moved = traffic.traffic(hlo.parse(step.compiled.as_text()), on_chip=False)
        found['foreseen'] = max(flops / chip.flops['bfloat16'], moved.hbm / chip.hbm)
    return found


def plain(net: str, batch_size: int, pixels: int, card: str) -> dict:
    """Returns the seconds of plain Flax's step."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tests.peers import linen

    initial, step = linen.step_of(net)
    random = np.random.default_rng(0)
    batch = dict(
        image=jnp.asarray(random.integers(0, 256, (batch_size, pixels, pixels, 3), np.uint8)),
        label=jnp.asarray(random.integers(0, 1000, batch_size), jnp.int32),
    )
    state = jax.jit(initial)()

    def update():
        nonlocal state
        state, metrics = step(state, batch)
        return metrics

    return dict(seconds=seconds_of(update, jax.block_until_ready))


def torchs(net: str, batch_size: int, pixels: int, card: str) -> dict:
    """Returns the seconds of PyTorch's compiled step."""
    import torch
    from torch_reference import define_missing_operators

    define_missing_operators()
    import torchvision

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = getattr(torchvision.models, NETS[net])().to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images = torch.randn(batch_size, 3, pixels, pixels, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch_size,), device=device)
    forward = torch.compile(model) if device == 'cuda' else model

    def update():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return dict(seconds=seconds_of(update, lambda loss: loss.item()))


def population(members: int = 64) -> dict:
    """Returns how much faster 64 LeNet-5 are as one program than one after another."""
    from tests.peers import population as peers

    return peers.measure('lenet5', members)


CONTENDERS = dict(zip(WHOSE, (ours, plain, torchs), strict=True))


def apart(arguments: list[str], seconds: float) -> dict | str:
    """Returns what a process of its own finds, or why it found nothing."""
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return 'out of time'
    if done.returncode:
        return (done.stderr.strip().splitlines() or ['no word'])[-1][:200]
    return json.loads(done.stdout.splitlines()[-1])


def row_of(net: str, whose: str, found: dict | str, images: int, flops: float | None, peak: float | None) -> dict:
    """Returns a row of the table."""
    row = dict(net=net, whose=whose, images_per_second='', mfu='', step_ms='', foreseen_ms='', note='')
    if isinstance(found, str):
        return row | dict(note=found)
    row |= dict(images_per_second=round(images / found['seconds']), step_ms=round(1e3 * found['seconds'], 2))
    if flops and peak:
        row['mfu'] = round(flops / found['seconds'] / peak, 3)
    if 'foreseen' in found:
        row['foreseen_ms'] = round(1e3 * found['foreseen'], 2)
    return row


def main() -> None:
    """Prints the table, and writes the record after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--record', type=Path, help='file for the record: docs/records/NAME.json')
    parser.add_argument(
        '--card',
        default='h100',
        choices=('h100', 'h200', 'none'),
        help='whose peaks are taken: h100, h200; none: of no card',
    )
    parser.add_argument('--nets', nargs='+', choices=NETS, default=list(NETS))
    parser.add_argument('--batch_size', type=int, default=256)
    parser.add_argument('--pixels', type=int, default=224)
    parser.add_argument('--minutes', type=float, default=10)
    parser.add_argument('--one', nargs=2, help=argparse.SUPPRESS)
    parser.add_argument('--population', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one or options.population:
        same = (options.batch_size, options.pixels, options.card)
        print(json.dumps(CONTENDERS[options.one[1]](options.one[0], *same) if options.one else population()))
        return
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    from cvresearch.base import machines, records, tables

    chip = machines.CHIPS.get(options.card)
    peak, rows = chip.flops['bfloat16'] if chip else None, []
    end = time.monotonic() + 60 * options.minutes
    same = ['--card', options.card, '--batch_size', str(options.batch_size), '--pixels', str(options.pixels)]
    for net in options.nets:
        flops = None
        for whose in WHOSE:
            left = end - time.monotonic()
            found = apart(['--one', net, whose, *same], left) if left > LEAST else 'no time left'
            flops = found['flops'] if isinstance(found, dict) and whose == 'ours' else flops
            rows.append(row_of(net, whose, found, options.batch_size, flops, peak))
            print(rows[-1], flush=True)
            if options.record:
                records.write_measurement(options.record, rows, batch_size=options.batch_size)
    left = end - time.monotonic()
    together = apart(['--population'], left) if left > LEAST else 'no time left'
    print(tables.render(rows, tuple(rows[0]), 'text'), together, sep='\n')
    if options.record:
        records.write_measurement(options.record, rows, batch_size=options.batch_size, population=together)


if __name__ == '__main__':
    main()
