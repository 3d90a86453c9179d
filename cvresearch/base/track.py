"""Sends the records of runs to a tracker: cvresearch track WORKDIR [WORKDIR ...] --to wandb.

What the tracker has of them already is not sent again. A run that trains sends them by itself with
`cvresearch.main --track`.
"""

import sys

from cvresearch.base import cli, tracking
from cvresearch.base.errors import FAILED, UserError
from cvresearch.base.paths import local


def main(argv: list[str]) -> int:
    """Sends them; returns the exit code: 1 where a tracker did not take all."""
    options = cli.parse(argv, __doc__, positional='workdir', to="tracker: wandb, mlflow, or one of the run's plugins")
    paths = [local(text) for text in options.rest]
    missing = [path for path in paths if not (path / 'config.json').is_file()]
    if missing or not paths:
        raise UserError(f'expected the workdirs of runs, got {missing[0] if missing else "none"}')
    done = []
    for path in paths:
        with tracking.alone(path, options.to):
            done.append(tracking.send(path, options.to, lambda _: False, _warn))
        print(f'{path}: {"all of it is sent" if done[-1] else "not all was taken"}')
    return 0 if all(done) else FAILED


def _warn(line: str) -> None:
    print(f'warning: {line}', file=sys.stderr)
