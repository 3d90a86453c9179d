"""What one NVIDIA card does in ten minutes, without a network: python -m launch.one_card --workdir DIR [--minutes 10].

First training steps of four nets in bfloat16 beside plain Flax and torch.compile, and 64 LeNet-5 as one program
(tests/peers/card.py, for which a clone of the repository is needed), then ResNet-20 with Random Erasing's own 300
epochs on Fashion-MNIST (configs/fashion_mnist_erasing.py:erasing), one seed after another until the time is up. The
same command goes on: what is measured or finished is passed over, a run that was stopped continues. Records, each with
the card and the versions: DIR/speed.json and DIR/resnet20_erasing_seedN.
"""

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cvresearch.base import cli
from cvresearch.base.errors import PREEMPTED, UserError, lookup
from cvresearch.base.records import read_card
from launch import devices

RECIPE = 'configs/fashion_mnist_erasing.py:erasing'
SPEED = Path(__file__).parents[1] / 'tests/peers/card.py'
SEEDS = 3
GRACE = 60  # seconds in which a run saves


@dataclasses.dataclass(frozen=True)
class Stage:
    """One process of the plan.

    Attributes:
      name: as it is told.
      command: of the process.
      done: the file or workdir that says whether it has been done.
    """

    name: str
    command: tuple[str, ...]
    done: Path

    def is_done(self) -> bool:
        """Whether its record is there, of a run a finished one."""
        if self.done.suffix == '.json':
            return self.done.exists()
        card = read_card(self.done) if (self.done / 'config.json').is_file() else None
        return card is not None and card['status'] == 'finished'


def stages(folder: Path, seeds: int, seconds: float, card: str = 'h100') -> list[Stage]:
    """Returns the plan for so many seconds: speed first, since it is short, then the seeds."""
    record, minutes = folder / 'speed.json', (seconds - 2 * GRACE) / 60
    flags = ('--record', str(record), '--minutes', f'{max(1, minutes):.1f}', '--card', card)
    plan = [Stage('speed', (sys.executable, str(SPEED), *flags), record)]
    for seed in range(seeds):
        run = folder / f'resnet20_erasing_seed{seed}'
        flags = ('--config', RECIPE, '--workdir', str(run), f'--config.seed={seed}')
        plan.append(Stage(f'seed {seed}', (sys.executable, '-m', 'cvresearch.main', *flags), run))
    return plan


def go(plan: Sequence[Stage], seconds: float, grace: float = GRACE) -> int:
    """Runs what is not done, one after another; returns 75 where the time was up before all was, else 0 or a failure.

    A process that is going on when `grace` seconds are left is told to stop, and saves.
    """
    end, worst = time.monotonic() + seconds, 0
    for stage in plan:
        if stage.is_done():
            print(f'{stage.name}: done before', flush=True)
            continue
        remaining = end - grace - time.monotonic()
        if remaining <= 0:
            print(f'{stage.name}: no time left', flush=True)
            worst = worst or PREEMPTED
            continue
        start, process = time.monotonic(), subprocess.Popen(stage.command)
        try:
            code = process.wait(remaining)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(grace)
            except subprocess.TimeoutExpired:  # its last checkpoint stays
                process.kill()
                code = process.wait()
            code = PREEMPTED if code in (PREEMPTED, -signal.SIGTERM, -signal.SIGKILL) else code
        print(f'{stage.name}: exit {code} after {time.monotonic() - start:.0f} s', flush=True)
        worst = code if code not in (0, PREEMPTED) else worst or code
    return worst


def main(argv: list[str]) -> int:
    """Measures and trains until the time is up; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('workdir',),
        places=('workdir',),
        switches=dict(dry_run='print the commands, and run nothing'),
        workdir='folder for the records',
        minutes='until it stops, saving included; 10 by default',
        seeds=f'of the training; {SEEDS} by default',
        card='whose peaks are taken: h100 (default), h200',
    )
    minutes = cli.integer('minutes', options.minutes, least=2) if options.minutes else 10
    if not SPEED.is_file():
        raise UserError(f'no {SPEED} is here, expected in a clone of the repository; run it there')
    seeds = cli.integer('seeds', options.seeds) if options.seeds else SEEDS
    card = lookup('card', {'h100': 'h100', 'h200': 'h200'}, options.card or 'h100')
    plan = stages(options.workdir, seeds, 60.0 * minutes, card)
    if options.dry_run:
        print(*(' '.join(('python', *stage.command[1:])) for stage in plan), sep='\n')
        return 0
    if not devices.gpus():
        raise UserError('no NVIDIA card is here (nvidia-smi names none); on a CPU train with launch.sweep')
    options.workdir.mkdir(parents=True, exist_ok=True)
    return go(plan, 60.0 * minutes)


if __name__ == '__main__':
    cli.run(main)
