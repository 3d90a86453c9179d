"""Trains an experiment: python -m cvresearch.main --config configs/lenet5_mnist5k.py --workdir DIR."""

from types import SimpleNamespace

from cvresearch.base import cli, cluster
from cvresearch.base.errors import UserError
from cvresearch.base.overrides import flatten


def main(argv: list[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=('config',), places=('workdir',),
        config='experiment file, with :ARGUMENT after its name where it takes one (every file takes :smoke)',
        workdir='folder of the run; the same command again continues it',
        hosts='processes that train together, one on each host (1); auto: as SLURM or a TPU VM says (docs/hosts.md)',
        host='the number of this one, from 0',
        coordinator='ADDRESS:PORT of host 0, the same for all',
        patience='seconds after which a silent host counts as lost (120)',
        profile='number of steps in the profile that is written to WORKDIR/profile, for TensorBoard and xprof',
        profile_from='the first of them (the third that this process makes)',
        peak='TFLOP/s of one device, or measure: then MFU is told',
        switches=dict(
            extend='train a run that is there on to a larger --config.epochs, also a finished one',
            print_config='print every key with its value, and train nothing',
            dry_run='tell what the run will cost (images, multiply-adds, hours here), and train nothing',
        ),
    )  # fmt: skip
    config = cli.config_of(options)
    if options.print_config:
        print(*(f'{key}: {value!r}' for key, value in sorted(flatten(config).items())), sep='\n')
        return 0
    if options.dry_run:
        from cvresearch.engine import budget

        print(budget.of(config).text)
        return 0
    if not options.workdir:
        raise UserError('--workdir is missing: folder of the run; the same command again continues it')
    numbers = {k: cli.integer(k, v) for k in ('profile', 'profile_from') if (v := getattr(options, k))}
    hosts, host, coordinator = _hosts_of(options)
    patience = cli.integer('patience', options.patience or '120')
    # After the checks: a misspelt key is said without loading JAX.
    from cvresearch import train
    from cvresearch.base.hosts import joined
    from cvresearch.base.speed import Observation

    observation = Observation(options.peak or '', **numbers)
    with joined(hosts, host, coordinator, patience):
        return train.run(config, options.workdir, observation, options.extend)


def _hosts_of(options: SimpleNamespace) -> tuple[int, int, str]:
    if options.hosts == 'auto':
        return cluster.hosts()
    hosts = cli.integer('hosts', options.hosts or '1')
    if hosts > 1 and not (options.host and options.coordinator):
        raise UserError(f'--hosts {hosts} needs --host NUMBER, from 0 to {hosts - 1}, and --coordinator ADDRESS:PORT')
    return hosts, cli.integer('host', options.host or '0', least=0), options.coordinator or ''


if __name__ == '__main__':
    cli.run(main)
