"""Trains an experiment: python -m cvresearch.main --config configs/lenet5_mnist5k.py --workdir DIR."""

from cvresearch.base import cli, cluster
from cvresearch.base.errors import UserError
from cvresearch.base.overrides import flatten


def main(argv: list[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    options = cli.parse(
        argv,
        __doc__,
        required=('config',),
        places=('workdir',),
        buckets=('workdir',),
        repeated=('track',),
        config='experiment file, with :ARGUMENT after its name where it takes one (every file takes :smoke)',
        workdir='folder of the run, also gs://BUCKET/PATH or s3://BUCKET/PATH; the same command again continues it',
        profile='number of steps in the profile that is written to WORKDIR/profile, for TensorBoard and xprof',
        profile_from='the first of them (the third that this process makes)',
        track='tracker that gets the records too: wandb, mlflow, one of a plugin; may be given several times',
        peak='TFLOP/s of one device, or measure: then MFU is told',
        **cluster.FLAGS,
        switches=dict(
            extend='train a run that is there on to a larger --config.epochs, also a finished one',
            print_config='print every key with its value, and train nothing',
            dry_run='tell what the run will cost (images, multiply-adds, hours here), and train nothing',
        ),
    )
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
    numbers = cli.integers(options, 'profile', 'profile_from')
    hosts, host, coordinator, patience = cluster.of_flags(options)
    # After the checks: a misspelt key is said without loading JAX.
    with cli.importing():
        from cvresearch import train
        from cvresearch.base import staging, trackers
        from cvresearch.base.hosts import joined
        from cvresearch.base.speed import Observation

    trackers.check(options.track)
    observation = Observation(options.peak or '', track=tuple(options.track), **numbers)
    with joined(hosts, host, coordinator, patience), staging.opened(options.workdir, options.extend) as workdir:
        return train.run(config, workdir, observation, options.extend)


if __name__ == '__main__':
    cli.run(main)
