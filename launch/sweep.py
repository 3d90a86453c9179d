"""Runs an experiment's sweep: python -m launch.sweep --config configs/X.py --workdir DIR [--on local] [--jobs 2].

Each setting of the config's `sweep()` trains in DIR/NAME, named by what differs. The same command again skips what is
finished and continues the rest. DIR may be gs://BUCKET/PATH. With --extend and a larger --config.epochs, runs that are
there are trained on, also finished ones. `--on print` prints the commands, `--dry-run` what a backend would do,
`--status` where each run stands.
"""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from cvresearch.base import at_hand, cli, sweeps
from cvresearch.base import config as configs
from cvresearch.base.errors import UserError, check_arguments, lookup
from cvresearch.base.paths import is_bucket
from cvresearch.base.values import parse
from launch import kubernetes, local, plan, progress, slurm, tpu


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be run, and how.

    Attributes:
      runs: all of the sweep.
      jobs: how many at a time.
      dry: print what would be done, and do nothing.
      settings: of the backend, by name, as --with gives them.
    """

    spec: str
    overrides: dict
    folder: Path
    runs: list[plan.SweepRun]
    jobs: int
    dry: bool
    settings: dict[str, object]

    def open(self) -> list[plan.SweepRun]:
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


def on_slurm(order: Order) -> int:
    """One array of SLURM; --with are further options of sbatch: "partition=gpu gpus=1"."""
    arguments = [f'--{key}={value}' for key, value in order.settings.items()]
    slurm.launch(order.open(), order.folder, order.jobs, arguments, order.dry)
    return 0


def on_kubernetes(order: Order) -> int:
    """An indexed Job of Kubernetes."""
    kubernetes.launch(order.open(), order.folder, order.jobs, _made(kubernetes.Settings, order), order.dry)
    return 0


def on_tpu(order: Order) -> int:
    """TPU VMs, through gcloud."""
    return tpu.launch(order.open(), order.folder, order.jobs, _made(tpu.Settings, order), order.dry)


def on_population(order: Order) -> int:
    """One program for all runs that differ only in numbers; several, one after another, where they differ in more."""
    from cvresearch import population  # JAX

    runs = order.open()
    groups = population.groups([run.config for run in runs])
    for i, group in enumerate(groups):
        print(f'population {i + 1} of {len(groups)}: {", ".join(runs[place].name for place in group)}')
        if order.dry:
            continue
        code = population.run([runs[place].config for place in group], [runs[place].workdir for place in group])
        if code:
            return code
    return 0


BACKENDS: dict[str, Callable[[Order], int]] = {
    'local': on_local,
    'population': on_population,
    'slurm': on_slurm,
    'tpu': on_tpu,
    'kubernetes': on_kubernetes,
    'print': on_print,
}

HERE = (on_local, on_population)  # processes of this machine


def _made(kind: type, order: Order):
    check_arguments('--with', order.settings, {field.name: field.default for field in dataclasses.fields(kind)})
    return kind(**order.settings)


def _settings(text: str) -> dict[str, object]:
    """Returns {'zone': 'us-west4-a', 'spot': True} for 'zone=us-west4-a spot=true'."""
    pairs = [word.partition('=') for word in shlex.split(text)]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UserError(f'--with is {text!r}; expected KEY=VALUE KEY=VALUE')
    return {key: parse(value) for key, _, value in pairs}


def _search(wanted: sweeps.Search, options: SimpleNamespace, folder: Path, jobs: int) -> int:
    if (options.on or 'local') != 'local':
        raise UserError(
            f'a search runs --on local, got {options.on}; start the launcher on each machine of a cluster, with one '
            '--workdir on a shared disk: they work at one study'
        )
    if options.dry_run:
        print(f'{wanted.trials} trials by {wanted.sampler}, pruned by {wanted.pruner}, in {folder}, each as:')
        setting = {key: span.at(0.5) for key, span in wanted.space.items()}
        run = plan.make(options.config, options.overrides, setting, 'trial-0000', folder)
        print(shlex.join(run.command('python')))
        return 0
    from launch import search  # Optuna takes a second to load

    study = search.Study(wanted, options.config, options.overrides, folder, jobs)
    if options.status:
        print(study.summary())
        return 0
    return study.go()


def main(argv: list[str]) -> int:
    """Reads the sweep and hands it to a backend; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('config', 'workdir'),
        places=('workdir',),
        buckets=('workdir',),
        switches=dict(
            dry_run='print what would be run, and run nothing',
            status='print where each run stands',
            extend='train runs that are there on to a larger --config.epochs, also finished ones',
        ),
        config='experiment file with a sweep(), with :ARGUMENT after its name where it takes one',
        workdir='folder of the sweep, also in a bucket; each run has a folder in it',
        on=f'{", ".join(BACKENDS)}; local by default',
        jobs='runs at a time; 1 by default',
        **{'with': 'settings of the backend, "zone=us-west4-a spot=true"; for slurm, options of sbatch'},
    )
    backend = lookup('backend --on', BACKENDS, options.on or 'local')
    configs.load(options.config, options.overrides)  # says what is wrong with the experiment itself
    if not is_bucket(options.workdir):
        return _run(options, backend, options.workdir.absolute())
    if options.status:
        return _run(options, backend, at_hand.read(options.workdir, '--workdir', records=True))
    if backend not in HERE or options.dry_run:
        raise UserError(
            f'--workdir is {options.workdir!r}: a sweep in a bucket is run by one machine, --on local or population, '
            'and not --dry-run; for others, or to see the commands, name a folder of this machine'
        )
    from cvresearch.base import staging  # JAX

    with staging.opened(options.workdir, marks=(plan.MANIFEST, plan.OWN)) as folder:
        return _run(options, backend, Path(folder))


def _run(options: SimpleNamespace, backend: Callable[[Order], int], folder: Path) -> int:
    wanted, jobs = configs.sweep_of(options.config), cli.integer('jobs', options.jobs) if options.jobs else 1
    if options.extend and (isinstance(wanted, sweeps.Search) or backend is on_population):
        what = 'a search' if isinstance(wanted, sweeps.Search) else 'a population'
        raise UserError(f'--extend is not for {what}; extend each run by cvresearch.main --extend')
    if isinstance(wanted, sweeps.Search):
        return _search(wanted, options, folder, jobs)
    runs = plan.runs_of(options.config, options.overrides, list(wanted), folder, options.extend)
    if options.status:
        print(progress.table(runs))
        return 0
    if backend is not on_print and not options.dry_run:
        plan.write_manifest(folder, options.config, options.overrides, runs)
    settings = _settings(getattr(options, 'with') or '')
    return backend(Order(options.config, options.overrides, folder, runs, jobs, options.dry_run, settings))


if __name__ == '__main__':
    cli.run(main)
