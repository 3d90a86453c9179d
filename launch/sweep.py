"""Runs an experiment's sweep: python -m launch.sweep --config configs/X.py --workdir DIR [--on local] [--jobs 2].

Each setting of the config's `sweep()` trains in DIR/NAME, named by what differs. The same command
again skips what is finished and continues the rest. `--on print` prints the commands, `--dry-run`
what a backend would do, `--status` where each run stands.
"""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from cvresearch.base import cli
from cvresearch.base import config as configs
from cvresearch.base.errors import lookup
from launch import local, plan, progress


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be run, and how.

    Attributes:
      runs: all of the sweep.
      jobs: how many at a time.
      dry: print what would be done, and do nothing.
      options: the flags of the backend.
    """

    spec: str
    overrides: dict
    folder: Path
    runs: list[plan.Run]
    jobs: int
    dry: bool
    options: SimpleNamespace

    def open(self) -> list[plan.Run]:
        """Returns the runs that are not finished."""
        return [run for run in self.runs if run.state() != 'finished']


def on_print(order: Order) -> int:
    """Prints the commands of the runs that are not finished, one a line."""
    for run in order.open():
        print(shlex.join(run.command('python')))
    return 0


def on_local(order: Order) -> int:
    """Processes of this machine."""
    return on_print(order) if order.dry else local.Local(order.runs, order.jobs).go()


BACKENDS: dict[str, Callable[[Order], int]] = {'local': on_local, 'print': on_print}


def main(argv: list[str]) -> int:
    """Reads the sweep and hands it to a backend; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=('config', 'workdir'),
        switches=dict(dry_run='print what would be run, and run nothing', status='print where each run stands'),
        config='experiment file with a sweep(), with :ARGUMENT after its name where it takes one',
        workdir='folder of the sweep; each run has a folder in it',
        on=f'{", ".join(BACKENDS)}; local by default',
        jobs='runs at a time; 1 by default',
    )  # fmt: skip
    jobs = cli.integer('jobs', options.jobs) if options.jobs else 1
    backend = lookup('backend --on', BACKENDS, options.on or 'local')
    configs.load(options.config, options.overrides)  # says what is wrong with the experiment itself
    settings = configs.sweep_of(options.config)
    folder = Path(options.workdir).absolute()
    runs = plan.runs_of(options.config, options.overrides, list(settings), folder)
    if options.status:
        print(progress.table(runs))
        return 0
    if backend is not on_print and not options.dry_run:
        plan.write_manifest(folder, options.config, options.overrides, runs)
    return backend(Order(options.config, options.overrides, folder, runs, jobs, options.dry_run, options))


if __name__ == '__main__':
    cli.run(main)
