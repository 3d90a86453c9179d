"""Trains an experiment: python -m cvresearch.main --config configs/lenet5_mnist5k.py --workdir DIR."""

from cvresearch.base import cli


def main(argv: list[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    options = cli.parse(
        argv, __doc__,
        config='experiment file, with :ARGUMENT after its name where it takes one (every file takes :smoke)',
        workdir='folder of the run; the same command again continues it',
    )  # fmt: skip
    config = cli.config_of(options)
    from cvresearch import train  # after the checks: a misspelt key is said without loading JAX

    return train.run(config, options.workdir)


if __name__ == '__main__':
    cli.run(main)
