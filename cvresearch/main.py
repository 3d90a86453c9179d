"""Trains an experiment: python -m cvresearch.main --config configs/lenet5_mnist5k.py --workdir DIR."""

from cvresearch.base import cli


def main(argv: list[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    options = cli.parse(
        argv, __doc__, required=('config', 'workdir'),
        config='experiment file, with :ARGUMENT after its name where it takes one (every file takes :smoke)',
        workdir='folder of the run; the same command again continues it',
        profile='steps of which a profile is written to WORKDIR/profile, for TensorBoard and xprof',
        profile_from='the first of them (the third that this process makes)',
        peak='TFLOP/s of one device, or measure: then MFU is told',
    )  # fmt: skip
    config = cli.config_of(options)
    numbers = {k: cli.integer(k, v) for k in ('profile', 'profile_from') if (v := getattr(options, k))}
    from cvresearch import train  # after the checks: a misspelt key is said without loading JAX
    from cvresearch.base.speed import Observation

    observation = Observation(options.peak or '', **numbers)
    return train.run(config, options.workdir, observation)


if __name__ == '__main__':
    cli.run(main)
